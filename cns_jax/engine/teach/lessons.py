"""Which lessons a run has had, and which it shall have: its ledger beside what its settings ask for.

What the ledger knows is a prefix, by name and token. New concepts are taught after it, in their own order, and nothing
that was taught needs its folder any more.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from cns_jax.core.settings import require
from cns_jax.core.types import Concept
from cns_jax.data.caption_files import read_captions
from cns_jax.data.folder import NoFolders
from cns_jax.data.formats import is_mask
from cns_jax.data.pictures import picture_files
from cns_jax.data.spec import ConceptSpec
from cns_jax.data.stray import own
from cns_jax.engine.checkpoint import Checkpoints
from cns_jax.engine.runs.concepts import fingerprints, read, specs_of
from cns_jax.engine.runs.folder import earlier_settings
from cns_jax.engine.runs.learned import Learned, data_folder
from cns_jax.engine.runs.ledger import Ledger, Row, there
from cns_jax.engine.settings import MOST_STEPS, RunSettings


@dataclass(frozen=True)
class Lessons:
    """taught: rows of the ledger, whose lessons are over; ahead: the concepts of the lessons to come, in order.

    resumes: the first of these may go on from a checkpoint, if there is one; else it starts at its first step.
    extends: it is the last one that was taught, which gets more steps. notes: what a user should know.
    """

    taught: tuple[Row, ...]
    ahead: tuple[Concept, ...]
    resumes: bool = True
    extends: bool = False
    notes: tuple[str, ...] = ()

    @property
    def tokens(self) -> tuple[str, ...]:
        """Of all concepts, in order."""
        return (*(row["token"] for row in self.taught), *(concept.token for concept in self.ahead))


def steps_of(settings: RunSettings, concept: Concept | ConceptSpec) -> int:
    """How many steps a concept's lesson has."""
    return concept.steps or settings.train.steps


def newest(checkpoints: Checkpoints) -> tuple[int, int]:
    """Lesson and step of a run's newest checkpoint; (0, 0) if there is none."""
    return divmod(checkpoints.latest() or 0, MOST_STEPS)


def lesson_row(concept: Concept) -> dict[str, object]:
    """What tells a lesson from others, as the ledger keeps it."""
    return {
        "name": concept.name,
        "token": concept.token,
        "class_word": concept.class_word,
        "kind": concept.kind,
        "images": len(concept.image_paths),
        "pictures": fingerprints(concept.image_paths),
        "captions": list(concept.captions),
        "masks": fingerprints([mask for mask in concept.mask_paths if mask]),
    }


def lessons_of(settings: RunSettings, drawn_into: Path | None = None) -> Lessons:
    """What the run in settings.directory has learned and has to learn; only pictures of a drawn set are written, into
    `drawn_into` (None: the run's data/).

    Raises SettingsError or DataError if the folder holds a run with other settings, if a taught concept was renamed or
    has another token now, or if something is wrong with what is to be taught.
    """
    before = earlier_settings(settings)
    directory = Path(settings.directory)
    ledger = Ledger(directory)
    known = ledger.read()
    rows: list[Row] = known["concepts"]
    current: Row | None = known.get("current")
    after = [] if not settings.after else _after(settings, before)
    takes_over = bool(settings.after) and not ledger.file.exists()
    if takes_over:
        rows = list(Learned.of(settings.after).concepts)
    else:
        for row in rows:
            there(directory, row)
    gone = ""
    try:
        specs = specs_of(settings, [row["name"] for row in rows])
    except NoFolders as error:
        if before is None or not rows or not _same_place(settings.data_root, before.data_root):
            raise
        specs, gone = (), f"{error}; so there is nothing new to teach"
    notes = after + ([gone] if gone else _compared(settings, rows, specs))
    taught = {row["name"] for row in rows}
    new = [spec for spec in specs if spec.name not in taught]
    extended: tuple[Concept, ...] = ()
    if rows and not new and not takes_over:  # another run's last lesson has its checkpoint there
        extended = _extended(settings, rows, current, specs, drawn_into)
    notes += _too_short(settings, before, rows[: -1 if extended else None], specs)
    if extended:
        return Lessons(tuple(rows[:-1]), extended, extends=True, notes=tuple(notes))
    if current is not None and current["name"] in taught:
        notes.append(f"further steps of {current['name']} were begun; they are left, and it stays as it was")
        current = None
    if current is not None:
        new.sort(key=lambda spec: spec.name != current["name"])  # stable: the lesson that is going on comes first
    ahead = read(settings, new, drawn_into)
    _check_apart(rows, ahead, Path(settings.data_root).expanduser(), {spec.name for spec in specs})
    resumes = True
    if current is not None:
        resumes = bool(ahead) and ahead[0].name == current["name"] and _same(current, ahead[0])
        if not resumes:
            asked = bool(ahead) and ahead[0].name == current["name"]
            then = "what it is taught with has changed, so it starts again" if asked else "it is not asked for any more"
            notes.append(f"the lesson of {current['name']} was stopped before its end, and {then}")
    return Lessons(tuple(rows), ahead, resumes, notes=tuple(notes))


def _same_place(one: str, other: str) -> bool:
    return os.path.realpath(os.path.expanduser(one)) == os.path.realpath(os.path.expanduser(other))


def _after(settings: RunSettings, before: RunSettings | None) -> list[str]:
    """Notes on `settings.after`. Raises SettingsError if it is the run itself."""
    directory = settings.directory
    require(
        not _same_place(settings.after, directory),
        f"--config.after={settings.after} is the run itself; to go on with it, leave --config.after out",
    )
    if before is not None and before.after and _same_place(before.after, settings.after):
        return []
    if Ledger(Path(directory)).file.exists():
        return [f"--config.after={settings.after} changes nothing: {directory} has begun already"]
    current = Ledger(Path(settings.after).expanduser()).read().get("current")
    if current is None:
        return []
    return [f"{settings.after} is in the middle of {current['name']}, which is not taken over"]


def _extended(
    settings: RunSettings,
    rows: Sequence[Row],
    current: Row | None,
    specs: Sequence[ConceptSpec],
    drawn_into: Path | None,
) -> tuple[Concept, ...]:
    """The concept of the last lesson, if more steps of it are asked for than it had; else none.

    Raises SettingsError if its pictures have changed, or if its checkpoint is gone.
    """
    row = rows[-1]
    spec = next((spec for spec in specs if spec.name == row["name"]), None)
    if spec is None and settings.drawn is None and not settings.concepts:  # its folder is gone, the run's copy is not
        copy = str(data_folder(settings.directory).absolute() / row["name"])
        spec = ConceptSpec(row["name"], copy, row["token"], row["class_word"], row["kind"])
    if spec is None or "steps" not in row or steps_of(settings, spec) <= row["steps"]:
        return ()
    if current is not None and current["name"] != row["name"]:
        return ()
    concepts = read(settings, [spec], drawn_into)
    require(
        _same(row, concepts[0]),
        f"{spec.name} was taught with other pictures, captions or masks, or another class word than now, so its lesson "
        f"cannot go on to {steps_of(settings, spec)} steps; put them back, or start anew with --config.run=...",
    )
    folder = Path(settings.directory) / "checkpoints"
    checkpoints = Checkpoints(folder)
    index, step = newest(checkpoints)
    checkpoints.close()
    require(
        index == len(rows) - 1 and step >= row["steps"],
        f"the lesson of {spec.name} cannot go on from step {row['steps']}: its checkpoint is not in {folder}; start "
        "anew with --config.run=...",
    )
    return concepts


def _too_short(
    settings: RunSettings, before: RunSettings | None, rows: Sequence[Row], specs: Sequence[ConceptSpec]
) -> list[str]:
    """A note on the lessons that stay as they are, though more steps of them are asked for than they had."""
    asked = {spec.name: steps_of(settings, spec) for spec in specs}
    usual = before.train.steps if before else settings.train.steps  # rows of old versions do not tell
    had = rows[-1].get("steps", 0) if rows else 0
    if rows and 0 < asked.get(rows[-1]["name"], 0) < had and len(rows) == len(asked):
        return [f"the lesson of {rows[-1]['name']} had {had} steps; fewer of them now change nothing"]
    short = [row for row in rows if asked.get(row["name"], 0) > row.get("steps", usual)]
    if not short:
        return []
    why = "only the last lesson can go on, before another one is taught"
    if "steps" not in short[-1]:
        why = "an earlier version of cns-jax taught them, whose lessons cannot go on"
    names = ", ".join(row["name"] for row in short)
    return [f"lessons with fewer steps than are asked for now, which stay as they are: {names}; {why}"]


def _same(row: Row, concept: Concept) -> bool:
    """Whether a lesson is this concept's, with the same pictures."""
    now = lesson_row(concept)
    return all(row.get(key, now[key]) == now[key] for key in now)


def _compared(settings: RunSettings, rows: Sequence[Row], specs: Sequence[ConceptSpec]) -> list[str]:
    """Notes on what has changed about the taught concepts. Raises SettingsError for a token that differs."""
    notes = []
    asked = {spec.name: spec for spec in specs}
    left = [row["name"] for row in rows if row["name"] not in asked]
    if left:
        was, stays, it_is = ("was", "stays", "it is") if len(left) == 1 else ("were", "stay", "they are")
        names = ", ".join(left)
        notes.append(f"{names} {was} taught before and {stays} in the model, though {it_is} not asked for now")
    for row in rows:
        name, spec = row["name"], asked.get(row["name"])
        if spec is None:
            continue
        require(
            not spec.token or spec.token == row["token"],
            f"{name} was taught with the token {row['token']}, now it is {spec.token}; give it {row['token']} again, "
            "or another name, to be taught as another concept",
        )
        if settings.drawn is None and "pictures" in row:
            notes += _pictures_changed(row, Path(settings.data_root).expanduser() / (spec.folder or name))
    return notes


def _pictures_changed(row: Row, folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    paths = picture_files(folder)
    now = {p["sha256"] for p in fingerprints(paths)}
    before = {p["sha256"] for p in row["pictures"]}
    captions = list(read_captions(folder, paths, []))
    more, gone = len(now - before), len(before - now)
    told = " and ".join(f"{count} {what}" for count, what in ((more, "more"), (gone, "fewer")) if count)
    if not told:
        masks = {p["sha256"] for p in fingerprints([p for p in own(folder) if is_mask(p)])}
        others = ["captions"] * (row.get("captions", captions) != captions)
        others += ["masks"] * ("masks" in row and {p["sha256"] for p in row["masks"]} != masks)
        told = " and ".join(f"other {what}" for what in others)
    if not told:
        return []
    return [
        f"{folder} is not what {row['name']} was taught with any more ({told}), which changes nothing: its lesson is "
        "over. Put new pictures into a folder with another name to teach them as a new concept, or start anew with "
        "--config.run=..."
    ]


def _check_apart(rows: Sequence[Row], ahead: Sequence[Concept], root: Path, asked: Collection[str]) -> None:
    """Refuse a token that is taken, and a taught concept under another name. asked: names of all concepts that are."""
    tokens = {row["token"]: row["name"] for row in rows}
    for concept in ahead:
        require(
            concept.token not in tokens,
            f"{concept.name} has the token {concept.token}, which {tokens.get(concept.token)} was taught with; give it "
            "another one",
        )
        now = {p["sha256"] for p in fingerprints(concept.image_paths)}
        for row in rows:
            before = {p["sha256"] for p in row.get("pictures", ())}
            require(
                before != now or row["name"] in asked or (root / row["name"]).is_dir(),
                f"{concept.name} holds the pictures that {row['name']} was taught with, and {row['name']} is gone: "
                f"name it {row['name']} again, since the model knows it as {row['token']}",
            )
