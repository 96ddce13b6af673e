"""OUT/vae.json: what a VAE's training was begun with, its figures, and whether it is done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from dailies.training.data.content import model_content, shards_content
from dailies.training.data.export import Export
from dailies.training.run_log import data_rules_of
from dailies.training.task_record import TaskRecord
from dailies.training.vae.objective import Quality
from dailies.training.vae.recipe import VaeRecipe
from dailies.zoo.formats.references import as_reference

FILE = "vae.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class VaeResult:
    """The result of finetuning, on held-out clips.

    ``image``: the image decoder, ``None`` where the start was a temporal one. ``before``, ``after``: the temporal decoder at
    the first step and at the end; between ``image`` and ``before`` lies what inflation could not keep.
    """

    folder: Path
    steps: int
    seconds: float
    image: Quality | None
    before: Quality
    after: Quality
    notes: tuple[str, ...] = ()


class Record(TaskRecord):
    """Keeps vae.json; its result is the folder ``vae``."""

    file: ClassVar[str] = FILE

    def __init__(
        self, folder: Path, recipe: VaeRecipe, start: Path, export: Export, *, resume: bool, writes: bool = True
    ) -> None:
        facts: dict[str, Any] = {
            "recipe": recipe.meaning,
            "start": as_reference(start),
            "data": str(export.folder.resolve()),
            "data_rules": data_rules_of(folder, FILE),
            "content": {"start": model_content(start), "data": shards_content(export.folder)},
            "units": None,
            "seconds": 0.0,
            "image": None,
            "before": None,
            "after": None,
            "done": False,
        }
        super().__init__(folder, "vae", facts, resume=resume, writes=writes)

    def _check_same(self, old: dict[str, Any]) -> None:
        old["start"] = as_reference(old["start"])
        super()._check_same(old)

    def quality(self, name: str) -> Quality | None:
        return None if self.facts[name] is None else Quality(**self.facts[name])

    def report(self, notes: tuple[str, ...]) -> VaeResult | None:
        """Return the result, ``None`` where the run is not done."""
        before, after = self.quality("before"), self.quality("after")
        if not self.facts["done"] or before is None or after is None:
            return None
        return VaeResult(
            folder=self.result,
            steps=self.facts["recipe"]["steps"],
            seconds=self.facts["seconds"],
            image=self.quality("image"),
            before=before,
            after=after,
            notes=notes,
        )
