"""Small colour profiles (ICC version 2), made of numbers."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence

ADOBE = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))  # Adobe RGB's primaries at D50
SRGB = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
_D50 = (0.9642, 1.0, 0.8249)


def _fixed(*numbers: float) -> bytes:
    return struct.pack(f">{len(numbers)}i", *(round(n * 65536) for n in numbers))


def _profile(kind: bytes, space: bytes, pcs: bytes, tags: dict[bytes, bytes]) -> bytes:
    body, table, offset = b"", struct.pack(">I", len(tags)), 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    size = struct.pack(">I", 128 + len(table) + len(body))
    head = size + b"\0" * 4 + bytes([2, 0x40, 0, 0]) + kind + space + pcs + struct.pack(">6H", 2026, 1, 1, 0, 0, 0)
    head += b"acsp" + b"\0" * 28 + _fixed(*_D50)
    return head.ljust(128, b"\0") + table + body


def _curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"


def _srgb_curve() -> bytes:
    """1024 rounded numbers, as the profile that cameras embed has them."""
    shares = [i / 1023 for i in range(1024)]
    light = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return b"curv\0\0\0\0" + struct.pack(">I1024H", 1024, *(round(v * 65535) for v in light))


def _xyz(numbers: Sequence[float]) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(*numbers)


def rgb(primaries: Sequence[Sequence[float]] = ADOBE, gamma: float = 2.2) -> bytes:
    tags = {b"wtpt": _xyz(_D50)}
    tags |= {bytes([c]) + b"XYZ": _xyz(numbers) for c, numbers in zip(b"rgb", primaries, strict=True)}
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags | {bytes([c]) + b"TRC": _curve(gamma) for c in b"rgb"})


def srgb(off: float = 0.0) -> bytes:
    """off: what is added to a primary and taken from another, as other makers' rounding does."""
    primaries = ((SRGB[0][0] + off, *SRGB[0][1:]), (SRGB[1][0] - off, *SRGB[1][1:]), SRGB[2])
    tags = {b"wtpt": _xyz(_D50)} | {bytes([c]) + b"XYZ": _xyz(n) for c, n in zip(b"rgb", primaries, strict=True)}
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags | {bytes([c]) + b"TRC": _srgb_curve() for c in b"rgb"})


def grey(gamma: float) -> bytes:
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"wtpt": _xyz(_D50), b"kTRC": _curve(gamma)})


def cmyk(lab_of_magenta: tuple[float, float, float]) -> bytes:
    """Paper is white, all with black ink is black, magenta alone as given, the rest grey."""
    table = []
    for c, m, y, k in itertools.product((0, 1), repeat=4):
        lab = {(0, 0, 0, 0): (100, 0, 0), (0, 1, 0, 0): lab_of_magenta}.get((c, m, y, k), (0 if k else 50, 0, 0))
        table += [round(lab[0] * 652.8), *(round((v + 128) * 256) for v in lab[1:])]
    lut = b"mft2\0\0\0\0" + bytes([4, 3, 2, 0]) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1) + struct.pack(">HH", 2, 2)
    ramp = struct.pack(">HH", 0, 65535)
    lut += ramp * 4 + struct.pack(f">{len(table)}H", *table) + ramp * 3
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"wtpt": _xyz(_D50), b"A2B0": lut})
