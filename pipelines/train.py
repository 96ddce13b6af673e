"""``dailies train RECIPE``: finds the models that a recipe needs, and trains its phases, here or on Ray Train."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dailies.curation import inside
from dailies.curation.config import read_object
from dailies.curation.errors import Damaged, ExportError, UsageError
from dailies.curation.folders import what_lies_at
from dailies.curation.packages import DIFFUSION, need
from dailies.pipelines.captions import check_captions, missing_captions
from dailies.pipelines.model_refs import models_of
from dailies.training.recipes.phase import MAIN, Phase
from dailies.training.recipes.recipe import TrainingRecipe

if TYPE_CHECKING:
    from dailies.training.plan import Plan

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseReport:
    """Says what one phase came to: validation loss before the first step and after the last."""

    name: str
    task: str
    steps: int
    seconds: float
    first_loss: float
    last_loss: float
    samples: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Says what is to be trained.

    ``recipe``: a name, ``FILE.py:FUNCTION``, or a ``TrainingRecipe``; ``sets``: see ``dailies.training.recipes.overrides``.
    ``data``: exports, ``EXPORT`` or ``NAME=EXPORT``, as ``dailies.curation.tables.find_export`` takes them. ``start``,
    ``parts``: see ``dailies.pipelines.model_refs``.
    """

    recipe: str | TrainingRecipe
    sets: Sequence[str] = ()
    data: Sequence[str] = ()
    start: str | None = None
    parts: Mapping[str, str | None] = field(default_factory=dict)
    phase: str | None = None


def plan_run(request: Request, *, say: Say) -> Plan:
    """Say what a recipe costs, needs and lacks, over the exports if given. Raises ``UsageError`` as ``train_run``."""
    recipe = _recipe(request)
    _check_installed(recipe)
    data = _exports(request.data)
    missing = missing_captions(recipe, _chosen(recipe, request), data)
    from dailies.training.data.export import Export
    from dailies.training.plan import plan

    say(f"{recipe.name}: counting operations, a few seconds a phase")
    exports = {name: Export(path) for name, path in data.items()} or None
    planned = plan(recipe, exports, models_of(recipe, start=request.start, **request.parts), phase=request.phase)
    return replace(planned, lacks=(*planned.lacks, *missing))


def train_run(
    request: Request, out: str | None, *, resume: bool = False, device: str = "auto", workers: int = 1, say: Say
) -> list[PhaseReport]:
    """Train a recipe on its exports into ``out``, and go on where an earlier call stopped.

    ``workers``: processes on Ray Train that share each batch.

    Raises ``UsageError`` when recipe, models, data and folder do not fit each other, before any work, and ``DailiesError`` when
    a loss is not finite or memory runs out.
    """
    recipe = _recipe(request)
    if not request.data or out is None:
        lacks = "--data EXPORT" if not request.data else "--out RUN"
        raise UsageError(
            f"training needs {lacks}; without both, dailies train RECIPE --dry-run says what it would take"
        )
    _check_installed(recipe)
    data = _exports(request.data)
    check_captions(recipe, _chosen(recipe, request), data)
    models = models_of(recipe, start=request.start, **request.parts)
    from dailies.training.loop import prepared, train

    folder = Path(out).resolve()  # workers have a folder of their own
    if workers > 1:
        from dailies.pipelines.workers import run_workers
        from dailies.training.run_log import check_folder, data_rules_of

        check_folder(folder, resume)
        # What is wrong with the request is said here, not by each worker.
        prepared(recipe, data, models, request.phase, data_rules_of(folder))

        def work(tell: Say) -> None:
            train(recipe, data, folder, models, phase=request.phase, device=device, say=tell)

        run_workers(work, folder, workers, device=device, say=say)
    else:
        train(recipe, data, folder, models, phase=request.phase, resume=resume, device=device, say=say)
    return reports(Path(out))


def _recipe(request: Request) -> TrainingRecipe:
    from dailies.training.recipes import load_recipe, override

    if isinstance(request.recipe, str):
        return load_recipe(request.recipe, request.sets)
    return override(request.recipe, request.sets)


def _no_export(folder: Path) -> str:
    """Say what lies where an export was looked for, and what to give."""
    what = what_lies_at(folder)
    if what == "nothing":
        return "no such folder; give one that dailies export made"
    return f"{f'{what}; it ' if what else ''}holds no index.parquet; give a folder that dailies export made"


def _chosen(recipe: TrainingRecipe, request: Request) -> tuple[Phase, ...]:
    return recipe.phases if request.phase is None else (recipe.phase(request.phase),)


def _check_installed(recipe: TrainingRecipe) -> None:
    """Raise ``NotInstalled`` for a package that the recipe's training needs."""
    need([*DIFFUSION, *["peft"] * any(phase.lora for phase in recipe.phases)], by=f"training {recipe.name}")


def _exports(data: Sequence[str]) -> dict[str, str]:
    """Return name → folder, of exports named as ``find_export`` takes them.

    Raises ``ExportError`` for a folder that is no export, and for a name given twice.
    """
    folders: dict[str, str] = {}
    for text in data:
        name, equals, path = text.partition("=")
        if not equals or "/" in name or Path(text).exists():
            name, path = MAIN, text
        if name in folders:
            raise ExportError(f"--data={text}: {name} is given twice; name further exports: --data NAME=EXPORT")
        from dailies.curation.tables import find_export  # with Delta Lake, which a misspelled field has no need of

        path = find_export(path)
        if not (Path(path) / "index.parquet").is_file():
            raise ExportError(f"--data={path}: {_no_export(Path(path))}")
        folders[name] = str(Path(path).resolve())  # workers have a folder of their own
    return folders


def reports(out: Path) -> list[PhaseReport]:
    """Return the phases of a run folder that are begun."""
    begun = []
    for entry in read_object(inside.read_bytes(out, "run.json"), f"{out}/run.json", Damaged)["phases"]:
        validation: list[list[float]] = entry["validation"]
        if not validation:
            continue  # begun and killed before its first figure
        begun.append(
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
    return begun
