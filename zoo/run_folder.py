"""What a training run left behind: ``run.json`` and what it points to. Read only; no weight is loaded.

::

    RUN/run.json
        recipe          object: name, licence, text_tokens, phases [{name, sigma_max, guidance [first, last],
                        sample_steps}], and whatever else the trainer keeps there; all of it optional
        recipe_hash     of the training recipe
        data            path of the export trained on
        export_card     text of that export's README.md
        models          vae, vae_temporal, text, image: zoo:NAME for a built-in one, else its folder
        phases          [{name, task, steps, done, seconds, validation [[step, loss] …], checkpoint, samples,
                        size [w, h], frames, fps, clips, first_clip_ids}]
    RUN/phases/NAME/step-000200/{unet,unet_ema}/     a checkpoint
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dailies.curation.errors import RunError
from dailies.zoo.formats.references import as_folder

RUN = "run.json"
WEIGHTS = {"ema": "unet_ema", "last": "unet"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One phase. ``validation``: (step, loss) pairs; ``checkpoint`` and ``samples``: under the run's folder."""

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
    clips: int | None = None
    first_clip_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run. ``recipe``: as the trainer wrote it; ``models``: name → folder."""

    folder: Path
    recipe: Mapping[str, Any]
    recipe_hash: str
    data: str
    export_card: str
    models: Mapping[str, Path]
    phases: tuple[Phase, ...] = field(default=())

    @classmethod
    def read(cls, folder: str | Path) -> Run:
        """Raises ``RunError`` that names what is absent or has the wrong form."""
        folder = Path(folder).expanduser().absolute()
        path = folder / RUN
        if not path.is_file():
            raise RunError(f"{folder} is not a training run: no {RUN} in it")
        try:
            row = json.loads(path.read_text())
            return cls(
                folder=folder,
                recipe=dict(row["recipe"]),
                recipe_hash=str(row["recipe_hash"]),
                data=str(row["data"]),
                export_card=str(row.get("export_card") or ""),
                models={name: as_folder(value, folder) for name, value in row["models"].items() if value},
                phases=tuple(_phase(phase) for phase in row["phases"]),
            )
        except KeyError as error:
            raise RunError(f"{path}: {error.args[0]} is missing") from error
        except (ValueError, TypeError, AttributeError) as error:
            raise RunError(f"{path} cannot be read: {error}") from error

    def choose(self, name: str | None) -> Phase:
        """The phase ``name``, or the last one that is done. Raises ``RunError`` if there is none, or it is not."""
        states = ", ".join(f"{phase.name} ({'done' if phase.done else 'not done'})" for phase in self.phases) or "none"
        if name is not None:
            named = [phase for phase in self.phases if phase.name == name]
            if not named:
                raise RunError(f"no phase {name!r} in {self.folder}; it has: {states}")
            if not named[0].done:
                raise RunError(f"phase {name!r} of {self.folder} is not done")
            return named[0]
        done = [phase for phase in self.phases if phase.done]
        if not done:
            raise RunError(f"no phase of {self.folder} is done; it has: {states}")
        return done[-1]

    def sampling(self, phase: Phase) -> Mapping[str, Any]:
        """What the recipe says of sampling, for all and then for ``phase``; empty if it says nothing.

        Keys: ``steps``, ``guidance``, ``sigma_min``, ``sigma_max``, ``motion_bucket``, ``noise_aug`` (of the recipe's own
        ``sampling`` alone: a phase's ``noise_aug`` is a distribution to train on), and ``text_tokens``.
        """
        said = dict(self.recipe.get("sampling") or {})
        ours = self._said(phase)
        for key, theirs in (("steps", "sample_steps"), ("guidance", "guidance"), ("sigma_max", "sigma_max")):
            if ours.get(theirs) is not None:
                said[key] = ours[theirs]
        if self.recipe.get("text_tokens") is not None:
            said["text_tokens"] = self.recipe["text_tokens"]
        return said

    def objective(self, phase: Phase) -> str:
        """What ``phase`` was trained by: ``edm``, or ``flow``."""
        return str(self._said(phase).get("objective", "edm"))

    def _said(self, phase: Phase) -> Mapping[str, Any]:
        """The recipe's entry of ``phase``."""
        return next((row for row in self.recipe.get("phases") or () if row.get("name") == phase.name), {})


def _phase(row: Mapping[str, Any]) -> Phase:
    width, height = row["size"]
    return Phase(
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
        clips=row.get("clips"),
        first_clip_ids=tuple(row.get("first_clip_ids") or ()),
    )
