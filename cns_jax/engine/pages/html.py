"""What self-contained pages are made with: templates, and pictures written into the page."""

from __future__ import annotations

import base64
import io
import re
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup
from PIL import Image

from cns_jax.text.vocabulary import CONCEPT_TOKEN


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("cns_jax.engine.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["marked"] = _marked
    return environment


def _marked(prompt: str) -> Markup:
    """A prompt, escaped, with its tokens set off."""
    parts = re.split(f"({CONCEPT_TOKEN.pattern})", prompt)
    pill = Markup('<span class="token">{}</span>')
    return Markup("").join(pill.format(p) if CONCEPT_TOKEN.fullmatch(p) else Markup.escape(p) for p in parts)


def template(name: str) -> Template:
    """A page of engine/pages/templates; what is put into it is escaped, and a missing value is an error."""
    return _environment().get_template(name)


def data_url(image: Image.Image, side: int, fine: bool = False) -> str:
    """A JPEG without metadata, at most `side` wide and high. fine: nearly without loss, as very small pictures, which
    are shown enlarged, always are."""
    if max(image.size) > side:
        image = image.copy()
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    fine = fine or max(image.size) <= 128
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=91 if fine else 82, subsampling=0 if fine else 2, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
