"""What a run of a single task was begun with, its figures, and whether it is done: one JSON file in the run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from dailies.curation.addresses import scrub_data
from dailies.curation.atomic import write_json
from dailies.curation.errors import RunError
from dailies.training.checkpoint import newest_step
from dailies.training.run_log import check_folder, read_record

CHECKPOINTS = "checkpoints"
LENGTH = ("steps", "validate_every")  # of the recipe, which may differ when the run goes on
BEGUN = ("recipe", "start", "data", "content")


class TaskRecord:
    """Keeps a task's record, written whole after each change; of several processes one alone ``writes``.

    ``facts``: what the file holds, with ``recipe``, ``start``, ``data``, what the two hold as ``content``, ``after`` (the
    last figures) and ``done`` among them. ``result``: the folder of what the task makes.

    Raises ``RunError`` where the folder was begun with another recipe, start or export, and, to ``resume``, where nothing was
    begun in it.
    """

    file: ClassVar[str]

    def __init__(self, folder: Path, result: str, facts: dict[str, Any], *, resume: bool, writes: bool = True) -> None:
        check_folder(folder, resume, self.file)
        self.folder, self.path, self.result, self.writes = folder, folder / self.file, folder / result, writes
        self.facts = facts
        if not self.path.exists():
            return
        old = read_record(self.path)
        self._check_same(old)
        steps, recipe = old["recipe"]["steps"], facts["recipe"]
        old |= {name: facts[name] for name in BEGUN}
        if recipe["steps"] != steps:
            if (done := newest_step(folder / CHECKPOINTS)) > recipe["steps"]:
                raise RunError(
                    f"steps={recipe['steps']}: {done} are done already; take {done} or more, or another --out"
                )
            old |= {"after": None, "done": False}
        self.facts = old

    def _check_same(self, old: dict[str, Any]) -> None:
        """Raise ``RunError`` where ``old``, the record that is there, was begun with another recipe, start or export.

        Runs that were begun before contents were kept are told by place.
        """
        ours, theirs = (
            {name: value for name, value in row["recipe"].items() if name not in LENGTH} for row in (self.facts, old)
        )
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
