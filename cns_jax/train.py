"""Teach concepts one after another: python -m cns_jax.train --config=mini [--dry_run] [--config.seed=1]"""

from __future__ import annotations

import dataclasses
import logging
import sys
from pathlib import Path

from absl import flags

from cns_jax import cli, shipped

_CONFIG = shipped.define_config(
    f"what to teach and how: {', '.join(shipped.names())}, or a file of your own; "
    "--config.SETTING=VALUE changes a setting, e.g. --config.train.steps=100"
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "check everything, print the plan, train nothing")
_CONCEPT = flags.DEFINE_multi_string(
    "concept",
    [],
    'what a concept is, e.g. --concept="my_cat: class_word=cat, kind=style, token=<x>, init_word=y, steps=300"; any of '
    "these, by its folder's name; repeat the flag for several; goes before concept.toml in the folder",
)
_HELP_SETTINGS = flags.DEFINE_bool("help_settings", False, "print every setting with its type, default and meaning")


@cli.command()
def main(_: list[str]) -> None:
    """Flags to settings to the run."""
    from cns_jax.core.reference import reference
    from cns_jax.core.settings import build
    from cns_jax.data.spec import read_flags
    from cns_jax.engine.lock import holding
    from cns_jax.engine.pages.closing import close, finished
    from cns_jax.engine.pages.report.given import keep_command
    from cns_jax.engine.settings import TITLE, RunSettings
    from cns_jax.engine.teach.lessons import lessons_of
    from cns_jax.engine.teach.plan import plan
    from cns_jax.engine.teach.sequence import run

    if _HELP_SETTINGS.value:
        print(reference(RunSettings, TITLE), end="")
        return
    if _CONFIG.value is None:
        raise ValueError(f"give a configuration, e.g. --config=mini; shipped: {', '.join(shipped.names())}")
    values = _CONFIG.value.to_dict()
    values.setdefault("name", Path(shipped.config_name()).stem)
    values["said"] = [dataclasses.asdict(spec) for spec in read_flags(_CONCEPT.value)]
    settings = build(RunSettings, values)
    for name in shipped.overridden("method"):
        if not hasattr(settings.method, name):
            logging.warning(
                "config.method.%s changes nothing: method %s has no such setting", name, settings.method.name
            )
    if _DRY_RUN.value:
        print("\n".join(plan(settings)))
        return
    with holding(Path(settings.directory)):
        lessons = lessons_of(settings)
        if done := finished(settings, lessons):
            print(done)
            return
        run(settings, lessons)
        keep_command(settings.directory, sys.argv[1:])
        report = close(settings)
    print(f"Done. Look at {report}")


if __name__ == "__main__":
    main()
