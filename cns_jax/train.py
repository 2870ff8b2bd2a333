"""Teach concepts one after another: python -m cns_jax.train --config=configs/mini.py [--dry_run] [--config.seed=1]"""

from __future__ import annotations

import sys
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file("config", None, "what to teach and how; see configs/", lock_config=True)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "check everything, print the plan, train nothing")


def main(_: list[str]) -> None:
    """Flags to settings to the run."""
    from cns_jax.core.settings import build
    from cns_jax.engine.closing import close, finished
    from cns_jax.engine.fit import Interrupted
    from cns_jax.engine.lock import holding
    from cns_jax.engine.plan import plan
    from cns_jax.engine.report.given import keep_command
    from cns_jax.engine.sequence import run
    from cns_jax.engine.settings import RunSettings
    from cns_jax.engine.start import start

    start()
    if _CONFIG.value is None:
        sys.exit("error: give a configuration, e.g. --config=configs/mini.py")
    values = _CONFIG.value.to_dict()
    values.setdefault("name", Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem)
    try:
        settings = build(RunSettings, values)
        if _DRY_RUN.value:
            print("\n".join(plan(settings)))
            return
        with holding(Path(settings.directory)):
            if done := finished(settings):
                print(done)
                return
            run(settings)
            keep_command(settings.directory, sys.argv[1:])
            report = close(settings)
    except (ValueError, OSError) as error:  # every error that the user can mend is one
        sys.exit(f"error: {error}")
    except Interrupted as stopped:
        sys.exit(f"{stopped}; run the same command again to go on from there")
    print(f"Done. Look at {report}")


if __name__ == "__main__":
    app.run(main)
