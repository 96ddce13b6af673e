"""OUT/vae.json: what a VAE's training was begun with, its figures, and whether it is done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dailies.curation.addresses import scrub_data
from dailies.curation.atomic import write_json
from dailies.curation.errors import RunError
from dailies.training.checkpoint import newest_step
from dailies.training.data.content import model_content, shards_content
from dailies.training.data.export import Export
from dailies.training.run_log import check_folder, data_rules_of, read_record
from dailies.training.vae.objective import Quality
from dailies.training.vae.recipe import VaeRecipe
from dailies.zoo.formats.references import as_reference

FILE = "vae.json"
CHECKPOINTS = "checkpoints"
LENGTH = ("steps", "validate_every")  # of the recipe, which may differ when the run goes on


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


class Record:
    """Keeps vae.json, written whole after each change; of several processes one alone ``writes``.

    Raises ``RunError`` where the folder was begun with another recipe, start or export, and, to ``resume``, where nothing was
    begun in it.
    """

    def __init__(
        self, folder: Path, recipe: VaeRecipe, start: Path, export: Export, *, resume: bool, writes: bool = True
    ) -> None:
        check_folder(folder, resume, FILE)
        self.folder, self.path, self.result, self.writes = folder, folder / FILE, folder / "vae", writes
        self.facts: dict[str, Any] = {
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
        if not self.path.exists():
            return
        old = read_record(self.path)
        self._check_same(old)
        steps = old["recipe"]["steps"]
        old |= {name: self.facts[name] for name in ("recipe", "start", "data", "content")}
        if recipe.steps != steps:
            if (done := newest_step(folder / CHECKPOINTS)) > recipe.steps:
                raise RunError(f"steps={recipe.steps}: {done} are done already; take {done} or more, or another --out")
            old |= {"after": None, "done": False}
        self.facts = old

    def _check_same(self, old: dict[str, Any]) -> None:
        """Raise ``RunError`` where ``old``, the vae.json that is there, was begun with another recipe, start or export.

        Runs that were begun before contents were kept are told by place.
        """
        ours, theirs = (
            {name: value for name, value in row["recipe"].items() if name not in LENGTH} for row in (self.facts, old)
        )
        old["start"] = as_reference(old["start"])
        if ours != theirs:
            raise RunError(f"recipe={ours}: {self.folder} was begun with {theirs}; take another --out")
        told, now_told = (old["content"], self.facts["content"]) if "content" in old else (old, self.facts)
        for name in ("start", "data"):
            before, now = told[name], now_told[name]
            if before != now:
                raise RunError(
                    f"{name}={self.facts[name]}: {self.folder} was begun with {old[name]}, whose content was another "
                    f"({before}, not {now}); take another --out"
                )

    def write(self) -> None:
        if self.writes:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.path, scrub_data(self.facts))

    def refresh(self) -> None:
        """Take over what the process that writes has written."""
        if not self.writes:
            self.facts = read_record(self.path)

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
