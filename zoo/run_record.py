"""A run's record is what training left behind: ``run.json`` and what it points to. Read only; no weight is loaded.

::

    RUN/run.json
        recipe          object: name, licence, text_tokens, phases [{name, sigma_max, guidance [first, last],
                        sample_steps}], and whatever else the trainer keeps there; all of it optional
        recipe_hash     of the training recipe
        data            path of the export trained on
        export          object: that export's ``export.json``; runs made before exports had one hold ``export_card``
                        instead, the text of the export's README.md
        models          vae, vae_temporal, text, image: zoo:NAME for a built-in one, else its folder
        phases          [{name, task, steps, done, seconds, validation [[step, loss] …], checkpoint, samples,
                        size [w, h], frames, fps, trained_fps, clips, first_clip_ids}]
    RUN/phases/NAME/step-000200/{unet,unet_ema}/     a checkpoint
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dailies.curation import inside
from dailies.curation.config import did_you_mean, read_object
from dailies.curation.errors import RunError
from dailies.curation.folders import what_lies_at
from dailies.zoo.formats.references import as_folder
from dailies.zoo.provenance import SourceExport

RUN = "run.json"
WEIGHTS = {"ema": "unet_ema", "last": "unet"}
_NAME = re.compile(r"[\w-]+")  # as recipes have it: names become parts of paths


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseRecord:
    """One phase of a run.

    Args:
        seconds: spent training.
        validation: (step, loss) pairs.
        checkpoint, samples: under the run's folder.
        size: (width, height) in px.
        trained_fps: the rates that it was trained at, 1/s; empty where it is not known.
    """

    name: str
    task: str
    steps: int
    done: bool
    seconds: float | None = None
    validation: tuple[tuple[int, float], ...] = ()
    checkpoint: str | None = None
    samples: str | None = None
    size: tuple[int, int]
    frames: int = 1
    fps: float | None = None
    trained_fps: tuple[float, ...] = ()
    clips: int | None = None
    first_clip_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run. ``recipe``: as the trainer wrote it; ``models``: name → folder."""

    folder: Path
    recipe: Mapping[str, Any]
    recipe_hash: str
    data: str
    export: SourceExport
    models: Mapping[str, Path]
    phases: tuple[PhaseRecord, ...] = field(default=())

    @classmethod
    def read(cls, folder: str | Path) -> RunRecord:
        """Read the record of a run. Raises ``RunError`` that names what is absent or has the wrong form."""
        folder = Path(folder).expanduser().absolute()
        path = folder / RUN
        if not os.path.lexists(path):
            there = f"it is {what}" if (what := what_lies_at(folder)) else f"it has no {RUN}"
            raise RunError(f"{folder} is not a training run: {there}; give the folder that dailies train --out made")
        try:
            row = read_object(inside.read_bytes(folder, RUN), f"{path}:", RunError)
            return cls(
                folder=folder,
                recipe=dict(row["recipe"]),
                recipe_hash=str(row["recipe_hash"]),
                data=str(row["data"]),
                export=SourceExport.of_run(row),
                models={name: as_folder(value, folder) for name, value in row["models"].items() if value},
                phases=tuple(_phase(phase) for phase in row["phases"]),
            )
        except KeyError as error:
            raise RunError(f"{path}: {error.args[0]} is missing") from error
        except (ValueError, TypeError, AttributeError) as error:
            raise RunError(f"{path} cannot be read: {error}") from error

    def choose(self, name: str | None) -> PhaseRecord:
        """Return the phase ``name``, or the last one that is done. Raises ``RunError`` if it is not done."""
        states = ", ".join(f"{phase.name} ({'done' if phase.done else 'not done'})" for phase in self.phases) or "none"
        if name is not None:
            named = [phase for phase in self.phases if phase.name == name]
            if not named:
                near = did_you_mean(name, [phase.name for phase in self.phases])
                raise RunError(f"phase={name!r}: not in {self.folder}; it has: {states}{near}")
            if not named[0].done:
                raise RunError(f"phase={name!r}: {self.folder} is not done with it; resume the run")
            return named[0]
        done = [phase for phase in self.phases if phase.done]
        if not done:
            raise RunError(f"no phase of {self.folder} is done; it has: {states}")
        return done[-1]

    def file(self, name: str) -> Path:
        """Return where something lies that the record names. Raises ``Unsafe`` where that is not in the run's folder."""
        return inside.inside(self.folder, name)

    def sampling(self, phase: PhaseRecord) -> Mapping[str, Any]:
        """Return what the recipe says of sampling, for all and then for ``phase``; empty if it says nothing.

        Keys: ``steps``, ``guidance``, ``sigma_min``, ``sigma_max``, ``motion_bucket``, ``noise_aug`` (of the recipe's own
        ``sampling`` alone: a phase's ``noise_aug`` is a distribution to train on), and ``text_tokens``.
        """
        options = dict(self.recipe.get("sampling") or {})
        of_phase = self._of_recipe(phase)
        for key, name in (("steps", "sample_steps"), ("guidance", "guidance"), ("sigma_max", "sigma_max")):
            if of_phase.get(name) is not None:
                options[key] = of_phase[name]
        if self.recipe.get("text_tokens") is not None:
            options["text_tokens"] = self.recipe["text_tokens"]
        return options

    def objective(self, phase: PhaseRecord) -> str:
        """Return what ``phase`` was trained by: ``edm``, or ``flow``."""
        return str(self._of_recipe(phase).get("objective", "edm"))

    def _of_recipe(self, phase: PhaseRecord) -> Mapping[str, Any]:
        """Return the recipe's entry of ``phase``."""
        return next((row for row in self.recipe.get("phases") or () if row.get("name") == phase.name), {})


def _phase(row: Mapping[str, Any]) -> PhaseRecord:
    width, height = row["size"]
    if not _NAME.fullmatch(str(row["name"])):
        raise ValueError(f"phase {row['name']!r} has no name that a recipe allows")
    return PhaseRecord(
        name=str(row["name"]),
        task=str(row["task"]),
        steps=int(row["steps"]),
        done=bool(row["done"]),
        seconds=row.get("seconds"),
        validation=tuple((int(step), float(loss)) for step, loss in row.get("validation") or ()),
        checkpoint=row.get("checkpoint"),
        samples=row.get("samples"),
        size=(int(width), int(height)),
        frames=int(row.get("frames") or 1),
        fps=row.get("fps"),
        trained_fps=tuple(row.get("trained_fps") or ()),
        clips=row.get("clips"),
        first_clip_ids=tuple(row.get("first_clip_ids") or ()),
    )
