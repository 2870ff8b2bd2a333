"""The world's animals and objects: each drawn by one function with a pen."""

from __future__ import annotations

from collections.abc import Callable

from cns_jax.miniature.drawing import RGB, Pen

DARK: RGB = (40, 34, 40)
BEAK: RGB = (245, 160, 40)
METAL: RGB = (190, 195, 205)

QUIRKS = {
    "cat": ("crooked ear", "collar"),
    "dog": ("collar", "hat"),
    "bird": ("crest",),
    "rabbit": ("crooked ear",),
    "mug": ("star",),
}
"""What may set one of a kind apart in shape."""


def _quirk(pen: Pen, name: str) -> bool:
    return pen.pattern is not None and name in pen.pattern.quirk


def cat(pen: Pen) -> None:
    """Sitting, facing us: pointed ears, curled tail, whiskers."""
    pen.arc(0.52, 0.45, 0.36, 100, -60, 0.15)
    pen.ellipse(0.0, 0.5, 0.48, 0.5)
    pen.ellipse(0.0, 0.62, 0.24, 0.34, pen.light, detail=True)
    bend = (-0.78, -0.62) if _quirk(pen, "crooked ear") else (-0.52, -1.0)
    pen.polygon([(-0.56, -0.3), bend, (-0.1, -0.66)])
    pen.polygon([(0.56, -0.3), (0.52, -1.0), (0.1, -0.66)])
    pen.ellipse(0, -0.28, 0.58, 0.46)
    pen.polygon([(0.44, -0.56), (0.46, -0.84), (0.25, -0.66)], (250, 170, 180))
    _cat_face(pen)
    if _quirk(pen, "collar"):
        pen.line([(-0.36, 0.14), (0, 0.22), (0.36, 0.14)], 0.2, (220, 40, 50))
        pen.ellipse(0, 0.34, 0.14, 0.14, (250, 210, 60))


def _cat_face(pen: Pen) -> None:
    pen.eye(-0.24, -0.32, 0.115, 0)
    pen.eye(0.24, -0.32, 0.115, 1)
    pen.polygon([(-0.07, -0.14), (0.07, -0.14), (0, -0.06)], (240, 120, 140))
    pen.line([(-0.13, 0.02), (0, -0.04), (0.13, 0.02)], 0.04, DARK)
    for side in (-1, 1):
        pen.line([(side * 0.3, -0.1), (side * 0.78, -0.18)], 0.025, DARK)
        pen.line([(side * 0.3, -0.03), (side * 0.78, 0.02)], 0.025, DARK)


def dog(pen: Pen) -> None:
    """Standing, seen from the side: long body, raised tail, hanging ear, snout."""
    pen.line([(-0.72, 0.0), (-1.0, -0.55)], 0.15)
    for x in (-0.62, -0.34, 0.22, 0.46):
        pen.line([(x, 0.3), (x, 0.86)], 0.2, pen.dark if x in (-0.34, 0.22) else None)
    pen.ellipse(-0.08, 0.15, 0.74, 0.36)
    pen.line([(0.45, 0.05), (0.6, -0.45)], 0.34)
    pen.ellipse(0.62, -0.52, 0.36, 0.33)
    pen.ellipse(0.9, -0.4, 0.26, 0.17, pen.light)
    pen.ellipse(1.08, -0.46, 0.09, 0.08, DARK)
    pen.eye(0.7, -0.62, 0.085)
    ear = [(0.5, -0.82), (0.2, -0.85), (0.24, -0.2), (0.46, -0.24)]
    pen.polygon(ear, pen.dark)
    pen.line([(0.82, -0.27), (1.0, -0.28)], 0.04, DARK)
    if _quirk(pen, "collar"):
        pen.line([(0.34, -0.14), (0.72, -0.06)], 0.22, (225, 35, 50))
    if _quirk(pen, "hat"):
        pen.polygon([(0.28, -0.78), (0.96, -0.8), (0.62, -1.4)], (225, 35, 50))


def bird(pen: Pen) -> None:
    """Perched, seen from the side: round body, beak, wing, tail feathers, thin legs."""
    pen.polygon([(-0.45, 0.1), (-1.1, -0.12), (-1.02, 0.4)], pen.dark)
    for x in (-0.08, 0.16):
        pen.line([(x, 0.5), (x, 0.92), (x + 0.18, 0.92)], 0.07, BEAK)
    pen.ellipse(0.0, 0.12, 0.58, 0.5)
    pen.ellipse(0.42, -0.4, 0.38, 0.37)
    pen.ellipse(0.18, 0.3, 0.32, 0.27, pen.light, detail=True)
    pen.polygon([(0.76, -0.5), (1.15, -0.34), (0.76, -0.22)], BEAK)
    pen.eye(0.5, -0.48, 0.1)
    pen.polygon([(0.16, -0.1), (-0.6, 0.02), (-0.4, 0.36), (0.0, 0.3)], pen.dark, detail=True)
    if _quirk(pen, "crest"):
        for x in (0.18, 0.36, 0.54):
            pen.polygon([(x - 0.11, -0.66), (x + 0.13, -0.7), (x - 0.08, -1.22)], (235, 40, 60))


def fish(pen: Pen) -> None:
    """Seen from the side: oval body, forked tail, fins."""
    pen.polygon([(-0.5, 0.0), (-1.12, -0.5), (-0.94, 0.0), (-1.12, 0.5)], pen.dark)
    pen.polygon([(-0.3, -0.4), (0.1, -0.86), (0.42, -0.36)], pen.dark)
    pen.polygon([(-0.2, 0.4), (0.05, 0.78), (0.3, 0.38)], pen.dark)
    pen.ellipse(0.08, 0, 0.8, 0.5)
    pen.ellipse(0.16, 0.22, 0.52, 0.2, pen.light, detail=True)
    pen.arc(0.42, 0, 0.42, 130, 230, 0.05, pen.dark, detail=True)
    pen.polygon([(0.02, 0.02), (-0.28, 0.22), (-0.02, 0.26)], pen.dark, detail=True)
    pen.eye(0.56, -0.14, 0.12)
    pen.line([(0.78, 0.16), (0.62, 0.2)], 0.05, DARK)


def rabbit(pen: Pen) -> None:
    """Sitting, facing us: two very long ears, round cheeks, white belly."""
    pen.ellipse(-0.23, -0.72, 0.15, 0.5)
    if _quirk(pen, "crooked ear"):
        pen.ellipse(0.2, -0.5, 0.15, 0.3)
        pen.line([(0.26, -0.68), (0.72, -0.52)], 0.24)
    else:
        pen.ellipse(0.23, -0.72, 0.15, 0.5)
        pen.ellipse(0.23, -0.72, 0.07, 0.36, (250, 175, 185))
    pen.ellipse(-0.23, -0.72, 0.07, 0.36, (250, 175, 185))
    pen.ellipse(0.5, 0.68, 0.18, 0.18, (250, 250, 250))
    pen.ellipse(0, 0.55, 0.46, 0.44)
    pen.ellipse(0, 0.62, 0.26, 0.32, pen.light, detail=True)
    pen.ellipse(-0.3, 0.92, 0.22, 0.11)
    pen.ellipse(0.3, 0.92, 0.22, 0.11)
    pen.ellipse(0, -0.08, 0.44, 0.38)
    pen.eye(-0.18, -0.14, 0.1, 0)
    pen.eye(0.18, -0.14, 0.1, 1)
    pen.ellipse(0, 0.06, 0.065, 0.05, (240, 110, 135))
    pen.polygon([(-0.07, 0.13), (0.07, 0.13), (0.06, 0.27), (-0.06, 0.27)], (252, 252, 252))


def turtle(pen: Pen) -> None:
    """Walking, seen from the side: high shell with plates, small head, stubby legs."""
    skin = (150, 190, 110)
    for x in (-0.52, 0.4):
        pen.line([(x, 0.3), (x - 0.04, 0.66)], 0.3, skin)
    pen.polygon([(-0.7, 0.3), (-1.05, 0.48), (-0.7, 0.48)], skin)
    pen.line([(0.6, 0.24), (0.9, -0.02)], 0.26, skin)
    pen.ellipse(0.96, -0.12, 0.24, 0.22, skin)
    pen.eye(1.02, -0.18, 0.075)
    dome = [(0.86 * x, y) for x, y in _dome(0.36, 1.0)]
    pen.polygon(dome)
    for x in (-0.42, 0.02, 0.46):
        plate = [(x - 0.17, 0.1), (x, 0.24), (x + 0.17, 0.1), (x + 0.11, -0.2), (x - 0.11, -0.2)]
        pen.polygon(plate, pen.dark, detail=True)
    pen.line([(-0.9, 0.36), (0.9, 0.36)], 0.15, pen.light)


def _dome(base: float, height: float) -> list[tuple[float, float]]:
    from math import cos, pi, sin

    return [(cos(pi * i / 16), base - height * sin(pi * i / 16)) for i in range(17)]


def mug(pen: Pen) -> None:
    """A cylinder with a handle and steam."""
    pen.arc(0.5, 0.18, 0.34, -80, 80, 0.16, pen.dark)
    pen.polygon([(-0.62, -0.36), (0.5, -0.36), (0.42, 0.8), (-0.54, 0.8)])
    pen.ellipse(-0.06, 0.8, 0.48, 0.12)
    pen.ellipse(-0.06, -0.36, 0.56, 0.16, pen.light)
    pen.ellipse(-0.06, -0.34, 0.45, 0.11, (90, 50, 30))
    pen.line([(-0.44, -0.08), (-0.38, 0.6)], 0.09, pen.light, detail=True)
    for x in (-0.28, 0.14):
        pen.line([(x, -0.62), (x + 0.1, -0.76), (x, -0.9), (x + 0.1, -1.04)], 0.07, (240, 240, 245))
    if _quirk(pen, "star"):
        pen.polygon(_star(-0.05, 0.24, 0.46), (250, 215, 50))


def _star(cx: float, cy: float, r: float) -> list[tuple[float, float]]:
    from math import cos, pi, sin

    radii = [r, r * 0.42]
    return [(cx + radii[i % 2] * sin(pi * i / 5), cy - radii[i % 2] * cos(pi * i / 5)) for i in range(10)]


def car(pen: Pen) -> None:
    """Seen from the side: cabin with windows, two wheels, headlight."""
    pen.polygon([(-0.62, -0.1), (-0.4, -0.62), (0.36, -0.62), (0.66, -0.1)])
    pen.polygon([(-1.1, 0.0), (-0.9, -0.14), (0.92, -0.14), (1.12, 0.08), (1.12, 0.48), (-1.1, 0.48)])
    glass = (190, 225, 245)
    pen.polygon([(-0.46, -0.12), (-0.3, -0.5), (-0.04, -0.5), (-0.04, -0.12)], glass)
    pen.polygon([(0.06, -0.12), (0.06, -0.5), (0.3, -0.5), (0.5, -0.12)], glass)
    pen.line([(-1.04, 0.36), (1.06, 0.36)], 0.09, pen.dark)
    for x in (-0.6, 0.6):
        pen.ellipse(x, 0.48, 0.28, 0.28, DARK)
        pen.ellipse(x, 0.48, 0.13, 0.13, METAL)
    pen.ellipse(1.0, 0.1, 0.1, 0.1, (255, 240, 150))


def umbrella(pen: Pen) -> None:
    """Open: ribbed canopy, stick, hooked handle."""
    pen.line([(0, -0.9), (0, 0.8)], 0.09, METAL)
    pen.arc(0.17, 0.78, 0.17, 180, 10, 0.11, (125, 75, 40))
    pen.polygon([(1.05 * x, y) for x, y in _dome(0.0, 0.86)])
    for x in (-0.7, 0.0, 0.7):
        pen.ellipse(x, 0.02, 0.34, 0.12)
    pen.line([(0, -0.84), (-0.36, -0.06)], 0.05, pen.dark)
    pen.line([(0, -0.84), (0.36, -0.06)], 0.05, pen.dark)
    pen.line([(-0.76, -0.3), (-0.42, -0.66)], 0.08, pen.light, detail=True)


def chair(pen: Pen) -> None:
    """Seen from the side: tall back, deep seat, legs."""
    for x in (-0.42, 0.52):
        pen.line([(x, 0.2), (x * 1.12, 0.92)], 0.16)
    for x in (-0.12, 0.28):
        pen.line([(x, 0.2), (x, 0.74)], 0.11, pen.dark)
    pen.polygon([(-0.72, -0.95), (-0.02, -0.9), (0.04, 0.1), (-0.62, 0.1)])
    pen.polygon([(-0.62, -0.06), (0.5, -0.06), (0.74, 0.34), (-0.56, 0.34)])
    pen.line([(-0.02, -0.84), (0.03, -0.06), (0.48, -0.06)], 0.05, pen.dark)
    pen.line([(-0.4, 0.2), (0.46, 0.2)], 0.09, pen.light, detail=True)


def ball(pen: Pen) -> None:
    """A beach ball: one big circle with a lighter lens in the middle, a cap and a highlight."""
    pen.ellipse(0, 0.1, 0.82, 0.82)
    pen.ellipse(0, 0.1, 0.44, 0.8, pen.light, detail=True)
    pen.ellipse(0, 0.1, 0.2, 0.8)
    pen.ellipse(0, -0.56, 0.2, 0.12, (250, 250, 250))
    pen.ellipse(-0.52, -0.2, 0.1, 0.14, (250, 250, 250), detail=True)


def boat(pen: Pen) -> None:
    """A sailing boat: hull, mast, one large and one small sail."""
    pen.line([(0, 0.4), (0, -0.95)], 0.09, (125, 75, 40))
    pen.polygon([(0.1, -0.92), (0.1, 0.26), (0.86, 0.26)], (250, 248, 240))
    pen.polygon([(-0.1, -0.7), (-0.1, 0.26), (-0.66, 0.26)])
    pen.polygon([(-1.02, 0.4), (1.02, 0.4), (0.7, 0.9), (-0.7, 0.9)])
    pen.line([(-0.92, 0.5), (0.92, 0.5)], 0.1, pen.light, detail=True)
    for x in (-0.36, 0.0, 0.36):
        pen.ellipse(x, 0.7, 0.09, 0.09, (235, 240, 250), detail=True)


ANIMALS: dict[str, Callable[[Pen], None]] = {
    "cat": cat,
    "dog": dog,
    "bird": bird,
    "fish": fish,
    "rabbit": rabbit,
    "turtle": turtle,
}
OBJECTS: dict[str, Callable[[Pen], None]] = {
    "mug": mug,
    "car": car,
    "umbrella": umbrella,
    "chair": chair,
    "ball": ball,
    "boat": boat,
}
