"""Prompts files of any editor."""

from __future__ import annotations

from pathlib import Path

import pytest

from cns_jax.core.reading import TextError
from cns_jax.engine.draw.generate import read_prompts


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "prompts.txt").write_text("a café\r\n\r\n  a mug \r\n", encoding=encoding, newline="")
    assert read_prompts(str(tmp_path / "prompts.txt")) == ["a café", "a mug"]


def test_other_bytes_are_named(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a mug\nthe mug’s handle\n", encoding="cp1252")
    with pytest.raises(TextError, match="prompts.txt, line 2: byte 0x92 at letter 8 is not UTF-8"):
        read_prompts(str(tmp_path / "prompts.txt"))
