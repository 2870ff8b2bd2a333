"""Captions by a model: which pictures get one, what is never overwritten, and the whole command with a tiny BLIP."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from cns_jax.data.folder import DataError, discover, read_concepts
from cns_jax.engine.captioning import to_caption, write_captions

ROOT = Path(__file__).parents[2]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """cat: one picture without a caption, one with a .txt, one in metadata.jsonl; mug: one upright by EXIF only."""
    root = tmp_path / "photos"
    for name in ("cat/a.png", "cat/b.png", "cat/c.png", "mug/d.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[0x0112] = 6  # turn by 90 degrees to see it upright
        Image.new("RGB", (40, 20), (200, 40, 40)).save(root / name, exif=exif)
    (root / "cat" / "b.txt").write_text("my own words\n")
    (root / "cat" / "metadata.jsonl").write_text(json.dumps({"file_name": "c.png", "text": "from the table"}) + "\n")
    (root / ".hidden").mkdir()
    (root / ".hidden" / "e.png").write_bytes(b"")
    (root / "notes").mkdir()
    return root


def size(image: Image.Image) -> str:
    return f"a {image.mode} picture,\n {image.width} x {image.height} "


def test_only_pictures_without_captions_get_one(photos: Path) -> None:
    paths = to_caption(photos)
    assert [p.name for p in paths] == ["a.png", "d.jpg"]
    written = write_captions(paths, size)
    assert [p.name for p in written] == ["a.txt", "d.txt"]
    assert (photos / "cat" / "b.txt").read_text() == "my own words\n"
    assert to_caption(photos) == ()
    (photos / "notes").rmdir()
    cat, mug = read_concepts(photos, discover(photos))
    assert cat.captions == ("a RGB picture, 20 x 40", "my own words", "from the table")
    assert mug.captions == ("a RGB picture, 20 x 40",)


def test_overwrite(photos: Path) -> None:
    paths = to_caption(photos, overwrite=True)
    assert [p.name for p in paths] == ["a.png", "b.png", "c.png", "d.jpg"]
    write_captions(paths, size)
    assert (photos / "cat" / "b.txt").read_text() == "a RGB picture, 20 x 40\n"
    assert "from the table" in (photos / "cat" / "metadata.jsonl").read_text()


def test_what_is_written_stays_when_a_later_picture_fails(photos: Path) -> None:
    words = iter(["first"])
    with pytest.raises(StopIteration):
        write_captions(to_caption(photos), lambda _: next(words))
    assert [p.name for p in to_caption(photos)] == ["d.jpg"]


def test_no_words_no_file(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert write_captions(to_caption(photos), lambda _: " \n") == []
    assert "a.png: the model found no words" in caplog.text
    assert not (photos / "cat" / "a.txt").exists()


def test_two_pictures_with_one_name_get_a_caption_each(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "._b.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    assert [p.name for p in write_captions(to_caption(tmp_path), size)] == ["a.jpg.txt", "a.png.txt"]
    assert to_caption(tmp_path) == ()


@pytest.mark.parametrize("name", ["a.caption", "a.png.txt"])
def test_overwrite_writes_into_the_file_that_is_there(tmp_path: Path, name: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / name).write_text("old words")
    assert to_caption(tmp_path) == ()
    assert write_captions(to_caption(tmp_path, overwrite=True), size) == [tmp_path / name]
    assert to_caption(tmp_path) == ()


def test_all_problems_before_any_captioning(photos: Path) -> None:
    (photos / "cat" / "a.png").write_bytes(b"")
    (photos / "mug" / "d.jpg").write_bytes(b"text")
    with pytest.raises(DataError) as caught:
        to_caption(photos)
    assert "a.png is empty" in str(caught.value) and "d.jpg is no picture" in str(caught.value)


@pytest.mark.parametrize(("make", "said"), [(False, "is not a folder"), (True, "holds no pictures")])
def test_bad_root(tmp_path: Path, make: bool, said: str) -> None:
    root = tmp_path / "root"
    if make:
        root.mkdir()
    with pytest.raises(DataError, match=said):
        to_caption(root)


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random BLIP of two narrow layers with a vocabulary of a dozen words."""
    from transformers import (
        BertTokenizer,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
        set_seed,
    )

    folder = tmp_path_factory.mktemp("blip")
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]
    words = [*marks, *"a photo of the cat dog mug on beach in snow".split()]
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(words)}, bos_token="[DEC]")
    narrow = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    ids = dict(bos_token_id=words.index("[DEC]"), eos_token_id=words.index("[SEP]"), sep_token_id=words.index("[SEP]"))
    text = dict(vocab_size=len(words), encoder_hidden_size=16, pad_token_id=0, **narrow, **ids)
    vision = dict(image_size=16, patch_size=8, **narrow)
    set_seed(0)
    model = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision, projection_dim=16))
    model.save_pretrained(folder)
    pictures = BlipImageProcessor(size={"height": 16, "width": 16})
    BlipProcessor(pictures, tokenizer).save_pretrained(folder)
    return folder


NO_TORCH = "import sys; sys.modules['torch'] = None; "
COMMAND = "import runpy; runpy.run_module('cns_jax.caption', run_name='__main__', alter_sys=True)"
TRY_ALL = """
import sys
from cns_jax.caption import load_captioner
from cns_jax.core.settings import SettingsError

for model in sys.argv[1:]:
    try:
        load_captioner(model)
    except SettingsError as error:
        print(error)
"""


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A process without a network. The command's flags are global, so a test does not import it."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=300, env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip


def test_command(photos: Path, blip: Path) -> None:
    done = python(COMMAND, f"--data_root={photos}", f"--model={blip}")
    assert done.returncode == 0, done.stderr
    assert f"Wrote 2 captions below {photos}" in done.stdout
    for name in ("cat/a.txt", "mug/d.txt"):
        text = (photos / name).read_text().strip()
        assert text and set(text.split()) <= set("a photo of the cat dog mug on beach in snow".split())
        assert f"{photos / name}: {text}" in done.stdout
    assert (photos / "cat" / "b.txt").read_text() == "my own words\n"
    assert "2/2" in done.stderr  # the progress bar


def test_nothing_to_do_opens_no_model(photos: Path) -> None:
    write_captions(to_caption(photos), size)
    done = python(COMMAND, f"--data_root={photos}", "--model=nowhere")
    assert done.returncode == 0, done.stderr
    assert "has a caption" in done.stdout


def test_overwrite_flag_and_the_same_words_again(photos: Path, blip: Path) -> None:
    mug = photos / "mug"
    Image.open(mug / "d.jpg").save(mug / "again.jpg", exif=Image.open(mug / "d.jpg").getexif())
    (mug / "d.txt").write_text("old words\n")
    done = python(COMMAND, f"--data_root={mug}", f"--model={blip}", "--overwrite")
    assert done.returncode == 0, done.stderr
    assert (mug / "d.txt").read_text() == (mug / "again.txt").read_text() != "old words\n"


def test_without_torch_the_command_says_what_to_install(photos: Path, blip: Path) -> None:
    done = python(NO_TORCH + COMMAND, f"--data_root={photos}", f"--model={blip}")
    assert done.returncode == 1
    assert "error: captions need PyTorch" in done.stderr and "pip install '.[caption]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (photos / "cat" / "a.txt").exists()


def test_models_that_cannot_be_had(blip: Path, tmp_path: Path) -> None:
    for name, change in (("clip", {"model_type": "clip"}), ("short", {})):
        shutil.copytree(blip, tmp_path / name)
        config = json.loads((blip / "config.json").read_text())
        (tmp_path / name / "config.json").write_text(json.dumps({**config, **change}))
    weights = tmp_path / "short" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    expected = {
        "some/blip": "hf download some/blip --local-dir blip",
        str(tmp_path / "gone"): "give --model=PATH/blip",
        str(tmp_path / "clip"): "is a clip model; only BLIP can be used",
        str(weights.parent): "cannot be loaded",
    }
    done = python(TRY_ALL, *expected)
    assert done.returncode == 0, done.stderr
    for model, said in expected.items():
        assert f"{model!r}" in done.stdout and said in done.stdout
