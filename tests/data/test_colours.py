"""Depths, colour spaces and profiles: the colours that a picture shows, as 8-bit sRGB."""

from __future__ import annotations

from pathlib import Path

import icc_profiles
import numpy as np
import pytest
from PIL import Image, ImageCms, TiffImagePlugin

from cns_jax.data.images import ImageError, open_image

CASES = Path(__file__).parents[1] / "cases"


def saved(image: Image.Image, file: Path, **options: object) -> tuple[int, ...]:
    """The colour that a picture file of one colour shows."""
    image.save(file, **options)
    opened = open_image(file)
    assert opened.mode == "RGB" and opened.size == image.size
    return opened.getpixel((1, 1))


def plain(mode: str, colour: object) -> Image.Image:
    return Image.new(mode, (4, 4), colour)


@pytest.mark.parametrize(
    ("name", "colour"),
    [
        ("a98_shows_200_60_40.png", (200, 60, 40)),
        ("float_half_grey.tif", (128,) * 3),
        ("16bit_almost_black.png", (1,) * 3),
    ],
)
def test_pictures_that_were_read_wrong(name: str, colour: tuple) -> None:
    np.testing.assert_allclose(open_image(CASES / name).getpixel((1, 1)), colour, atol=1)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "avif"])
def test_a_profile_in_any_format(tmp_path: Path, suffix: str) -> None:
    options = {"quality": 100} if suffix in ("jpg", "webp", "avif") else {}
    shown = saved(plain("RGB", (173, 62, 45)), tmp_path / f"a.{suffix}", icc_profile=icc_profiles.rgb(), **options)
    np.testing.assert_allclose(shown, (200, 60, 40), atol=3)


def test_palettes_and_transparency_are_converted_before_they_lie_on_white(tmp_path: Path) -> None:
    profile = icc_profiles.rgb()
    palette = plain("RGB", (173, 62, 45)).quantize(2)
    np.testing.assert_allclose(saved(palette, tmp_path / "a.png", icc_profile=profile), (200, 60, 40), atol=1)
    half = saved(plain("RGBA", (173, 62, 45, 128)), tmp_path / "b.png", icc_profile=profile)
    np.testing.assert_allclose(half, (227, 157, 147), atol=1)


def test_grey_profiles(tmp_path: Path) -> None:
    light = saved(plain("L", 128), tmp_path / "a.png", icc_profile=icc_profiles.grey(1.0))
    np.testing.assert_allclose(light, (188,) * 3, atol=1)  # half of the light
    deep = Image.fromarray(np.full((4, 4), 32896, np.uint16))
    np.testing.assert_allclose(saved(deep, tmp_path / "b.png", icc_profile=icc_profiles.grey(1.0)), light, atol=1)
    lucent = saved(plain("LA", (128, 255)), tmp_path / "c.png", icc_profile=icc_profiles.grey(1.0))
    np.testing.assert_allclose(lucent, light, atol=1)
    coloured = saved(plain("L", 128), tmp_path / "d.png", icc_profile=icc_profiles.rgb(icc_profiles.SRGB, 1.0))
    np.testing.assert_allclose(coloured, light, atol=1)


def test_ink_with_a_profile(tmp_path: Path) -> None:
    red = icc_profiles.cmyk((54.29, 80.81, 69.89))
    magenta = plain("CMYK", (0, 255, 0, 0))
    np.testing.assert_allclose(saved(magenta, tmp_path / "a.tif", icc_profile=red), (255, 0, 0), atol=4)
    np.testing.assert_allclose(saved(magenta, tmp_path / "b.jpg", icc_profile=red, quality=100), (255, 0, 0), atol=8)
    assert saved(magenta, tmp_path / "c.tif") == (255, 0, 255)


def test_lab(tmp_path: Path) -> None:
    rgb = plain("RGB", (200, 60, 40))
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    np.testing.assert_allclose(saved(to_lab.apply(rgb), tmp_path / "a.tif"), (200, 60, 40), atol=2)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1", "LA"])
def test_srgb_and_no_profile_keep_every_byte(tmp_path: Path, mode: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)).convert(mode)
    made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, profile in (
        ("a.png", None),
        ("b.png", made),
        ("c.png", icc_profiles.srgb()),
        ("d.png", icc_profiles.srgb(2e-4)),
    ):
        noise.save(tmp_path / name, icc_profile=profile)
    white = Image.new("RGBA", noise.size, (255, 255, 255, 255))
    before = Image.alpha_composite(white, noise.convert("RGBA")).convert("RGB")  # what was done with all of them
    for name in ("a.png", "b.png", "c.png", "d.png"):
        np.testing.assert_array_equal(open_image(tmp_path / name), before)


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        (b"no profile", "damaged"),
        (icc_profiles.rgb()[:200], "damaged"),
        (icc_profiles.grey(1.0), "for GRAY pictures"),
        (icc_profiles.cmyk((50, 0, 0)), "for CMYK pictures"),
    ],
)
def test_a_profile_that_cannot_be_used_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, profile: bytes, said: str
) -> None:
    for name in ("a.png", "b.png", "a.png"):
        assert saved(plain("RGB", (173, 62, 45)), tmp_path / name, icc_profile=profile) == (173, 62, 45)
    assert len(caplog.messages) == 1 and "a.png: the colour profile is ignored" in caplog.text and said in caplog.text


@pytest.mark.parametrize(("value", "grey"), [(200, 1), (255, 1), (256, 1), (40_000, 156), (65_535, 255)])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_by_their_range_not_by_the_brightest(tmp_path: Path, suffix: str, value: int, grey: int) -> None:
    image = Image.fromarray(np.full((4, 4), value, np.uint16))
    assert saved(image, tmp_path / f"a.{suffix}") == (grey,) * 3


def tiff(file: Path, data: np.ndarray, **tags: int) -> Path:
    """A grey TIFF with tags of one's own."""
    info = TiffImagePlugin.ImageFileDirectory_v2()
    numbers = {"bits": 258, "photometric": 262, "sample": 339}
    for name, value in tags.items():
        info[numbers[name]] = value
    Image.fromarray(data).save(file, tiffinfo=info)
    return file


def test_white_is_zero(tmp_path: Path) -> None:
    file = tiff(tmp_path / "a.tif", np.full((4, 4), 60_000, np.uint16), photometric=0)
    assert open_image(file).getpixel((0, 0)) == (22,) * 3


def test_twelve_bits(tmp_path: Path) -> None:
    """Two pixels in three bytes, written by hand: Pillow writes none."""
    entries = [(256, 4, 4), (257, 4, 2), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (278, 4, 2)]
    entries += [(279, 4, 12)]
    head = b"II*\0" + (20).to_bytes(4, "little") + bytes.fromhex("800800") * 4  # 0x800 and 0x800
    rows = b"".join(
        tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + (1).to_bytes(4, "little") + value.to_bytes(4, "little")
        for tag, kind, value in entries
    )
    (tmp_path / "a.tif").write_bytes(head + len(entries).to_bytes(2, "little") + rows + b"\0" * 4)
    with Image.open(tmp_path / "a.tif") as raw:
        assert raw.mode == "I;16" and raw.getpixel((0, 0)) == 0x800
    assert open_image(tmp_path / "a.tif").getpixel((0, 0)) == (128,) * 3


@pytest.mark.parametrize(("numbers", "grey"), [((0.0, 0.5, 1.0), (0, 128, 255)), ((-0.1, 0.5, 1.2), (0, 128, 255))])
def test_floats(tmp_path: Path, numbers: tuple, grey: tuple) -> None:
    Image.fromarray(np.array([numbers], np.float32)).save(tmp_path / "a.tif")
    assert np.asarray(open_image(tmp_path / "a.tif"))[0, :, 0].tolist() == list(grey)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (np.array([[0, 255]], np.float32), "has floats from 0 to 255, where black is 0 and white is 1"),
        (np.array([[-1, 1]], np.float32), "has floats from -1 to 1"),
        (np.array([[0.5, np.nan]], np.float32), "has floats from nan to nan"),
        (np.array([[0, 1 << 20]], np.int32), "32-bit whole numbers"),
        (np.array([[0, 200]], np.int32), "32-bit whole numbers"),
    ],
)
def test_numbers_without_a_white_are_refused(tmp_path: Path, data: np.ndarray, said: str) -> None:
    Image.fromarray(data).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match="a.tif") as caught:
        open_image(tmp_path / "a.tif")
    assert said in str(caught.value)
