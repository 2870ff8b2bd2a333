"""A run's result in the formats of other tools."""

from __future__ import annotations

import os
from pathlib import Path

from cns_jax.core.settings import require
from cns_jax.engine.runs.export.exporter import Exporter, ExportRequest
from cns_jax.engine.runs.export.formats import FORMATS
from cns_jax.engine.runs.export.hints import how_to
from cns_jax.engine.runs.learned import Learned
from cns_jax.engine.runs.source import find_source
from cns_jax.weights.folder import check_replaceable

__all__ = ["ExportRequest", "export"]


def export(request: ExportRequest) -> tuple[list[Path], str]:
    """Write the files; returns them and how to use them.

    Raises SettingsError (a request that cannot be met, another base model), WeightsMismatch (a base model that cannot
    be read, a place that holds something else) or OSError (a place that cannot be written).
    """
    learned = Learned.of(request.run, request.after)
    exporter = Exporter(request, learned, find_source(learned.settings.address))
    _check_place(exporter)
    files = FORMATS[request.format](exporter)
    return files, how_to(exporter, files)


def _check_place(export: Exporter) -> None:
    """Refuse a place that cannot be written or that holds what the export is made from, before gigabytes are read."""
    out, model = export.out.absolute(), Path(export.learned.settings.model).absolute()
    require(not out.is_file(), f"--out={export.out} is a file; give the name of a folder")
    require(
        out != model and model not in out.parents and out not in model.parents,
        f"--out={export.out} and the base model {model} lie in each other; give another folder",
    )
    there = next(path for path in (out, *out.parents) if path.exists())
    require(os.access(there, os.W_OK), f"--out={export.out}: {there} is not writable")
    if export.request.format == "diffusers":
        check_replaceable(out)
