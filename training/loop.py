"""``train(recipe, data, out, models)``: a recipe's phases in order, each from its start's averaged weights; and
``run_task``, the one loop behind that and behind a VAE's and a captioner's training.

The same call goes on where an earlier one was killed: weights, optimizer and step come from the newest whole
checkpoint, and every draw from (seed, position), so that losses and final weights are bit for bit those of a run that
was never killed, on the same machine with as many threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import torch

from dailies.curation import progress
from dailies.curation.errors import RunError
from dailies.curation.locking import only_writer
from dailies.training import distributed
from dailies.training.checkpoint import explain_full_disk
from dailies.training.data.prefetch import prefetch
from dailies.training.data.split import DATA_RULES, MAIN, Export, Split, load
from dailies.training.data.world import World
from dailies.training.diffusion.encoders import Encoders, Models
from dailies.training.interrupt import defer_sigint
from dailies.training.memory import explain_oom
from dailies.training.phase_state import check
from dailies.training.recipes.phase import Phase
from dailies.training.recipes.recipe import EncoderDims, TrainingRecipe
from dailies.training.run_log import Metrics, Run, check_folder, data_rules_of
from dailies.training.step import train_step
from dailies.training.task import P, Task
from dailies.training.threads import THREADS
from dailies.training.unet_task import UNetTask

Say = Callable[[str], None]
Data = str | Path | Mapping[str, str | Path]
LOCK = ".lock"
AHEAD = 2  # steps whose samples are made beforehand for an accelerator


def train(
    recipe: TrainingRecipe,
    data: Data,
    out: str | Path,
    models: Models,
    *,
    phase: str | None = None,
    resume: bool = False,
    device: str = "auto",
    say: Say = print,
) -> Run:
    """Train all phases of ``recipe``, or only the one named ``phase``, and return the run.

    A run that is in the folder already goes on, if recipe, data and models are the same. Started by torchrun or Ray Train,
    the processes share each batch. Raises ``UsageError`` before any work where recipe, data, models and folder do not
    fit, ``NotFinite`` naming the samples when a loss is not finite, and ``OutOfMemory`` naming the settings to lower.

    Args:
        data: An export's folder, or several by the names that the phases' mixes have for them.
        out: The run's folder.
        resume: Go on with a run that is there; fail if there is none.
        device: ``auto`` for CUDA where there is one, or as torch names them.
        say: Gets lines on how far it is.
    """
    check_folder(Path(out), resume)
    chosen, dims, exports, splits = prepared(recipe, data, models, phase, data_rules_of(Path(out)))
    place = distributed.pick_device(device)
    with distributed.process_group(place) as world, ExitStack() as stack:
        for each in chosen:
            check_batch(f"phase {each.name}: batch={each.batch}", each.batch - each.pictures, world)
        encoders = Encoders(models, text_tokens=recipe.text_tokens, device=place)
        encoders.load({"vae", *(each.task_spec.cross_attention for each in chosen)})
        stack.enter_context(sole_run(Path(out)))
        run = Run(out, recipe, exports, models, writes=world.rank == 0)
        say_once = say if world.rank == 0 else silent
        for each in chosen:
            if (line := run.resize(recipe, each)) is not None:
                say_once(line)
        for number, each in enumerate(chosen):
            split, entry = splits.pop(each.name), run.entry(each)
            if entry is not None and entry["done"]:
                say_once(f"{each.name}: done before, validation loss {entry['validation'][-1][1]:.4f}")
                continue
            task = UNetTask(recipe, each, split, run, dims, encoders, say_once)
            task.later = steps_after(each, [later for later in chosen[number + 1 :] if not _is_done(run, later)])
            run_task(task, place, say_once)
            run.refresh()
    return run


def _is_done(run: Run, phase: Phase) -> bool:
    entry = run.entry(phase)
    return entry is not None and bool(entry["done"])


def steps_after(phase: Phase, later: Sequence[Phase]) -> float:
    """Return the steps of ``later`` phases as that many of ``phase``: a step takes its time by the pixels that it shows."""

    def pixels(of: Phase) -> float:
        return float(of.batch * of.frames * of.size[0] * of.size[1])

    return sum(each.steps * pixels(each) for each in later) / pixels(phase)


def prepared(
    recipe: TrainingRecipe, data: Data, models: Models, phase: str | None, data_rules: int = DATA_RULES
) -> tuple[tuple[Phase, ...], EncoderDims, dict[str, Export], dict[str, Split]]:
    """Return the phases to train, what the models fix, the exports, and each phase's data.

    Raises ``UsageError`` where these do not fit each other.
    """
    chosen = recipe.phases if phase is None else (recipe.phase(phase),)
    dims = check(recipe, chosen, models)
    exports = {name: Export(path) for name, path in (data if isinstance(data, Mapping) else {MAIN: data}).items()}
    return (
        chosen,
        dims,
        exports,
        {each.name: load(recipe, each, exports, models, data_rules=data_rules) for each in chosen},
    )


def silent(line: str) -> None:
    """Print nothing: what ``say`` is in all processes but one."""


@contextmanager
def sole_run(out: Path) -> Iterator[None]:
    """Keep other runs out of the folder ``out``, which is made; raises ``RunError`` in all processes of this one."""
    problem = ""
    with ExitStack() as stack:
        if distributed.world().rank == 0:
            try:
                out.mkdir(parents=True, exist_ok=True)
                stack.enter_context(only_writer(out / LOCK, f"out={out}", RunError))
            except RunError as error:
                problem = str(error)
        if problem := "".join(distributed.all_gather((problem,))):
            raise RunError(problem)
        yield


def check_batch(field: str, samples: int, world: World) -> None:
    """Raise ``RunError``, which begins with ``field``, where a process would get none of a step's ``samples``."""
    if samples < world.size:
        share = f"{samples} for {world.size} processes"
        raise RunError(f"{field}: too few samples a step ({share}); raise it or take fewer processes")


def run_task(task: Task[P], device: torch.device, say: Say) -> None:
    """Train ``task`` to its last step: checkpoints, figures and samples on the way, its result at the end.

    Ctrl-C stops it between two steps with a checkpoint. All processes of the group must call this; ``say`` is theirs alone.
    """
    settings, world = task.settings, distributed.world()
    writes = world.rank == 0

    def seconds() -> float:
        return round(task.spent + time.monotonic() - task.begun, 2)

    def validate(done: int) -> None:
        if (figures := task.validate(done)) is not None:
            metrics.write(done, **figures)
            here = time.monotonic() - task.begun
            say(f"{task.name}: step {done}/{settings.steps}, {task.describe(figures)}, {progress.time_spent(here)}")

    def save(done: int) -> None:
        if writes:
            task.save(done, seconds())
        distributed.barrier()

    with (
        explain_full_disk(task.folder),
        closing(task),
        closing(Metrics(task.folder, task.done, writes=writes)) as metrics,
        explain_oom(task.oom_hint),
        _bar(task) as bar,
    ):
        _steps(task, device, metrics, validate, save, say, bar)
        bar.advance(0, note="sampling")
        where = task.finish(seconds()) if writes else ""
        distributed.barrier()
    say(f"{task.name}: done in {progress.time_spent(seconds())}, {where}")


def _bar(task: Task[P]) -> AbstractContextManager[progress.Bar]:
    """Open what reports on the task's steps; nothing does in all processes but one."""
    show = progress.progress_in_force() if distributed.world().rank == 0 else progress.silent
    steps = task.settings.steps - task.done
    return show(task.name, steps, "steps", already=task.done, size=steps, after=task.later)


def _steps(
    task: Task[P],
    device: torch.device,
    metrics: Metrics,
    validate: Callable[[int], None],
    save: Callable[[int], None],
    say: Say,
    bar: progress.Bar,
) -> None:
    """Take the steps that are left. Raises ``KeyboardInterrupt`` once the last step before a Ctrl-C is saved."""
    settings, done = task.settings, task.done
    if done == settings.steps:
        validate(done)  # an earlier call may have been killed just before
        return
    model: Any = distributed.ddp(task.network, device, skips_weights=task.skips_weights)
    depth = 0 if device.type == "cpu" else AHEAD
    try:
        with defer_sigint(say) as asked, closing(prefetch(task.parts, done, settings.steps, depth)) as coming:
            if done == 0:
                bar.advance(0, note="validating")
                validate(done)
            since, told = time.perf_counter(), False
            for step, parts in enumerate(coming, done):
                if (change := THREADS.look()) is not None and not told:
                    say(f"{task.name}: {change}")
                    told = True
                figures = train_step(model, task.optimizer, parts, task.losses, settings, task.title, step)
                if task.ema is not None:
                    task.ema.update(task.network, step)
                done = step + 1
                metrics.write(step, **figures, **task.rates(parts, time.perf_counter() - since))
                bar.advance(note=f"loss {figures['loss']:.3f}")
                if done % settings.validate_every == 0 or done == settings.steps:
                    bar.advance(0, note="validating")
                    validate(done)
                if settings.sample_every and done % settings.sample_every == 0 and distributed.world().rank == 0:
                    bar.advance(0, note="sampling")
                    task.save_samples(done)
                if done % settings.save_every == 0 or done == settings.steps:
                    save(done)
                if distributed.any_rank(asked()):
                    raise KeyboardInterrupt
                since = time.perf_counter()
    except KeyboardInterrupt:
        save(done)
        say(f"{task.name}: stopped; step {done} is saved")
        raise
