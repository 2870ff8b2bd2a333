"""A human study of several runs: one page to mail to users, and the tally of what they send back.

    python -m cns_jax.study --runs runs/a runs/b runs/c --out study/
    python -m cns_jax.study tally answers1.json answers2.json

The first writes study/study.html, which goes to the users, and study/key.json, which does not: it tells which picture
is of which run. For each prompt the page asks the paper's two questions, which picture fits the text best and which
is most similar to the concept's pictures, and saves a file of answers at the end.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence

_STYLE = argparse.RawDescriptionHelpFormatter


def page_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line of the page; argparse, since absl's flags take no `--runs A B C`."""
    parser = argparse.ArgumentParser("python -m cns_jax.study", description=__doc__, formatter_class=_STYLE)
    add = parser.add_argument
    add("--runs", nargs="+", required=True, metavar="RUN", help="folders of two or more finished training runs")
    add("--out", default="study", metavar="DIR", help="folder to write (default: study)")
    add("--prompts_file", default="", metavar="FILE", help="a text file with one prompt a line (default: made from "
        "the concepts that all runs know)")  # fmt: skip
    add("--singles", type=int, default=5, metavar="N", help="made prompts with one concept (default: 5)")
    add("--pairs", type=int, default=15, metavar="N", help="made prompts with two subjects (default: 15)")
    add("--num", type=int, default=1, metavar="N", help="samples a prompt, each with two questions (default: 1; the "
        "paper has 5)")  # fmt: skip
    add("--seed", type=int, default=0, metavar="N", help="seed of a prompt's first sample, for all runs (default: 0)")
    add("--sampler", default="", metavar="NAME", help="for all runs (default: the first run's; also the next two)")
    add("--steps", type=int, default=0, metavar="N", help="denoising steps")
    add("--guidance_scale", type=float, default=-1.0, metavar="X", help="classifier-free guidance")
    add("--data_root", default="", metavar="DIR", help="where the concepts' pictures are now (default: where the runs "
        "had them)")  # fmt: skip
    add("--side", type=int, default=512, metavar="N", help="scale larger pictures down to this (default: 512)")
    return parser.parse_args(arguments)


def tally_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line of the tally."""
    parser = argparse.ArgumentParser(
        "python -m cns_jax.study tally",
        description="Which run users preferred, in percent with 95 % intervals (Wilson's, with the effective number "
        "of answers: those of one user resemble each other).",
    )
    parser.add_argument("files", nargs="+", metavar="ANSWERS", help="the JSON files that users have sent")
    parser.add_argument("--key", default="study/key.json", help="the study's key (default: study/key.json)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    """Arguments to the page, or to the tally."""
    tallying = bool(arguments) and arguments[0] == "tally"
    parsed = tally_arguments(arguments[1:]) if tallying else page_arguments(arguments)

    from cns_jax.engine.start import start

    start()
    try:
        if tallying:
            from cns_jax.evals.preferences import tally  # needs no model, so starts at once

            print(tally(parsed.files, parsed.key))
            return
        from cns_jax.engine.study import StudyRequest, study

        values = {**vars(parsed), "runs": tuple(parsed.runs)}
        page = study(StudyRequest(**{f.name: values[f.name] for f in dataclasses.fields(StudyRequest)}))
    except (ValueError, OSError) as error:  # every error that the user can mend is one
        sys.exit(f"error: {error}")
    print(f"Wrote {page} ({page.stat().st_size / 1e6:.1f} MB): send it to the users; it works without a network")
    print(f"Keep {page.with_name('key.json')} to yourself: it tells which picture is of which run")


if __name__ == "__main__":
    main(sys.argv[1:])
