"""Training from an export: resolves the models that a recipe is conditioned on, and runs its phases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from curation.errors import UsageError
from training.recipe import load_recipe
from zoo.catalog import resolve


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


def train_run(
    recipe: str, data: str, out: str, *, phase: str | None, resume: bool, say: Callable[[str], None]
) -> list[PhaseReport]:
    """Train ``recipe`` on the export at ``data`` into ``out``; goes on where an earlier call stopped.

    Raises ``UsageError`` when recipe, data and folder do not fit each other, before any work.
    """
    if missing := [name for name in ("torch", "diffusers", "transformers") if find_spec(name) is None]:
        raise UsageError(f"training needs {missing[0]}: install dailies[models,train]")
    from training.conditioning import Models
    from training.loop import train

    models = Models(
        vae=str(resolve("zoo:vae-world")),
        vae_temporal=str(resolve("zoo:vae-world-temporal")),
        text=str(resolve("zoo:clip-world")),
        image=str(resolve("zoo:clip-world")),
    )
    if not (Path(data) / "index.parquet").is_file():
        raise UsageError(f"no export at {data}: expected a folder with index.parquet, as dailies export makes it")
    try:
        made = load_recipe(recipe)
        run = train(made, data, out, models, phase=phase, resume=resume, say=say)
    except ValueError as error:
        raise UsageError(" ".join(str(error).split())) from error
    return reports(run.facts["phases"], Path(out))


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
