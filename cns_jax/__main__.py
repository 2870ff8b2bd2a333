"""All commands by name: python -m cns_jax, or cns-jax."""

from __future__ import annotations

import difflib
import importlib
import sys

from cns_jax import __version__, cli

COMMANDS = {
    "train": "teach concepts one after another",
    "generate": "pictures from a run",
    "evaluate": "measure what a run has learned and kept",
    "export": "write a run's result for other tools",
    "patch": "concept patches: apply, revert, verify, show",
    "analyze": "the neurons of a model or a run",
    "study": "a page that asks people about several runs, and the tally",
    "caption": "write captions with BLIP",
    "pretrain": "make the miniature from nothing",
}


def main() -> None:
    """The command that the first argument names; without one, the list."""
    with cli.ending():
        name, *rest = sys.argv[1:] or ["--help"]
        if name == "--version":
            print(f"cns-jax {__version__}")
        elif name in ("help", "--help", "-h", "--helpfull"):
            print(listing())
        else:
            if name not in COMMANDS:
                near = difflib.get_close_matches(name, COMMANDS, 1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
                raise ValueError(f"{name!r} is no command; {hint}")
            sys.argv[:] = [f"cns-jax {name}", *rest]
            importlib.import_module(f"cns_jax.{name}").main()


def listing() -> str:
    """The commands, a line each."""
    lines = (f"  {name:10}{what}" for name, what in COMMANDS.items())
    return "\n".join(
        [
            f"cns-jax {__version__}: one Stable Diffusion model that keeps learning",
            "",
            *lines,
            "",
            "cns-jax COMMAND --help has the flags, cns-jax train --config=mini is the demo",
            "(the same: python -m cns_jax.COMMAND)",
        ]
    )


if __name__ == "__main__":
    main()
