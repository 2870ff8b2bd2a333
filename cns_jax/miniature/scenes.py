"""The world's scenes: each paints a whole background; the last three appear only in held-out concepts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from cns_jax.miniature.drawing import RGB, mix

Painter = Callable[[ImageDraw.ImageDraw, np.random.Generator, int], None]


def jitter(rng: np.random.Generator, color: RGB, amount: int = 10) -> RGB:
    """A colour moved by up to `amount` a channel."""
    r = np.clip(np.asarray(color) + rng.integers(-amount, amount + 1, 3), 0, 255)
    return (int(r[0]), int(r[1]), int(r[2]))


def _sky(draw: ImageDraw.ImageDraw, top: RGB, bottom: RGB, s: int, until: float) -> None:
    rows = int(s * until)
    for y in range(0, rows, 2):
        draw.rectangle((0, y, s, y + 1), fill=mix(top, bottom, y / max(rows, 1)))


def _sun(draw: ImageDraw.ImageDraw, rng: np.random.Generator, s: int, color: RGB, low: float = 0.1) -> None:
    x, y, r = rng.uniform(0.1, 0.9) * s, rng.uniform(low, low + 0.12) * s, rng.uniform(0.06, 0.09) * s
    draw.ellipse((x - r * 1.4, y - r * 1.4, x + r * 1.4, y + r * 1.4), fill=mix(color, (255, 255, 255), 0.6))
    draw.ellipse((x - r, y - r, x + r, y + r), fill=color)


def beach(draw: ImageDraw.ImageDraw, rng: np.random.Generator, s: int) -> None:
    """Blue sky, turquoise sea, yellow sand with shells."""
    horizon, shore = rng.uniform(0.36, 0.44), rng.uniform(0.6, 0.68)
    _sky(draw, jitter(rng, (110, 190, 245)), (205, 235, 252), s, horizon)
    _sun(draw, rng, s, (255, 225, 90))
    draw.rectangle((0, int(horizon * s), s, s), fill=jitter(rng, (40, 165, 190)))
    for _ in range(5):
        x, y = rng.uniform(0, 1) * s, rng.uniform(horizon + 0.04, shore - 0.03) * s
        draw.line((x, y, x + 0.12 * s, y), fill=(190, 235, 240), width=2)
    wave = [(x, (shore + 0.02 * np.sin(x / s * 9 + rng.uniform(0, 0.3))) * s) for x in range(0, s + 8, 8)]
    draw.polygon([*wave, (s, s), (0, s)], fill=jitter(rng, (245, 222, 160)))
    draw.line(wave, fill=(250, 250, 245), width=4)
    for _ in range(6):
        x, y = rng.uniform(0, 1) * s, rng.uniform(shore + 0.08, 0.98) * s
        draw.ellipse((x, y, x + 4, y + 3), fill=(225, 185, 130))


def forest(draw: ImageDraw.ImageDraw, rng: np.random.Generator, s: int) -> None:
    """Dark green depth, brown trunks, round crowns, grass."""
    draw.rectangle((0, 0, s, s), fill=jitter(rng, (58, 110, 70)))
    for layer, color in ((0.0, (44, 92, 58)), (1.0, (34, 76, 48))):
        for i in range(5):
            x = (i + 0.5 * layer + rng.uniform(-0.2, 0.2)) / 4.5 * s
            w = s * rng.uniform(0.03, 0.045)
            draw.rectangle((x - w, 0.1 * s, x + w, 0.74 * s), fill=jitter(rng, (98, 70, 48)))
            r, y = s * rng.uniform(0.13, 0.18), s * rng.uniform(0.06, 0.2)
            draw.ellipse((x - r, y - r, x + r, y + r), fill=jitter(rng, color, 6))
    ground = rng.uniform(0.66, 0.74)
    draw.rectangle((0, int(ground * s), s, s), fill=jitter(rng, (92, 150, 66)))
    for _ in range(16):
        x, y = rng.uniform(0, 1) * s, rng.uniform(ground, 1.0) * s
        draw.line((x, y, x + 2, y - 7), fill=(62, 118, 48), width=2)


def snow(draw: ImageDraw.ImageDraw, rng: np.random.Generator, s: int) -> None:
    """Pale sky, white hills, white-tipped pines, falling flakes."""
    ground = rng.uniform(0.55, 0.64)
    _sky(draw, jitter(rng, (158, 182, 212)), (214, 226, 240), s, 1.0)
    for _ in range(3):
        x, h = rng.uniform(0.05, 0.95) * s, s * rng.uniform(0.26, 0.4)
        base = ground * s + 4
        draw.polygon([(x - h * 0.36, base), (x + h * 0.36, base), (x, base - h)], fill=jitter(rng, (70, 112, 112)))
        draw.polygon(
            [(x - h * 0.16, base - h * 0.56), (x + h * 0.16, base - h * 0.56), (x, base - h)], fill=(248, 250, 255)
        )
    hill = [(x, (ground + 0.04 * np.sin(x / s * 5 + 1)) * s) for x in range(0, s + 8, 8)]
    draw.polygon([*hill, (s, s), (0, s)], fill=jitter(rng, (240, 246, 253), 5))
    for _ in range(26):
        x, y, r = rng.uniform(0, 1) * s, rng.uniform(0, 1) * s, rng.uniform(1.0, 2.2)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(255, 255, 255))


def city(draw: ImageDraw.ImageDraw, rng: np.random.Generator, s: int) -> None:
    """Grey-blue evening, towers with lit windows, asphalt with a dashed line."""
    _sky(draw, jitter(rng, (120, 110, 160)), jitter(rng, (236, 170, 160)), s, 0.75)
    x = -rng.uniform(0, 0.08) * s
    while x < s:
        w, top = s * rng.uniform(0.14, 0.22), s * rng.uniform(0.06, 0.36)
        draw.rectangle((x, top, x + w, 0.74 * s), fill=jitter(rng, (92, 96, 120), 14))
        for wy in np.arange(top + 6, 0.7 * s, 11):
            for wx in np.arange(x + 4, x + w - 6, 9):
                if rng.random() < 0.6:
                    draw.rectangle((wx, wy, wx + 4, wy + 5), fill=(252, 222, 130))
        x += w + 2
    draw.rectangle((0, int(0.72 * s), s, s), fill=jitter(rng, (84, 86, 94)))
    draw.rectangle((0, int(0.72 * s), s, int(0.75 * s)), fill=(160, 160, 165))
    for dash in np.arange(rng.uniform(-0.1, 0.1), 1.0, 0.24):
        draw.rectangle((dash * s, 0.88 * s, (dash + 0.12) * s, 0.91 * s), fill=(236, 228, 190))


def desert(draw: ImageDraw.ImageDraw, rng: np.random.Generator, s: int) -> None:
    """Yellow sky, big sun, orange dunes, cacti."""
    _sky(draw, jitter(rng, (250, 200, 120)), (253, 234, 180), s, 0.7)
    _sun(draw, rng, s, (255, 250, 225), 0.14)
    phase = rng.uniform(0, 6)
    for level, color in ((0.5, (226, 150, 84)), (0.66, (206, 122, 62))):
        dune = [(x, (level + 0.05 * np.sin(x / s * 6 + phase + 9 * level)) * s) for x in range(0, s + 8, 8)]
        draw.polygon([*dune, (s, s), (0, s)], fill=jitter(rng, color, 8))
    for x in (rng.uniform(0.04, 0.16) * s, rng.uniform(0.84, 0.96) * s):
        top, w, c = rng.uniform(0.3, 0.38) * s, 0.03 * s, (66, 130, 72)
        draw.rounded_rectangle((x - w, top, x + w, 0.68 * s), w, fill=c)
        draw.rounded_rectangle((x - 3 * w, top + 0.1 * s, x, top + 0.14 * s), 2, fill=c)
        draw.rounded_rectangle((x - 3 * w, top + 0.03 * s, x - 2 * w, top + 0.14 * s), 2, fill=c)


def space(draw: ImageDraw.ImageDraw, rng: np.random.Generator, s: int) -> None:
    """Black sky with stars, a ringed planet, grey lunar ground with craters."""
    draw.rectangle((0, 0, s, s), fill=jitter(rng, (18, 16, 46), 6))
    for _ in range(34):
        x, y, r = rng.uniform(0, 1) * s, rng.uniform(0, 0.8) * s, rng.uniform(0.6, 1.7)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(250, 248, 225))
    x, y, r = rng.choice([rng.uniform(0.1, 0.25), rng.uniform(0.75, 0.9)]) * s, rng.uniform(0.12, 0.22) * s, 0.09 * s
    draw.ellipse((x - r, y - r, x + r, y + r), fill=jitter(rng, (226, 150, 110), 20))
    draw.line((x - 1.8 * r, y + 0.5 * r, x + 1.8 * r, y - 0.5 * r), fill=(240, 220, 180), width=4)
    ground = rng.uniform(0.72, 0.78)
    draw.ellipse((-0.4 * s, ground * s, 1.4 * s, 1.9 * s), fill=jitter(rng, (140, 140, 152), 8))
    for _ in range(5):
        x, y, w = rng.uniform(0, 0.95) * s, rng.uniform(ground + 0.06, 0.95) * s, rng.uniform(0.05, 0.11) * s
        draw.ellipse((x, y, x + w, y + 0.4 * w), fill=(112, 112, 126))


def undersea(draw: ImageDraw.ImageDraw, rng: np.random.Generator, s: int) -> None:
    """Held out: deep turquoise water, light rays, seaweed, bubbles, coral."""
    _sky(draw, jitter(rng, (40, 175, 215)), (8, 62, 130), s, 1.0)
    for _ in range(3):
        x = rng.uniform(0, 1) * s
        draw.polygon([(x, 0), (x + 0.1 * s, 0), (x - 0.1 * s, 0.7 * s), (x - 0.28 * s, 0.7 * s)], fill=(70, 165, 210))
    draw.rectangle((0, int(0.84 * s), s, s), fill=(196, 178, 120))
    for _ in range(6):
        x, h = rng.uniform(0, 1) * s, rng.uniform(0.2, 0.42) * s
        weed = [(x + 5 * np.sin(t * 5), 0.9 * s - t * h) for t in np.linspace(0, 1, 8)]
        draw.line(weed, fill=jitter(rng, (30, 140, 70)), width=6)
    for x in (rng.uniform(0.05, 0.3) * s, rng.uniform(0.7, 0.95) * s):
        draw.ellipse((x - 12, 0.78 * s, x + 12, 0.95 * s), fill=(242, 92, 120))
    for _ in range(14):
        x, y, r = rng.uniform(0, 1) * s, rng.uniform(0, 0.8) * s, rng.uniform(2, 4)
        draw.ellipse((x - r, y - r, x + r, y + r), outline=(220, 245, 255), width=1)


def candyland(draw: ImageDraw.ImageDraw, rng: np.random.Generator, s: int) -> None:
    """Held out: pink sky, lollipops, mint ground with sprinkles."""
    _sky(draw, jitter(rng, (255, 170, 210)), (255, 226, 238), s, 0.75)
    for _ in range(4):
        x, y, r = rng.uniform(0.02, 0.98) * s, rng.uniform(0.16, 0.46) * s, rng.uniform(0.08, 0.12) * s
        draw.line((x, y, x, 0.78 * s), fill=(252, 250, 250), width=5)
        color = [(240, 70, 100), (110, 90, 220), (40, 190, 200)][rng.integers(3)]
        for k, c in enumerate((color, (255, 255, 255), color, (255, 255, 255))):
            q = r * (1 - k / 4)
            draw.ellipse((x - q, y - q, x + q, y + q), fill=c)
    draw.rectangle((0, int(0.72 * s), s, s), fill=jitter(rng, (150, 236, 205)))
    for _ in range(24):
        x, y = rng.uniform(0, 1) * s, rng.uniform(0.74, 1) * s
        color = [(240, 70, 100), (250, 200, 60), (110, 90, 220)][rng.integers(3)]
        draw.line((x, y, x + 5, y + 2), fill=color, width=3)


def volcano(draw: ImageDraw.ImageDraw, rng: np.random.Generator, s: int) -> None:
    """Held out: dark red sky, a smoking cone with lava, glowing cracks in black rock."""
    _sky(draw, jitter(rng, (60, 16, 26)), (190, 50, 30), s, 0.75)
    x = rng.uniform(0.35, 0.65) * s
    draw.polygon(
        [(x - 0.48 * s, 0.75 * s), (x - 0.1 * s, 0.2 * s), (x + 0.1 * s, 0.2 * s), (x + 0.48 * s, 0.75 * s)],
        fill=(52, 36, 40),
    )
    draw.polygon(
        [(x - 0.1 * s, 0.2 * s), (x + 0.1 * s, 0.2 * s), (x + 0.05 * s, 0.5 * s), (x - 0.02 * s, 0.36 * s)],
        fill=(255, 130, 30),
    )
    for i in range(4):
        r = (0.06 + 0.02 * i) * s
        cx, cy = x + rng.uniform(-0.1, 0.1) * s, (0.14 - 0.05 * i) * s
        draw.ellipse((cx - r, cy - r, cx + r, cy + r), fill=jitter(rng, (110, 90, 96), 12))
    draw.rectangle((0, int(0.74 * s), s, s), fill=(44, 32, 36))
    for _ in range(5):
        a, y = rng.uniform(0, 0.9) * s, rng.uniform(0.78, 0.97) * s
        draw.line((a, y, a + 0.08 * s, y + 4, a + 0.16 * s, y - 3), fill=(255, 110, 20), width=4)


SCENES: dict[str, Painter] = {
    "beach": beach,
    "forest": forest,
    "snow": snow,
    "city": city,
    "desert": desert,
    "space": space,
}
HELD_OUT_SCENES: dict[str, Painter] = {"undersea": undersea, "candyland": candyland, "volcano": volcano}


def paint(name: str, rng: np.random.Generator, size: int) -> Image.Image:
    """A background of `size` pixels a side."""
    image = Image.new("RGB", (size, size))
    ({**SCENES, **HELD_OUT_SCENES})[name](ImageDraw.Draw(image), rng, size)
    return image
