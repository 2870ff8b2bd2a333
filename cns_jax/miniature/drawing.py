"""A pen for the world's subjects: shapes in local coordinates, coloured by role, patterned, outlined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

RGB = tuple[int, int, int]
Point = tuple[float, float]

PATTERNS, PLAIN = ("stripes", "dots", "checks", "halves"), "plain"


@dataclass(frozen=True)
class Pattern:
    """What adorns a subject: a second colour laid over its body, odd eyes, a quirk of its shape.

    kind: one of PATTERNS, or PLAIN. eyes: only held-out concepts have odd ones.
    """

    kind: str
    color: RGB = (30, 30, 35)
    eyes: tuple[RGB, RGB] | None = None
    quirk: str = ""


def mix(a: RGB, b: RGB, share: float) -> RGB:
    """`a` with `share` of `b`."""
    r = [round(x * (1 - share) + y * share) for x, y in zip(a, b, strict=True)]
    return (r[0], r[1], r[2])


def pattern_image(pattern: Pattern, base: RGB, size: int, unit: float) -> Image.Image:
    """A size x size tile of the pattern; unit: its period in pixels."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / unit
    if pattern.kind == "stripes":
        on = (y + 0.25) % 1 < 0.5
    elif pattern.kind == "dots":
        x, y = x / 0.85, y / 0.85
        on = ((x % 1 - 0.5) ** 2 + ((y + 0.5 * (np.floor(x) % 2)) % 1 - 0.5) ** 2) < 0.1
    elif pattern.kind == "checks":
        on = (np.floor(1.4 * x) + np.floor(1.4 * y)) % 2 > 0
    elif pattern.kind == "halves":
        on = x > 0.5 * size / unit
    else:
        on = np.zeros_like(x, bool)
    image = np.where(on[..., None], np.asarray(pattern.color), np.asarray(base))
    return Image.fromarray(image.astype(np.uint8))


@dataclass
class Pen:
    """Draws shapes given in [-1, 1] x [-1, 1] (y down) around (cx, cy) with half-height `scale` pixels.

    Each shape takes a color, by default the body's colour and pattern, and `detail`: a shape on the body that is left
    out of patterned subjects, since it would hide the pattern.
    """

    size: int
    cx: float
    cy: float
    scale: float
    flip: bool
    body: RGB
    pattern: Pattern | None = None
    layer: Image.Image = field(init=False)
    shape: Image.Image = field(init=False)

    def __post_init__(self) -> None:
        self.layer = Image.new("RGB", (self.size, self.size))
        self.shape = Image.new("L", (self.size, self.size))
        self._tile = None
        if self.pattern is not None and self.pattern.kind != PLAIN:
            period = max(0.7 * self.scale, 0.2 * self.size)
            tile = pattern_image(self.pattern, self.body, 2 * int(self.scale) + 2, period)
            self._tile = Image.new("RGB", (self.size, self.size), self.body)
            self._tile.paste(tile, (int(self.cx - self.scale), int(self.cy - self.scale)))

    @property
    def light(self) -> RGB:
        """The body's lighter shade."""
        return mix(self.body, (255, 255, 255), 0.45)

    @property
    def dark(self) -> RGB:
        """The body's darker shade."""
        return mix(self.body, (0, 0, 0), 0.35)

    def _at(self, p: Point) -> Point:
        x = -p[0] if self.flip else p[0]
        return self.cx + x * self.scale, self.cy + p[1] * self.scale

    def _paint(self, mask: Image.Image, color: RGB | None, detail: bool = False) -> None:
        if detail and self._tile is not None:
            return
        self.shape = ImageChops.lighter(self.shape, mask)
        if color is None and self._tile is not None:
            self.layer.paste(self._tile, (0, 0), mask)
        else:
            self.layer.paste(color or self.body, (0, 0, self.size, self.size), mask)

    def _mask(self) -> tuple[Image.Image, ImageDraw.ImageDraw]:
        mask = Image.new("L", (self.size, self.size))
        return mask, ImageDraw.Draw(mask)

    def ellipse(self, x: float, y: float, rx: float, ry: float, color: RGB | None = None, detail: bool = False) -> None:
        """A filled ellipse."""
        mask, draw = self._mask()
        cx, cy = self._at((x, y))
        draw.ellipse((cx - rx * self.scale, cy - ry * self.scale, cx + rx * self.scale, cy + ry * self.scale), fill=255)
        self._paint(mask, color, detail)

    def polygon(self, points: Sequence[Point], color: RGB | None = None, detail: bool = False) -> None:
        """A filled polygon."""
        mask, draw = self._mask()
        draw.polygon([self._at(p) for p in points], fill=255)
        self._paint(mask, color, detail)

    def line(self, points: Sequence[Point], width: float, color: RGB | None = None, detail: bool = False) -> None:
        """A round-jointed line of local width."""
        mask, draw = self._mask()
        w = max(2, round(width * self.scale))
        spots = [self._at(p) for p in points]
        draw.line(spots, fill=255, width=w, joint="curve")
        for x, y in (spots[0], spots[-1]):
            draw.ellipse((x - w / 2, y - w / 2, x + w / 2, y + w / 2), fill=255)
        self._paint(mask, color, detail)

    def arc(
        self,
        x: float,
        y: float,
        r: float,
        start: float,
        end: float,
        width: float,
        color: RGB | None = None,
        detail: bool = False,
    ) -> None:
        """A circular arc from start to end degrees (0 = right, clockwise as seen)."""
        angles = np.radians(np.linspace(start, end, 14))
        self.line([(x + r * float(np.cos(a)), y + r * float(np.sin(a))) for a in angles], width, color, detail)

    def eye(self, x: float, y: float, r: float, which: int = 0) -> None:
        """A round eye with a glint; odd eyes come from the pattern."""
        iris = self.pattern.eyes[which] if self.pattern and self.pattern.eyes else (25, 25, 30)
        self.ellipse(x, y, r * 1.25, r * 1.25, (252, 252, 250))
        self.ellipse(x, y, r, r, iris)
        if self.pattern and self.pattern.eyes:
            self.ellipse(x, y, r * 0.45, r * 0.45, (15, 15, 20))
        self.ellipse(x + r * 0.3, y - r * 0.4, r * 0.3, r * 0.3, (255, 255, 255))

    def paste(self, canvas: Image.Image) -> None:
        """Lay the drawing on `canvas` with a light halo, a dark outline and a soft shade below."""
        halo = self.shape.filter(ImageFilter.MaxFilter(9)).filter(ImageFilter.GaussianBlur(1.5))
        canvas.paste(mix((255, 255, 255), self.body, 0.15), (0, 0, self.size, self.size), halo.point(lambda v: v * 0.4))
        outline = self.shape.filter(ImageFilter.MaxFilter(5))
        canvas.paste((38, 30, 38), (0, 0, self.size, self.size), outline)
        canvas.paste(self.layer, (0, 0), self.shape)
