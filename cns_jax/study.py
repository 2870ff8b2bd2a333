"""A human study of several runs: one page to mail to users, and the tally of what they send back.

    python -m cns_jax.study --runs runs/a runs/b runs/c --out study/
    python -m cns_jax.study tally answers1.json answers2.json

The first writes study/study.html, which goes to the users, and study/key.json, which does not: it tells which picture
is of which run. For each prompt the page asks the paper's two questions, which picture fits the text best and which
is most similar to the concept's pictures, and saves a file of answers at the end.

The tally says which run users preferred, in percent with 95 % intervals (Wilson's, with the effective number of
answers: those of one user resemble each other).
"""

from __future__ import annotations

from absl import flags

from cns_jax import cli, shipped

_RUNS = flags.DEFINE_multi_string("runs", [], "folders of two or more finished training runs: --runs A B C")
_OUT = flags.DEFINE_string("out", "study", "folder to write")
_PROMPTS = flags.DEFINE_string(
    "prompts_file", "", "a text file with one prompt a line, or set1, ... (default: made from the concepts that all "
    "runs know)",
)  # fmt: skip
_SINGLES = flags.DEFINE_integer("singles", 5, "made prompts with one concept")
_PAIRS = flags.DEFINE_integer("pairs", 15, "made prompts with two subjects")
_NUM = flags.DEFINE_integer("num", 1, "samples a prompt, each with two questions; the paper has 5")
_SEED = flags.DEFINE_integer("seed", 0, "seed of a prompt's first sample, for all runs")
_SAMPLER = flags.DEFINE_string("sampler", "", "for all runs (default: the first run's; also the next two)")
_STEPS = flags.DEFINE_integer("steps", 0, "denoising steps")
_GUIDANCE = flags.DEFINE_float("guidance_scale", -1.0, "classifier-free guidance")
_DATA = flags.DEFINE_string("data_root", "", "where the concepts' pictures are now (default: where the runs had them)")
_SIDE = flags.DEFINE_integer("side", 512, "scale larger pictures down to this")
_KEY = flags.DEFINE_string("key", "study/key.json", "tally: the study's key")


@cli.command(takes=True)
def main(arguments: list[str]) -> None:
    """Arguments to the page, or to the tally."""
    if arguments[:1] == ["tally"]:
        from cns_jax.core.settings import require
        from cns_jax.evals.preferences import tally  # needs no model, so starts at once

        require(len(arguments) > 1, "tally needs the JSON files that users have sent")
        print(tally(arguments[1:], _KEY.value))
        return
    from cns_jax.engine.pages.study import StudyRequest, study

    request = StudyRequest(
        runs=(*_RUNS.value, *arguments), out=_OUT.value, prompts_file=shipped.prompts_file(_PROMPTS.value),
        singles=_SINGLES.value, pairs=_PAIRS.value, num=_NUM.value, seed=_SEED.value, sampler=_SAMPLER.value,
        steps=_STEPS.value, guidance_scale=_GUIDANCE.value, data_root=_DATA.value, side=_SIDE.value,
    )  # fmt: skip
    page = study(request)
    print(f"Wrote {page} ({page.stat().st_size / 1e6:.1f} MB): send it to the users; it works without a network")
    print(f"Keep {page.with_name('key.json')} to yourself: it tells which picture is of which run")


if __name__ == "__main__":
    main()
