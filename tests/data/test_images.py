"""Whatever a user's folder holds becomes an upright RGB square, or one clear error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cns_jax.data.images import ImageError, load_image, open_image
from cns_jax.data.views import views

RED, BLUE = (220, 30, 30), (30, 30, 220)


def two_halves(size=(40, 20)) -> Image.Image:
    """Left red, right blue."""
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2, 0, size[0], size[1]))
    return image


def colors(image: Image.Image) -> tuple:
    w, h = image.size
    return image.getpixel((1, 1)), image.getpixel((w - 2, h - 2))


@pytest.mark.parametrize(("orientation", "first"), [(1, RED), (3, BLUE), (6, RED), (8, BLUE)])
def test_exif_orientation(tmp_path: Path, orientation: int, first: tuple) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    two_halves().save(tmp_path / "a.png", exif=exif)
    upright = open_image(tmp_path / "a.png")
    assert upright.size == ((40, 20) if orientation < 5 else (20, 40))
    assert colors(upright)[0] == first


def test_transparency_lies_on_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (8, 8), (10, 10, 10, 0))
    image.putpixel((2, 2), (*RED, 255))
    image.save(tmp_path / "a.png")
    opened = open_image(tmp_path / "a.png")
    assert opened.mode == "RGB" and opened.getpixel((0, 0)) == (255, 255, 255) and opened.getpixel((2, 2)) == RED


@pytest.mark.parametrize("mode", ["P", "L", "1", "LA", "CMYK", "I;16"])
def test_modes(tmp_path: Path, mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.full((8, 8), 40_000, np.uint16))
    else:
        image = two_halves((8, 8))
        image = image.quantize(4) if mode == "P" else image.convert(mode)
    file = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    image.save(file)
    opened = open_image(file)
    assert opened.mode == "RGB"
    if mode == "I;16":
        assert opened.getpixel((0, 0)) == (156, 156, 156)
    if mode == "P":
        assert colors(opened) == (RED, BLUE)


def test_palette_with_transparent_color(tmp_path: Path) -> None:
    image = two_halves((8, 8)).quantize(4)
    image.save(tmp_path / "a.png", transparency=image.getpixel((0, 0)))
    assert colors(open_image(tmp_path / "a.png")) == ((255, 255, 255), BLUE)


def test_square_is_the_centre(tmp_path: Path) -> None:
    image = Image.new("RGB", (300, 100), RED)
    image.paste(BLUE, (100, 0, 200, 100))
    image.save(tmp_path / "a.png")
    square = load_image(tmp_path / "a.png", 16)
    assert square.shape == (16, 16, 3) and square.dtype == np.float32
    np.testing.assert_allclose(square[8, 2:-2], np.broadcast_to(np.array(BLUE) / 127.5 - 1, (12, 3)), atol=0.02)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty (0 bytes)"),
        (b"this is text", "no picture that Pillow can read"),
        (None, "corrupt or cut short"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, content: bytes | None, said: str) -> None:
    file = tmp_path / "bad.png"
    if content is None:
        noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
        Image.fromarray(noise).save(file)
        content = file.read_bytes()[:2000]
    file.write_bytes(content)
    with pytest.raises(ImageError) as caught:
        open_image(file)
    assert str(file) in str(caught.value) and said in str(caught.value)


def test_views_are_fixed_by_content_and_seed(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)
    for name in ("a.png", "b.png"):
        Image.fromarray(noise).save(tmp_path / name)
    first = views(tmp_path / "a.png", (16, 16), 4, seed=0)
    assert first.shape == (4, 16, 16, 3) and np.abs(first).max() <= 1
    np.testing.assert_array_equal(first, views(tmp_path / "b.png", (16, 16), 4, seed=0))
    np.testing.assert_array_equal(first[:2], views(tmp_path / "a.png", (16, 16), 2, seed=0))
    np.testing.assert_array_equal(first[0], views(tmp_path / "a.png", (16, 16), 1, seed=5)[0])
    assert np.abs(first[1] - views(tmp_path / "a.png", (16, 16), 2, seed=1)[1]).max() > 0.1
    assert np.abs(first[1] - first[2]).max() > 0.1
