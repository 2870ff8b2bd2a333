"""Measure a run or a model: python -m cns_jax.evaluate --run=runs/mini, or --suite=control

Suites: concepts (pictures of every concept after every lesson: CLIP-I, CLIP-T, forgetting, what else has changed),
control (does a picture show the scene, style, colours and subject that its prompt asks for?).
"""

from __future__ import annotations

import dataclasses

from absl import flags

from cns_jax import cli, shipped

_SUITE = flags.DEFINE_enum("suite", "concepts", ["concepts", "control"], "what to measure")
_MODEL = flags.DEFINE_string("model", "miniature", "control: miniature, or the path of a diffusers folder")
_RUN = flags.DEFINE_string("run", "", "a training run's folder")
_AFTER = flags.DEFINE_string(
    "after", "", "control, with --run: the weights right after this concept (default: the last)"
)
_NUM = flags.DEFINE_integer(
    "num", 0, "concepts: pictures a prompt (default 4; the paper 50); control: prompts (default 256)", lower_bound=0
)
_STAGES = flags.DEFINE_enum(
    "stages", "all", ["all", "ends"],
    "concepts: after every lesson, or each concept only right after its own and after the last one",
)  # fmt: skip
_PROMPTS = flags.DEFINE_string(
    "prompts_file", "", "concepts: a prompt a line, or set1, ... (default: 35 + 4 + 3 as in the paper)"
)
_CLIP = flags.DEFINE_string(
    "clip", "", "concepts: a CLIP folder or hub id (default: the miniature's own, or openai/clip-vit-base-patch32)"
)
_DINO = flags.DEFINE_string(
    "dino", "", "concepts: DINO-I too, by this ViT: a folder or hub id such as facebook/dino-vits16 (needs PyTorch)"
)
_ZERO_SHOT = flags.DEFINE_integer("zero_shot", 128, "concepts: prompts without any concept, 0 for none", lower_bound=0)
_SEED = flags.DEFINE_integer("seed", 0, "another seed draws other pictures")
_SAMPLER = flags.DEFINE_string("sampler", "", "concepts: default the run's; control: dpm++2m; auto: the model's own")
_STEPS = flags.DEFINE_integer("steps", 0, "denoising steps (default: the run's, or 20)", lower_bound=0)
_GUIDANCE = flags.DEFINE_float("guidance_scale", -1.0, "classifier-free guidance (default: the run's, or 4)")
_OUT = flags.DEFINE_string("out", "", "folder for the figures and pictures (default: in the run's folder)")


@cli.command()
def main(_: list[str]) -> None:
    """Flags to the suite to a table."""
    print(_control() if _SUITE.value == "control" else _concepts())


def _concepts() -> str:
    from cns_jax.core.files import read_json
    from cns_jax.engine.draw.request import sampling
    from cns_jax.engine.measure.evaluation import EvaluationRequest, evaluate
    from cns_jax.engine.pages.report.page import write_report
    from cns_jax.engine.runs.learned import Learned
    from cns_jax.evals.score_table import score_table

    if not _RUN.value:
        raise ValueError("give --run=DIR, the folder of a training run; to measure a model alone: --suite=control")
    request = EvaluationRequest(
        run=_RUN.value, stages=_STAGES.value, num=_NUM.value or 4, clip=_CLIP.value,
        prompts_file=shipped.prompts_file(_PROMPTS.value),
        dino=_DINO.value, seed=_SEED.value, zero_shot=_ZERO_SHOT.value, out=_OUT.value,
        sample=sampling(Learned.of(_RUN.value).settings.sample, _SAMPLER.value, _STEPS.value, _GUIDANCE.value),
    )  # fmt: skip
    file = evaluate(request)
    table = score_table(read_json(file))
    if _OUT.value:
        return f"{table}\nWrote {file}"
    return f"{table}\nWrote {file}\nLook at {write_report(_RUN.value)}"


def _control() -> str:
    from cns_jax.engine.draw.request import sampling
    from cns_jax.engine.measure.control import ControlRequest, control

    request = ControlRequest(
        model=_MODEL.value, run=_RUN.value, after=_AFTER.value, num=_NUM.value or 256, seed=_SEED.value, out=_OUT.value
    )
    changed = sampling(request.sample, _SAMPLER.value, _STEPS.value, _GUIDANCE.value)
    result = control(dataclasses.replace(request, sample=changed))
    return f"{result.table()}\nLook at {result.grid}"


if __name__ == "__main__":
    main()
