"""A run's log is what it writes for others to read: run.json, metrics.jsonl, TensorBoard, sample pictures."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from dailies.curation import inside
from dailies.curation.addresses import scrub_data
from dailies.curation.atomic import write_json, write_text
from dailies.curation.config import read_object
from dailies.curation.errors import Damaged, RecipeError, RunError
from dailies.curation.schema import fingerprint
from dailies.training.checkpoint import newest_step
from dailies.training.data.content import model_content, shards_content
from dailies.training.data.split import DATA_RULES, Export, Split, image_content
from dailies.training.diffusion.encoders import Models
from dailies.training.recipes.old_names import to_new_names
from dailies.training.recipes.phase import Phase
from dailies.training.recipes.recipe import TrainingRecipe
from dailies.training.step import learning_rate
from dailies.zoo.formats.references import as_reference

RUN = "run.json"
MOST_METRICS = 1 << 30  # bytes of a metrics.jsonl


# How long a phase is, how a step is computed, what is shown and what is kept: a run goes on with others of these.
CONDUCT: dict[str, Any] = {
    "steps": 1, "validate_every": 1, "save_every": 1, "sample_every": None, "keep": 1,
    "accumulate": 1, "checkpoint_levels": (), "samples": 1, "sample_steps": 1,
}  # fmt: skip


def run_hash(recipe: TrainingRecipe) -> str:
    """Hash a recipe without ``CONDUCT``, so that a run can be made longer, and one which ran out of memory goes on in
    smaller parts."""
    phases = tuple(dataclasses.replace(phase, **CONDUCT) for phase in recipe.phases)
    return dataclasses.replace(recipe, phases=phases).hash


def check_folder(out: Path, resume: bool, file: str = RUN) -> None:
    """Raise ``RunError`` for what is no folder, or, to ``resume``, for a folder without the ``file`` that a run keeps."""
    if out.exists() and not out.is_dir():
        raise RunError(f"out={out}: is a file; name a folder")
    if resume and not (out / file).exists():
        raise RunError(f"out={out}: there is no run to resume; leave --resume out to start one")


def read_record(path: Path) -> dict[str, Any]:
    """Read the JSON that a run keeps. Raises ``Damaged`` naming the file where it is empty, cut or no object."""
    content = inside.read_bytes(path.parent, path.name)
    try:
        return read_object(content, f"{path}:", Damaged)
    except Damaged as error:
        raise Damaged(f"{error}; put back a copy of it, or take another --out") from error


def data_rules_of(out: Path, file: str = RUN) -> int:
    """Return the ``DATA_RULES`` of the run that keeps ``file`` in ``out``, today's where there is none."""
    if not (out / file).is_file():
        return DATA_RULES
    return int(read_record(out / file).get("data_rules", 1))


def _differing(old: Any, new: Any, at: str = "") -> Iterator[str]:
    """Yield the fields in which two recipes differ, each with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys((*old, *new)):
            yield from _differing(old.get(name), new.get(name), f"{at}.{name}" if at else name)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (before, after) in enumerate(zip(old, new, strict=True)):
            name = before.get("name", number) if isinstance(before, dict) else number
            yield from _differing(before, after, f"{at}[{name}]")
    elif old != new and at.rpartition(".")[2] not in CONDUCT:
        yield f"{at} {old!r}, not {new!r}"


def _same_recipe(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Return whether two run.json have one recipe, by its values: a hash tells 8 from 8.0, which mean the same."""
    today: str = new["recipe_hash"]
    try:
        return old["recipe_hash"] == today or run_hash(TrainingRecipe.from_json(old["recipe"])) == today
    except RecipeError:
        return False


def _image_contents(recipe: TrainingRecipe, data_rules: int) -> dict[str, str]:
    """Return what the phases' pictures hold, by phase."""
    contents = {phase.name: image_content(phase, data_rules) for phase in recipe.phases}
    return {name: content for name, content in contents.items() if content is not None}


def _take_over_image_paths(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Give ``old``, a recipe whose pictures are told by content, the places where ``new`` has them."""
    places = {phase["name"]: phase.get("image_path") for phase in new["phases"]}
    for phase in old["phases"]:
        if phase.get("image_path") is not None and places.get(phase["name"]) is not None:
            phase["image_path"] = places[phase["name"]]


def export_record(export: Export) -> dict[str, Any]:
    """``export``: the object in the export's export.json. Exports made before there was one have ``export_card`` instead."""
    manifest = export.folder / "export.json"
    if manifest.is_file():
        return {"export": read_record(manifest)}
    return {"export_card": export.card}


class Run:
    """Keeps RUN/run.json, written whole after each change. ``phases`` holds an entry for each phase begun so far."""

    def __init__(
        self,
        folder: str | Path,
        recipe: TrainingRecipe,
        exports: Mapping[str, Export],
        models: Models,
        *,
        writes: bool = True,
    ) -> None:
        self.folder, self.models, self.writes = Path(folder), models, writes
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path = self.folder / RUN
        export = next(iter(exports.values()))
        places = {name: str(place.folder.resolve()) for name, place in exports.items()}
        data_rules = data_rules_of(self.folder)
        self.facts: dict[str, Any] = {
            "recipe": json.loads(json.dumps(dataclasses.asdict(recipe))),
            "recipe_hash": run_hash(recipe),
            "data": str(export.folder.resolve()),
            **({"exports": places} if len(places) > 1 else {}),
            "data_rules": data_rules,
            **export_record(export),
            "models": {name: as_reference(path) for name, path in dataclasses.asdict(models).items() if path},
            "content": {
                "data": {name: shards_content(place.folder) for name, place in exports.items()},
                "models": {name: model_content(path) for name, path in dataclasses.asdict(models).items() if path},
                "images": _image_contents(recipe, data_rules),
            },
            "phases": [],
        }
        if self.path.exists():
            old = read_record(self.path)
            self._check_same(old)
            self.facts["phases"] = old["phases"]
            images = self.facts["content"]["images"]  # what an absent path held is still to be compared
            self.facts["content"]["images"] = old.get("content", {}).get("images", {}) | images

    def _check_same(self, old: dict[str, Any]) -> None:
        """Raise ``RunError`` where ``old``, the run.json that is there, was begun with another recipe, data or models."""
        old["models"] = {name: as_reference(path) for name, path in old.get("models", {}).items()}
        old["recipe"] = to_new_names(old["recipe"])
        content, today = old.get("content"), self.facts["content"]
        if content is not None and "images" in content:
            _take_over_image_paths(old["recipe"], self.facts["recipe"])
        if not _same_recipe(old, self.facts):
            self._refuse("recipe", old)
        if content is None:  # of a run that was begun before contents were kept: by place, or by the export's manifest
            moved = "exports" not in old and old.get("export") and old["export"] == self.facts.get("export")
            for name in () if moved else ("data", "exports"):
                if old.get(name) != self.facts.get(name):
                    self._refuse(name, old)
            if old["models"] != self.facts["models"]:
                self._refuse("models", old)
            return
        names = {what: list(dict.fromkeys((*content[what], *today[what]))) for what in ("data", "models")}
        # Of a phase that was not begun, pictures may still change; those that are absent now are not trained on now.
        begun = [entry["name"] for entry in old["phases"]]
        names["images"] = [name for name in begun if name in content.get("images", {}) and name in today["images"]]
        for what in names:
            for name in names[what]:
                before, now = content[what].get(name), today[what].get(name)
                if before != now:
                    field = f"{what}.{name}" if what == "models" or len(today[what]) > 1 else what
                    field = f"phase {name}: image_path" if what == "images" else field
                    raise RunError(
                        f"{field}: {self.folder} was begun with {self._place(old, what, name)} as its bytes were then "
                        f"({before or 'none'}), not {self._place(self.facts, what, name)} as they are now "
                        f"({now or 'none'}); put the old ones back, or take another --out"
                    )

    @staticmethod
    def _place(facts: Mapping[str, Any], what: str, name: str) -> str:
        if what == "models":
            return str(facts["models"].get(name))
        if what == "images":
            return next(str(phase["image_path"]) for phase in facts["recipe"]["phases"] if phase["name"] == name)
        return str(facts.get("exports", {}).get(name, facts["data"]))

    def _refuse(self, key: str, old: Mapping[str, Any]) -> None:
        differs = "; ".join(list(_differing(old.get(key), self.facts.get(key), key))[:3])
        what = "data" if key == "exports" else key
        raise RunError(f"{what}: {self.folder} was begun with {differs}; take another --out")

    def resize(self, recipe: TrainingRecipe, phase: Phase) -> str | None:
        """Give a phase that was begun the ``steps`` that it has now, and say what that does; ``None`` if it has them.

        Raises ``RunError`` for fewer steps than are done, and where a phase was begun from its weights: that phase would
        no longer be what the recipe says, a continuation of this one's last step.
        """
        entry = self.entry(phase)
        if entry is None or entry["steps"] == phase.steps:
            return None
        field = f"phase {phase.name}: steps={phase.steps}"
        if (done := newest_step(self.phase_folder(phase))) > phase.steps:
            raise RunError(f"{field}: {done} are done already; take {done} or more, or another --out")
        for later in recipe.phases:
            if recipe.before(later) == phase and self.entry(later) is not None:
                raise RunError(
                    f"{field}: phase {later.name} was started from its weights after {entry['steps']} steps; "
                    f"make {later.name} longer, or take another --out"
                )
        before = entry["steps"]
        rate, rate_before = (learning_rate(dataclasses.replace(phase, steps=n), done) for n in (phase.steps, before))
        entry.update(steps=phase.steps, done=False)
        return (
            f"{phase.name}: {phase.steps} steps instead of {before}; from step {done} on the learning rate is that of "
            f"{phase.steps} steps: {rate:.3g}, where it was {rate_before:.3g}"
        )

    def phase_folder(self, phase: Phase) -> Path:
        return inside.inside(self.folder, f"phases/{phase.name}")

    def entry(self, phase: Phase) -> dict[str, Any] | None:
        return next((entry for entry in self.facts["phases"] if entry["name"] == phase.name), None)

    def begin(self, phase: Phase, split: Split, reference: float, origin: str) -> dict[str, Any]:
        """Return the phase's entry, made if it has none. ``origin``: what it starts from.

        Raises ``RunError`` where the phase was begun on other clips than the export now holds."""
        entry = self.entry(phase)
        clip_ids = split.clip_ids
        clips = fingerprint([clip_ids, reference])
        if entry is not None and entry.get("clips_hash", clips) != clips:
            raise RunError(
                f"data: phase {phase.name} was begun on {entry['clips']} clips, and the export now holds "
                f"{len(clip_ids)} for it, or others; take another --out"
            )
        if entry is None:
            entry = {
                "name": phase.name,
                "task": phase.task,
                "steps": phase.steps,
                "done": False,
                "seconds": 0.0,
                "validation": [],
                "checkpoint": None,
                "samples": None,
                "size": list(phase.size),
                "frames": phase.frames,
                "fps": phase.fps,
                "trained_fps": list(phase.trained_fps),
                "from": origin,
                "clips": len(clip_ids),
                "clips_hash": clips,
                "first_clip_ids": clip_ids[:10],
                "too_short": {"clips": len(split.short), "first_clip_ids": list(split.short[:10])},
                "too_slow": {"clips": len(split.slow), "first_clip_ids": list(split.slow[:10])},
                "motion_reference": reference,
            }
            self.facts["phases"].append(entry)
            self.write()
        return entry

    def write(self) -> None:
        """Write run.json; of several processes one alone does."""
        if self.writes:
            write_json(self.path, scrub_data(self.facts))

    def refresh(self) -> None:
        """Take over what the process that writes has written."""
        if not self.writes:
            self.facts["phases"] = read_record(self.path)["phases"]


class Metrics:
    """Writes FOLDER/metrics.jsonl, and FOLDER/tensorboard where that is installed. After a resume, steps from there on are
    written again."""

    def __init__(self, folder: Path, start: int, *, writes: bool = True) -> None:
        self._file: IO[str] | None = None
        self._board: Any = None
        if not writes:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "metrics.jsonl"
        # A run that was killed may have gone past its last checkpoint, and may have left half a line.
        # What was measured after a step stands behind its checkpoint's number of steps, in a line without a loss; before the
        # first step it is measured again.
        rows = _rows(self._path)
        kept = [
            (line, row) for line, row in rows if row["step"] < start or (0 < start == row["step"] and "loss" not in row)
        ]
        write_text(self._path, "".join(line for line, _ in kept))
        appending = os.O_WRONLY | os.O_APPEND
        self._file = os.fdopen(inside.open_inside(folder, self._path.name, appending), "a", encoding="utf-8")
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._board = SummaryWriter(str(inside.make_folder(folder, "tensorboard")), purge_step=start)
        for _, row in kept:
            if row["step"] == start:
                self._show(row)

    def write(self, step: int, **values: float) -> None:
        if self._file is None:
            return
        row = {"step": step, "time": round(time.time(), 3), **values}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        if self._board is not None:
            self._show(row)

    def _show(self, row: Mapping[str, float]) -> None:
        for name, value in row.items():
            if name not in ("step", "time"):
                self._board.add_scalar(name, value, int(row["step"]))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()


def _rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return the lines of metrics.jsonl and what they hold; none where there is no file. Half a line at its end is left out.

    Raises ``Damaged`` naming the line that cannot be read.
    """
    there = os.path.lexists(path)
    lines = inside.read_bytes(path.parent, path.name, most=MOST_METRICS).splitlines(keepends=True) if there else []
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.endswith(b"\n"):
            continue
        try:
            row = read_object(line, f"{path}: line {number}", Damaged)
        except Damaged as error:
            raise Damaged(f"{error}; remove it, and the run goes on") from error
        if "step" not in row:
            raise Damaged(f"{path}: line {number} has no step; remove it, and the run goes on")
        rows.append((line.decode(), row))
    return rows
