"""What to do next with a run, as commands to copy: for this very run, quoted for a shell."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from cns_jax.data.prompts import sample_prompts
from cns_jax.engine.pages.report.given import Flags, given
from cns_jax.engine.runs.concepts import drawn_set
from cns_jax.engine.runs.learned import Learned

Command = tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """title: what it does; how: what to do before, or what it needs; command: one line to copy, in the parts between
    which a page may break it."""

    title: str
    how: str
    command: Command


def next_steps(learned: Learned) -> list[Step]:
    """Pictures, another concept, longer lessons, exports, and a closer look."""
    run, drawn = str(learned.directory), learned.settings.drawn is not None
    prompt = sample_prompts(learned.taught[0])[0]
    new: Flags = {"config": "photos"} if drawn else given(learned.directory, learned.settings)
    new = {name: value for name, value in new.items() if name != "concept"}  # said of this run's folders
    if learned.settings.concepts and not drawn:
        new["config.concepts"] = "()"  # those of the configuration are taught already
    new |= {"config.data_root": "NEW_PHOTOS", "config.after": run, "config.run": beside(learned, "more")}
    return [
        Step("Draw pictures", "They lie in the run's folder, in generated.",
             _line("generate", run=run, prompt=prompt, num="8")),
        Step("Teach it one more concept", _how_to_add(learned), train(learned)),
        Step("Begin a new run where this one ends",
             "NEW_PHOTOS is a folder with a sub-folder of pictures a concept. This run stays as it is; the new one "
             "knows its concepts too.", _line("train", **new)),
        _longer(learned),
        Step("Use it in diffusers", "Writes a folder for StableDiffusionPipeline.from_pretrained.",
             _line("export", run=run, format="diffusers")),
        Step("Use it in ComfyUI, A1111 or InvokeAI", "Writes a LoRA file, and an embedding a concept.",
             _line("export", run=run, format="lora")),
        Step("Measure it more closely", "Four pictures a prompt after every lesson; this page is then written anew.",
             _line("evaluate", run=run, num="4")),
    ]  # fmt: skip


def train(learned: Learned, run: str = "", steps: int | str = 0) -> Command:
    """The command that trained the run, into another folder or with other steps where they are given."""
    flags: Flags = {**given(learned.directory, learned.settings), "config.run": run or str(learned.directory)}
    return _line("train", **(flags | {"config.train.steps": str(steps)} if steps else flags))


def retrain(learned: Learned, steps: int) -> Command:
    """The command that trains all concepts again, with so many steps each (0: N), into a folder of its own."""
    return train(learned, beside(learned, f"{steps or 'N'}_steps"), steps or "N")


def _longer(learned: Learned) -> Step:
    last, settings = learned.concepts[-1], learned.settings
    had = last.get("steps", settings.train.steps)
    title, told = "Train its last concept for longer", f"Its lesson had {had} steps"
    if had != settings.train.steps:
        how = f"{told}, a number of its own: raise it in the configuration, in --concept or in its concept.toml."
        return Step(title, how, train(learned))
    return Step(title, f"{told}, and goes on from there to {2 * had}.", train(learned, steps=2 * had))


def beside(learned: Learned, what: str) -> str:
    """A folder for another run, beside this one's."""
    folder = learned.directory if learned.directory.name not in ("", "..") else learned.directory.resolve()
    return str(folder.with_name(f"{folder.name}_{what}"))


def _how_to_add(learned: Learned) -> str:
    settings = learned.settings
    known = {row["name"] for row in learned.concepts}
    left = [name for name in drawn_set(settings) if name not in known]
    if settings.drawn is not None and not left:
        return "The drawn set has no more; for your own pictures begin a new run, as below."
    if settings.concepts:
        entry = f'Add {{"name": "{left[0] if left else "new_cat"}"}} to the end of concepts in the configuration'
        return entry + (f", with its pictures in a folder new_cat in {shown(settings.data_root)}." if not left else ".")
    return f"Put a folder with its pictures beside the others, into {shown(settings.data_root)}."


def _line(command: str, **flags: str | list[str] | None) -> Command:
    single = ((name, one) for name, value in flags.items() for one in (value if isinstance(value, list) else [value]))
    parts = (f"--{name}" if value is None else f"--{name}={quoted(value)}" for name, value in single)
    return (f"python -m cns_jax.{command}", *parts)


def quoted(value: str) -> str:
    """For a shell. A ~ in it is expanded by the commands, which read paths so."""
    return shlex.quote(shown(value))


def shown(path: str | Path) -> str:
    """A path that can be shown to others: without the name of the user's folder."""
    path, home = str(path), str(Path.home())
    return "~" + path[len(home) :] if path == home or path.startswith(home + os.sep) else path
