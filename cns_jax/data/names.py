"""What a folder's name says: the token and the class word."""

from __future__ import annotations

import re

from anyascii import anyascii

# "10_sks dog": kohya's trainers repeat the pictures ten times; a year or "01_", by which folders are sorted, is none
_REPEATS = re.compile(r"[1-9]\d{0,2}_(?=.*[^\W\d_])")


def without_repeats(name: str) -> str:
    """A folder's name without the number of repeats that kohya's trainers read at its start."""
    found = _REPEATS.match(name)
    return name[found.end() :] if found else name


def token_of(name: str) -> str | None:
    """The token that a folder's name gives: "My cat" -> "<my_cat>", "моя_кошка" -> "<moya_koshka>"; None if it has no
    letter or digit that can be spelled in a-z."""
    name = without_repeats(name)
    spelled = name if name.isascii() else anyascii(name)
    token = re.sub(r"[^a-z0-9_-]+", "_", spelled.lower())
    if not name.isascii():
        token = token.strip("_")
    return f"<{token}>" if token else None


def guess_class_word(name: str) -> str:
    """The last word of a folder's name, without digits: "colorful_sneaker" -> "sneaker", "dog2" -> "dog"."""
    words = [w for w in re.split(r"[\W_]+", re.sub(r"\d+", " ", name.lower())) if w]
    return words[-1] if words else name
