"""Training from exports: resolves the models that a recipe is conditioned on, and runs its phases, here or on Ray Train."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dailies.curation.errors import DailiesError, UsageError
from dailies.curation.packages import need
from dailies.pipelines import engine as engines
from dailies.pipelines.model_refs import models_of
from dailies.training.recipes.phase import MAIN
from dailies.training.recipes.recipe import Recipe

if TYPE_CHECKING:
    from dailies.training.diffusion.encoders import Models
    from dailies.training.plan import Plan

Say = Callable[[str], None]
RESTARTS = 3  # of workers that died


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
    arguments = {"phase": request.phase, "resume": resume, "device": device}
    if workers > 1:
        from dailies.training.run_log import check_folder

        check_folder(Path(out), resume)
        _on_ray(made, data, out, models, workers, arguments, say)
    else:
        from dailies.training.loop import train

        train(made, data, out, models, say=say, **arguments)  # type: ignore[arg-type]
    return reports(Path(out))


def _on_ray(
    recipe: Recipe,
    data: Mapping[str, str],
    out: str,
    models: Models,
    workers: int,
    arguments: Mapping[str, Any],
    say: Say,
) -> None:
    """``train`` in ``workers`` processes on Ray Train, a GPU for each where there are some. ``out`` must be a folder that all
    can reach. A worker that dies is started again and the run goes on from its last checkpoint."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer

    from dailies.training import distributed
    from dailies.training.loop import prepared, train

    prepared(
        recipe, data, models, arguments["phase"]
    )  # what is wrong with the request is said here, not by each worker
    folder = Path(out).resolve()
    log, failed = folder / "ray" / "said.txt", folder / "ray" / "failed.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("", encoding="utf-8")
    failed.unlink(missing_ok=True)

    def work(_: Mapping[str, Any]) -> None:
        def tell(line: str) -> None:
            with log.open("a", encoding="utf-8") as file:
                file.write(line + "\n")

        try:
            train(recipe, data, folder, models, say=tell, **{**arguments, "resume": False})
        except (ValueError, FloatingPointError) as error:  # all workers raise it together, and would again
            failed.write_text(str(error), encoding="utf-8")

    gpu = distributed.pick_device(arguments["device"]).type == "cuda"
    with engines.session("ray"), _told(log, say):
        trainer = TorchTrainer(
            work,
            train_loop_config={},
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpu),
            run_config=RunConfig(
                name="ray", storage_path=str(folder), failure_config=FailureConfig(max_failures=RESTARTS)
            ),
        )
        try:
            trainer.fit()
        except TrainingFailedError as error:
            cause = " ".join(str(error.__cause__ or error).split())
            raise DailiesError(f"training failed on {workers} workers: {cause[-500:]}") from error
    said = failed.read_text(encoding="utf-8") if failed.exists() else None
    shutil.rmtree(log.parent)
    if said is not None:
        raise FloatingPointError(said)


@contextmanager
def _told(log: Path, say: Say) -> Iterator[None]:
    """Within it, lines that a worker appends to ``log`` are said here."""
    stop = threading.Event()

    def follow() -> None:
        with log.open(encoding="utf-8") as file:
            while True:
                ended = stop.is_set()
                for line in file:
                    say(line.rstrip("\n"))
                if ended:
                    return
                stop.wait(0.5)

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    try:
        yield
    finally:
        stop.set()
        follower.join()


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
