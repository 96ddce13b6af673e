"""A run's log is what it writes for others to read: run.json, metrics.jsonl, TensorBoard, sample pictures."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from dailies.curation.atomic import new_file, write_json, write_text
from dailies.curation.errors import RecipeError, RunError
from dailies.curation.schema import fingerprint
from dailies.training.data.split import DATA_RULES, Export, Split
from dailies.training.diffusion.encoders import Models
from dailies.training.models.pixels import Pixels
from dailies.training.recipes.old_names import to_new_names
from dailies.training.recipes.phase import Phase
from dailies.training.recipes.recipe import TrainingRecipe
from dailies.zoo.formats.references import as_reference

RUN = "run.json"


def run_hash(recipe: TrainingRecipe) -> str:
    """Hash a recipe without how a step is computed and which samples are shown, so that a run which ran out of memory goes
    on in smaller parts."""
    phases = tuple(
        dataclasses.replace(phase, accumulate=1, checkpoint_levels=(), samples=1, sample_steps=1, sample_every=None)
        for phase in recipe.phases
    )
    return dataclasses.replace(recipe, phases=phases).hash


def check_folder(out: Path, resume: bool, file: str = RUN) -> None:
    """Raise ``RunError`` for what is no folder, or, to ``resume``, for a folder without the ``file`` that a run keeps."""
    if out.exists() and not out.is_dir():
        raise RunError(f"out={out}: is a file; name a folder")
    if resume and not (out / file).exists():
        raise RunError(f"out={out}: there is no run to resume; leave --resume out to start one")


def data_rules_of(out: Path, file: str = RUN) -> int:
    """Return the ``DATA_RULES`` of the run that keeps ``file`` in ``out``, today's where there is none."""
    if not (out / file).is_file():
        return DATA_RULES
    return int(json.loads((out / file).read_text(encoding="utf-8")).get("data_rules", 1))


def _differing(old: Any, new: Any, at: str = "") -> Iterator[str]:
    """Yield the fields in which two recipes differ, each with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys((*old, *new)):
            yield from _differing(old.get(name), new.get(name), f"{at}.{name}" if at else name)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (before, after) in enumerate(zip(old, new, strict=True)):
            name = before.get("name", number) if isinstance(before, dict) else number
            yield from _differing(before, after, f"{at}[{name}]")
    elif old != new:
        yield f"{at} {old!r}, not {new!r}"


def _same_recipe(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Return whether two run.json have one recipe, by its values: a hash tells 8 from 8.0, which mean the same."""
    today: str = new["recipe_hash"]
    try:
        return old["recipe_hash"] == today or run_hash(TrainingRecipe.from_json(old["recipe"])) == today
    except RecipeError:
        return False


def _export_record(export: Export) -> dict[str, Any]:
    """``export``: the object in the export's export.json. Exports made before there was one have ``export_card`` instead."""
    manifest = export.folder / "export.json"
    if manifest.is_file():
        return {"export": json.loads(manifest.read_text(encoding="utf-8"))}
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
        self.facts: dict[str, Any] = {
            "recipe": json.loads(json.dumps(dataclasses.asdict(recipe))),
            "recipe_hash": run_hash(recipe),
            "data": str(export.folder.resolve()),
            **({"exports": places} if len(places) > 1 else {}),
            "data_rules": data_rules_of(self.folder),
            **_export_record(export),
            "models": {name: as_reference(path) for name, path in dataclasses.asdict(models).items() if path},
            "phases": [],
        }
        if self.path.exists():
            old = json.loads(self.path.read_text(encoding="utf-8"))
            old["models"] = {name: as_reference(path) for name, path in old.get("models", {}).items()}
            for name, what in (("recipe_hash", "recipe"), ("data", "data"), ("exports", "data"), ("models", "models")):
                if name == "recipe_hash":
                    old["recipe"] = to_new_names(old["recipe"])
                    if _same_recipe(old, self.facts):
                        continue
                if old.get(name) != self.facts.get(name):
                    key = "recipe" if name == "recipe_hash" else name
                    differs = "; ".join(list(_differing(old.get(key), self.facts.get(key), key))[:3])
                    raise RunError(f"{what}: {self.folder} was begun with {differs}; take another --out")
            self.facts["phases"] = old["phases"]

    def phase_folder(self, phase: Phase) -> Path:
        return self.folder / "phases" / phase.name

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
            write_json(self.path, self.facts)

    def refresh(self) -> None:
        """Take over what the process that writes has written."""
        if not self.writes:
            self.facts["phases"] = json.loads(self.path.read_text(encoding="utf-8"))["phases"]


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
        lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True) if self._path.exists() else []
        # A run that was killed may have gone past its last checkpoint, and may have left half a line.
        # What was measured after a step stands behind its checkpoint's number of steps, in a line without a loss; before the
        # first step it is measured again.
        rows = [(line, json.loads(line)) for line in lines if line.endswith("\n")]
        kept = [
            (line, row) for line, row in rows if row["step"] < start or (0 < start == row["step"] and "loss" not in row)
        ]
        write_text(self._path, "".join(line for line, _ in kept))
        self._file = self._path.open("a", encoding="utf-8")
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=start)
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


def write_png(path: Path, picture: Pixels, enlarge: int = 2) -> None:
    """Write a picture for people, each pixel ``enlarge`` times."""
    from PIL import Image

    with new_file(path) as hidden:
        Image.fromarray(np.repeat(np.repeat(picture, enlarge, 0), enlarge, 1)).save(hidden)
