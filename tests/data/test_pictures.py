"""What lies in people's folders: read, skipped, left out by name, or a problem among all the others."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cns_jax.data.formats import PLUGINS, Plugin, is_picture
from cns_jax.data.images import ImageError, open_image
from cns_jax.data.pictures import read_pictures, twice

CASES = Path(__file__).parents[1] / "cases"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 83412\n"
STRAY = ".DS_Store Thumbs.db desktop.ini ._1.png .ipynb_checkpoints/1.png @eaDir/1.png __MACOSX/1.png .1.png~ ~$1.png"


def fill(folder: Path, *names: str) -> Path:
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (200, 40, i)).save(folder / name, format="PNG")
    return folder


def read(folder: Path) -> tuple[list[str], list[str], list[str]]:
    problems: list[str] = []
    notes: list[str] = []
    paths = read_pictures(folder, problems, notes)
    return [p.name for p in paths], problems, notes


@pytest.fixture
def without_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plugin, "installed", False)


@pytest.mark.parametrize("suffix", ["png", "jpg", "jfif", "jpe", "webp", "avif", "bmp", "gif", "tif", "jp2", "JPEG"])
def test_formats_of_pillow(tmp_path: Path, suffix: str) -> None:
    kind = {"jfif": "JPEG", "jpe": "JPEG", "tif": "TIFF", "jp2": "JPEG2000", "jpg": "JPEG"}.get(suffix, suffix.upper())
    Image.new("RGB", (16, 16), (200, 60, 40)).save(tmp_path / f"a.{suffix}", format=kind)
    assert read(tmp_path) == ([f"a.{suffix}"], [], [])
    np.testing.assert_allclose(open_image(tmp_path / f"a.{suffix}").getpixel((2, 2)), (200, 60, 40), atol=10)


@pytest.mark.parametrize("name", ["two_halves.heic", "red.jxl"])
def test_formats_of_the_extra(tmp_path: Path, name: str) -> None:
    plugin = next(p for p in PLUGINS if Path(name).suffix in p.suffixes)
    pytest.importorskip(plugin.module)
    shutil.copy(CASES / name, tmp_path / "b.jpg")  # as some programs call it
    shutil.copy(CASES / name, tmp_path)
    assert read(tmp_path) == (sorted(["b.jpg", name]), [], [])
    for path in tmp_path.iterdir():
        np.testing.assert_allclose(open_image(path).getpixel((5, 5)), (200, 60, 40), atol=3)
    (tmp_path / name).write_bytes((CASES / name).read_bytes()[:60])
    with pytest.raises(ImageError, match=f"{name} (is no picture|is corrupt or cut short)"):
        open_image(tmp_path / name)


@pytest.mark.usefixtures("without_plugins")
def test_without_the_extra_its_formats_are_counted_with_what_reads_them(tmp_path: Path) -> None:
    fill(tmp_path, "1.png", "clip.mov", "scan.psd")
    for name in ("2.heic", "3.HEIC"):
        shutil.copy(CASES / "two_halves.heic", tmp_path / name)
    shutil.copy(CASES / "red.jxl", tmp_path)
    names, problems, notes = read(tmp_path)
    assert names == ["1.png"] and not problems
    assert notes == [
        f"{tmp_path}: left out 2 .heic (pip install '.[photos]' reads them), 1 .jxl (pip install '.[photos]' reads "
        "them), 1 .mov, 1 .psd (convert to PNG or JPEG)"
    ]
    (tmp_path / "1.png").unlink()
    names, problems, _ = read(tmp_path)
    assert not names and "holds no pictures" in problems[0] and "it has 2 .heic (pip install" in problems[0]
    shutil.copy(CASES / "two_halves.heic", tmp_path / "4.jpg")
    assert f"{tmp_path / '4.jpg'} is a HEIC picture; pip install '.[photos]' reads them" in read(tmp_path)[1][0]


def test_what_systems_leave_is_skipped(tmp_path: Path) -> None:
    fill(tmp_path, "1.png", *STRAY.split())
    assert read(tmp_path) == (["1.png"], [], [])


def test_captions_of_no_picture_and_folders_inside_are_told(tmp_path: Path) -> None:
    fill(tmp_path, "1.png", "originals/1.png", "originals/2.png")
    for name in ("1.txt", "5.txt", "metadata.jsonl", "concept.toml", "notes.md"):
        (tmp_path / name).touch()
    (tmp_path / "empty.png").mkdir()
    _, problems, notes = read(tmp_path)
    left = "1 .md, 1 .txt (of no picture), the folder empty.png/, the folder originals/ with 2 pictures"
    assert not problems and notes == [f"{tmp_path}: left out {left}"]


def test_pictures_one_folder_deeper(tmp_path: Path) -> None:
    fill(tmp_path, "photos/my_cat/1.png", "photos/my_dog/1.png")
    _, problems, _ = read(tmp_path / "photos")
    assert len(problems) == 1
    assert (
        "move those of my_cat, my_dog up, or, if these are concepts themselves, give --config.data_root=" in problems[0]
    )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (POINTER, "is a Git LFS pointer, not the picture itself; run  git lfs pull"),
        (b"../../.git/annex/objects/aa/bb/SHA256E-s1.png", "is a git-annex pointer"),
        (b"\xef\xbb\xbf \n<!DOCTYPE html><html><body>Log in</body>", "is a web page, perhaps one that asks to log in"),
        (b"<html>", "is a web page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is a web page"),
        (b"<?xml version='1.0'?><svg></svg>", "is an SVG drawing; export it as PNG"),
        (b"PK\x03\x04aaaa", "is an archive; unpack it"),
        (b"\0\0\0\x18ftypmp42aaaa", "is a video"),
        (b"%PDF-1.7", "is a document"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is a document"),
        (b"\0" * 900, "holds zero bytes only"),
        (b'{"error": "not found"}', "is no picture that Pillow can read"),
    ],
)
def test_impostors(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "1.png").write_bytes(data)
    _, problems, _ = read(tmp_path)
    assert len(problems) == 1 and problems[0].startswith(f"{tmp_path / '1.png'} {said}")


def test_all_problems_of_a_folder_at_once(tmp_path: Path) -> None:
    fill(tmp_path, "1.png")
    (tmp_path / "2.png").write_bytes(POINTER)
    (tmp_path / "3.png").write_bytes(b"<html>")
    (tmp_path / "4.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "5.png").symlink_to("5.png")
    (tmp_path / "6.txt").symlink_to("gone.txt")
    os.mkfifo(tmp_path / "7.png")
    (tmp_path / ".8.jpg.icloud").touch()
    (tmp_path / "9.png").touch()
    names, problems, _ = read(tmp_path)
    assert len(problems) == 8
    for part in (
        "2.png is a Git LFS pointer",
        "3.png is a web page",
        f"4.png is a link to {tmp_path / 'gone.png'}, which is not there; mend the link or remove it",
        "5.png is a link to 5.png",
        "6.txt is a link to gone.txt",
        "7.png is no ordinary file",
        "8.jpg is in iCloud only",
        "9.png is empty",
    ):
        assert any(part in p for p in problems), part


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda f: f.touch(), "is a file; give a folder of pictures"),
        (lambda f: f.symlink_to("gone"), "is a link to gone, which is not there"),
        (lambda f: None, "does not exist; "),
    ],
)
def test_no_folder(tmp_path: Path, make, said: str) -> None:
    make(tmp_path / "a")
    assert said in read(tmp_path / "a")[1][0]


def test_links_that_hold_are_followed(tmp_path: Path) -> None:
    fill(tmp_path / "real", "1.png")
    (tmp_path / "linked").symlink_to("real")
    (tmp_path / "real" / "2.png").symlink_to("1.png")
    assert read(tmp_path / "linked")[0] == ["1.png", "2.png"]


def test_the_same_file_twice(tmp_path: Path) -> None:
    fill(tmp_path, "1.png", "2.png")
    paths = [tmp_path / "1.png", tmp_path / "2.png"]
    assert not twice(paths)
    for n in range(7):
        paths.append(tmp_path / f"copy{n}.png")
        shutil.copy(tmp_path / "1.png", paths[-1])
    lines = twice(paths)
    assert lines[0] == f"{paths[2]} is the same file as {paths[0]}; both are taught, remove one unless that is meant"
    assert len(lines) == 6 and lines[-1] == "and 2 files more are there twice"


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("1.png", True), ("1.JFIF", True), ("._1.png", False), (".1.png", False), ("1.txt", False), ("1.psd", False)],
)
def test_names_of_pictures(name: str, wanted: bool) -> None:
    assert is_picture(Path(name)) == wanted
