"""Training from exports: resolves the models that a recipe is conditioned on, and runs its phases, here or on Ray Train."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dailies.curation.errors import UsageError
from dailies.curation.packages import need
from dailies.pipelines.model_refs import models_of
from dailies.training.recipes.phase import MAIN
from dailies.training.recipes.recipe import Recipe

if TYPE_CHECKING:
    from dailies.training.plan import Plan

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseReport:
    """One phase: validation loss before the first step and after the last."""

    name: str
    task: str
    steps: int
    seconds: float
    first_loss: float
    last_loss: float
    samples: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be trained. ``recipe``: a name or ``FILE.py:FUNCTION``; ``sets``: see ``dailies.training.recipes.overrides``.
    ``data``: exports, ``EXPORT`` or ``NAME=EXPORT``. ``start``, ``parts``: see ``dailies.pipelines.model_refs``."""

    recipe: str
    sets: Sequence[str] = ()
    data: Sequence[str] = ()
    start: str | None = None
    parts: Mapping[str, str | None] = field(default_factory=dict)
    phase: str | None = None


def plan_run(request: Request, *, say: Say) -> Plan:
    """What a recipe costs, needs and lacks, over the exports if given. Raises ``UsageError`` as ``train_run``."""
    made = _recipe(request)
    need(["torch"], by="training")
    data = _exports(request.data)
    from dailies.training.data.items import Export
    from dailies.training.plan import plan

    say(f"{request.recipe}: counting operations, a few seconds a phase")
    exports = {name: Export(path) for name, path in data.items()} or None
    return plan(made, exports, models_of(made, start=request.start, **request.parts), phase=request.phase)


def train_run(
    request: Request, out: str | None, *, resume: bool = False, device: str = "auto", workers: int = 1, say: Say
) -> list[PhaseReport]:
    """Train a recipe on its exports into ``out``; goes on where an earlier call stopped. ``workers``: processes on Ray Train
    that share each batch.

    Raises ``UsageError`` when recipe, models, data and folder do not fit each other, before any work, and ``DailiesError`` when
    a loss is not finite or memory runs out.
    """
    made = _recipe(request)
    if not request.data or out is None:
        lacks = "--data EXPORT" if not request.data else "--out RUN"
        raise UsageError(
            f"training needs {lacks}; without both, dailies train RECIPE --dry-run says what it would take"
        )
    need(["torch", "diffusers", "transformers"], by="training")
    models = models_of(made, start=request.start, **request.parts)
    data = _exports(request.data)
    from dailies.training.loop import prepared, train

    folder = Path(out).resolve()  # workers have a folder of their own
    if workers > 1:
        from dailies.pipelines.workers import run_workers
        from dailies.training.run_log import check_folder

        check_folder(folder, resume)
        prepared(made, data, models, request.phase)  # what is wrong with the request is said here, not by each worker

        def work(tell: Say) -> None:
            train(made, data, folder, models, phase=request.phase, device=device, say=tell)

        run_workers(work, folder, workers, device=device, say=say)
    else:
        train(made, data, folder, models, phase=request.phase, resume=resume, device=device, say=say)
    return reports(Path(out))


def _recipe(request: Request) -> Recipe:
    from dailies.training.recipes import load_recipe

    return load_recipe(request.recipe, request.sets)


def _exports(data: Sequence[str]) -> dict[str, str]:
    """Name → folder. Raises ``UsageError`` for one that is no export, or a name given twice."""
    found: dict[str, str] = {}
    for one in data:
        name, equals, path = one.partition("=")
        if not equals or "/" in name or Path(one).exists():
            name, path = MAIN, one
        if name in found:
            raise UsageError(f"--data: {name} is given twice; further exports have names: --data NAME=EXPORT")
        if not (Path(path) / "index.parquet").is_file():
            raise UsageError(f"no export at {path}: expected a folder with index.parquet, as dailies export makes it")
        found[name] = str(Path(path).resolve())  # workers have a folder of their own
    return found


def reports(out: Path) -> list[PhaseReport]:
    """The phases of a run folder that are begun."""
    made = []
    for entry in json.loads((out / "run.json").read_text(encoding="utf-8"))["phases"]:
        validation: list[list[float]] = entry["validation"]
        if not validation:
            continue  # begun and killed before its first figure
        made.append(
            PhaseReport(
                name=entry["name"],
                task=entry["task"],
                steps=entry["steps"],
                seconds=entry["seconds"],
                first_loss=validation[0][1],
                last_loss=validation[-1][1],
                samples=str(out / str(entry["samples"])),
            )
        )
    return made
