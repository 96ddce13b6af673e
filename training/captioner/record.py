"""OUT/captioner.json: what a captioner's training was begun with, its figures, and whether it is done."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from dailies.curation import openclip
from dailies.training.captioner.measures import CaptionQuality
from dailies.training.captioner.pairs import PairSplit
from dailies.training.captioner.recipe import CaptionerRecipe
from dailies.training.captioner.starts import Start
from dailies.training.data.content import model_content, shards_content
from dailies.training.data.export import Export
from dailies.training.run_log import data_rules_of, export_record
from dailies.training.task_record import TaskRecord

FILE = "captioner.json"
SHOWN = 10  # clips that are named


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionerResult:
    """The result of finetuning: what it is worth on held-out clips before the first step and after the last.

    ``kind``: ``coca`` or ``video``, the captioner that loads ``folder``.
    """

    folder: Path
    kind: str
    steps: int
    seconds: float
    before: CaptionQuality
    after: CaptionQuality
    notes: tuple[str, ...] = ()


class CaptionerRecord(TaskRecord):
    """Keeps captioner.json; its result is the folder ``model``."""

    file: ClassVar[str] = FILE

    def __init__(
        self,
        folder: Path,
        recipe: CaptionerRecipe,
        start: Start,
        export: Export,
        split: PairSplit,
        *,
        resume: bool,
        writes: bool = True,
    ) -> None:
        contrast = start.kind == "coca" and recipe.contrast_weight > 0
        place = start.folder
        facts: dict[str, Any] = {
            "kind": start.kind,
            "recipe": recipe.meaning(contrast=contrast),
            "start": start.reference,
            "data": str(export.folder.resolve()),
            "data_rules": data_rules_of(folder, FILE),
            "content": {
                "start": openclip.weights(start.name) if place is None else model_content(place),
                "data": shards_content(export.folder),
            },
            **export_record(export),
            "clips": {
                "train": len(split.train),
                "held_out": len(split.held_out),
                "split": split.name,
                "first_clip_ids": [row.columns["clip_id"] for row in split.train[:SHOWN]],
            },
            "seconds": 0.0,
            "before": None,
            "after": None,
            "validation": [],
            "examples": [],
            "done": False,
        }
        super().__init__(folder, "model", facts, resume=resume, writes=writes)

    def quality(self, name: str) -> CaptionQuality | None:
        return None if self.facts[name] is None else CaptionQuality(**self.facts[name])

    def measured(self, step: int, quality: CaptionQuality) -> None:
        """Note what the model is worth after ``step``, and show it where that is the first or the last."""
        rows = [row for row in self.facts["validation"] if row["step"] < step]
        self.facts["validation"] = [*rows, {"step": step, **asdict(quality)}]

    def report(self, notes: tuple[str, ...]) -> CaptionerResult | None:
        """Return the result, ``None`` where the run is not done."""
        before, after = self.quality("before"), self.quality("after")
        if not self.facts["done"] or before is None or after is None:
            return None
        return CaptionerResult(
            folder=self.result,
            kind=self.facts["kind"],
            steps=self.facts["recipe"]["steps"],
            seconds=self.facts["seconds"],
            before=before,
            after=after,
            notes=notes,
        )
