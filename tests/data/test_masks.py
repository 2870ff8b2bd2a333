"""Loss masks: found beside their pictures, cropped and mirrored with them, whatever they were saved as."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cns_jax.data.folder import ConceptSpec, DataError, read_concepts
from cns_jax.data.masks import brightest, mask_views, open_alpha, open_mask
from cns_jax.data.views import views


def picture(path: Path, size: tuple[int, int] = (60, 40)) -> Path:
    """Noise, so that no two have the same content."""
    path.parent.mkdir(exist_ok=True)
    noise = np.random.default_rng(list(path.name.encode())).integers(0, 255, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).save(path)
    return path


def white_left(size: tuple[int, int] = (60, 40)) -> Image.Image:
    mask = Image.new("L", size, 0)
    mask.paste(255, (0, 0, size[0] // 2, size[1]))
    return mask


def read(root: Path) -> tuple:
    concept = read_concepts(root, [ConceptSpec("cat")])[0]
    return concept.image_paths, concept.mask_paths


@pytest.mark.parametrize("name", ["1.mask.png", "1.mask.JPG", "1-masklabel.png", "1.png.mask.png", "1.Mask.webp"])
def test_a_mask_is_read_and_is_no_picture(tmp_path: Path, name: str) -> None:
    one, two = picture(tmp_path / "cat" / "1.png"), picture(tmp_path / "cat" / "2.png")
    white_left().save(one.parent / name)
    assert read(tmp_path) == ((one, two), (one.parent / name, None))


def test_pictures_of_one_stem_have_masks_by_their_whole_names(tmp_path: Path) -> None:
    png, jpg = picture(tmp_path / "cat" / "1.png"), picture(tmp_path / "cat" / "1.jpg")
    white_left().save(tmp_path / "cat" / "1.png.mask.png")
    assert read(tmp_path) == ((jpg, png), (None, tmp_path / "cat" / "1.png.mask.png"))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["7.mask.png"], "7.mask.png is a loss mask, but beside it is no picture '7'"),
        (["1.mask.png", "1-masklabel.png"], "1.png has two loss masks, 1-masklabel.png and 1.mask.png; remove one"),
        (["2.mask.png"], "2.mask.png is a loss mask, but beside it is 2.jpg and 2.png"),
        (["1.mask.gif"], r"1.mask.gif is 40 x 60, its picture 60 x 40 \(upright\)"),
        (["1.mask.bmp"], "1.mask.bmp is empty"),
    ],
)
def test_problems_are_told(tmp_path: Path, names: list[str], said: str) -> None:
    for name in ("1.png", "2.png", "2.jpg"):
        picture(tmp_path / "cat" / name)
    for name in names:
        white_left((40, 60) if name.endswith("gif") else (60, 40)).save(tmp_path / "cat" / name)
        if name.endswith("bmp"):
            (tmp_path / "cat" / name).write_bytes(b"")
    with pytest.raises(DataError, match=said):
        read(tmp_path)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "RGBA", "LA", "I;16", "F"])
def test_modes_mean_the_same(tmp_path: Path, mode: str) -> None:
    mask, file = white_left(), tmp_path / ("a.tif" if mode == "F" else "a.png")
    if mode in ("I;16", "F"):
        top = 65535 if mode == "I;16" else 1
        mask = Image.fromarray((np.asarray(mask) / 255 * top).astype(np.uint16 if mode == "I;16" else np.float32))
    elif mode in ("RGBA", "LA"):  # white on transparent, as drawing programs save it
        white = Image.new("L", mask.size, 255).convert(mode)
        white.putalpha(mask)
        mask = white
    elif mode != "P":
        mask = mask.convert(mode)
    else:
        mask = mask.convert("RGB").quantize(2)
    mask.save(file)
    np.testing.assert_array_equal(np.asarray(open_mask(file)), np.asarray(white_left()))


def test_a_dark_sixteen_bit_mask_is_not_brightened(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 257 * 51, np.uint16)).save(tmp_path / "a.png")
    assert set(np.asarray(open_mask(tmp_path / "a.png")).ravel()) == {51}


def test_only_what_has_transparency_has_an_alpha_mask(tmp_path: Path) -> None:
    assert open_alpha(picture(tmp_path / "a.png")) is None
    image = Image.open(picture(tmp_path / "b.png")).convert("RGBA")
    image.putalpha(white_left())
    image.save(tmp_path / "b.png")
    np.testing.assert_array_equal(np.asarray(open_alpha(tmp_path / "b.png")), np.asarray(white_left()))


@pytest.mark.parametrize("size", [(60, 40), (30, 20), (120, 80), (59, 40)])
def test_a_mask_is_framed_as_its_picture(tmp_path: Path, size: tuple[int, int]) -> None:
    """A picture that is its own mask: each view of the mask is the mean over areas of the picture's view."""
    rng = np.random.default_rng(1)
    blocks = Image.fromarray(rng.integers(0, 2, (4, 6), np.uint8) * 255)
    path = tmp_path / "a.png"
    blocks.resize((240, 160), Image.Resampling.NEAREST).save(path)
    mask = blocks.resize(size, Image.Resampling.NEAREST)
    shown = views(path, (64, 64), 6, seed=2)[..., 0]
    means = (shown.reshape(6, 8, 8, 8, 8).mean((2, 4)) + 1) / 2
    masks = mask_views(path, mask, (64, 64), (8, 8), 6, seed=2)
    assert masks.shape == (6, 8, 8) and masks.dtype == np.float32
    assert np.abs(masks - means).mean() < 0.05
    unmirrored = mask_views(path, mask, (64, 64), (8, 8), 6, seed=2, flip=False)
    assert np.abs(unmirrored - means).mean() > 0.05  # some of them are mirrored


def test_white_is_one_and_black_is_nothing(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", (61, 47))
    for value in (0, 255):
        masks = mask_views(path, Image.new("L", (20, 15), value), (32, 32), (8, 8), 5, seed=0)
        assert set(masks.ravel()) == {value / 255}


def test_the_brightest_value_is_that_of_what_is_trained_on() -> None:
    mask = Image.new("L", (100, 40), 0)
    mask.paste(200, (0, 0, 29, 40))
    assert brightest(mask, (64, 64)) == 0 and brightest(mask, (64, 32)) == 200
    mask.putpixel((30, 0), 7)
    assert brightest(mask, (64, 64)) == 7
