"""Training from an export: resolves the models that a recipe is conditioned on, and runs its phases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from curation.errors import DailiesError, UsageError
from training.recipe import Recipe, load_recipe
from zoo.catalog import resolve

if TYPE_CHECKING:
    from training.plan import Plan


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


def plan_run(recipe: str, data: str | None, *, phase: str | None, say: Callable[[str], None]) -> Plan:
    """What ``recipe`` costs, needs and lacks, over the export at ``data`` if given. Raises ``UsageError`` as
    ``train_run``."""
    made = _recipe(recipe)
    _need("torch")
    if data is not None:
        _need_export(data)
    from training.data import Export
    from training.plan import plan

    say(f"{recipe}: counting operations, a few seconds a phase")
    try:
        return plan(made, None if data is None else Export(data), phase=phase)
    except ValueError as error:
        raise UsageError(" ".join(str(error).split())) from error


def train_run(
    recipe: str, data: str | None, out: str | None, *, phase: str | None, resume: bool, say: Callable[[str], None]
) -> list[PhaseReport]:
    """Train ``recipe`` on the export at ``data`` into ``out``; goes on where an earlier call stopped.

    Raises ``UsageError`` when recipe, data and folder do not fit each other, before any work, and ``DailiesError`` when
    a loss is not finite or memory runs out.
    """
    made = _recipe(recipe)
    if lacking := made.frozen.missing:
        raise UsageError(
            f"{recipe} cannot be trained yet, for these weights cannot be given: {', '.join(lacking)}; "
            f"what it takes: dailies train {recipe} --dry-run"
        )
    if data is None or out is None:
        raise UsageError(f"training needs {'--data EXPORT' if data is None else '--out RUN'}; --dry-run needs neither")
    _need("torch", "diffusers", "transformers")
    from training.conditioning import Models
    from training.loop import train

    models = Models(
        vae=str(resolve("zoo:vae-world")),
        vae_temporal=str(resolve("zoo:vae-world-temporal")),
        text=str(resolve("zoo:clip-world")),
        image=str(resolve("zoo:clip-world")),
    )
    _need_export(data)
    try:
        run = train(made, data, out, models, phase=phase, resume=resume, say=say)
    except ValueError as error:
        raise UsageError(" ".join(str(error).split())) from error
    except (FloatingPointError, MemoryError) as error:
        raise DailiesError(" ".join(str(error).split())) from error
    return reports(run.facts["phases"], Path(out))


def _recipe(name: str) -> Recipe:
    try:
        return load_recipe(name)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _need(*libraries: str) -> None:
    if missing := [name for name in libraries if find_spec(name) is None]:
        raise UsageError(f"training needs {missing[0]}: install dailies[models,train]")


def _need_export(data: str) -> None:
    if not (Path(data) / "index.parquet").is_file():
        raise UsageError(f"no export at {data}: expected a folder with index.parquet, as dailies export makes it")


def reports(phases: Sequence[dict[str, object]], out: Path) -> list[PhaseReport]:
    made = []
    for entry in phases:
        validation: list[list[float]] = entry["validation"]  # type: ignore[assignment]
        made.append(
            PhaseReport(
                name=str(entry["name"]),
                task=str(entry["task"]),
                steps=int(entry["steps"]),  # type: ignore[call-overload]
                seconds=float(entry["seconds"]),  # type: ignore[arg-type]
                first_loss=validation[0][1],
                last_loss=validation[-1][1],
                samples=str(out / str(entry["samples"])),
            )
        )
    return made
