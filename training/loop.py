"""``train(recipe, data, out, models)``: the phases in order, each from its start's averaged weights.

The same call goes on where an earlier one was killed: weights, optimizer and step come from the newest whole
checkpoint, and every draw from (seed, position), so that losses and final weights are bit for bit those of a run that
was never killed, on the same machine with as many threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from dailies.curation.errors import RunError
from dailies.training import checkpoint, distributed
from dailies.training.data.batches import Batch, Batches
from dailies.training.data.prefetch import ahead
from dailies.training.data.split import MAIN, Export, Split, load
from dailies.training.data.world import World
from dailies.training.diffusion.encoders import Encoders, Models
from dailies.training.flops import StepRates
from dailies.training.interrupt import defer_sigint
from dailies.training.memory import explain_oom, oom_hint
from dailies.training.phase_state import check, init_phase, motion_reference
from dailies.training.recipes.phase import Phase
from dailies.training.recipes.recipe import Frozen, Recipe
from dailies.training.run_log import Metrics, Run, check_folder
from dailies.training.samples import save_samples
from dailies.training.step import learning_rate, train_step, validation_loss

Say = Callable[[str], None]
Data = str | Path | Mapping[str, str | Path]
AHEAD = 2  # batches made beforehand for an accelerator


def train(
    recipe: Recipe,
    data: Data,
    out: str | Path,
    models: Models,
    *,
    phase: str | None = None,
    resume: bool = False,
    device: str = "auto",
    say: Say = print,
) -> Run:
    """Train ``recipe`` on the export at ``data`` into the run folder ``out``; all phases, or only the one named.

    A run that is in the folder already goes on, if recipe, data and models are the same. ``resume``: only go on, begin nothing.
    ``data``: an export's folder, or several by the names that the phases' mixes have for them. Started by torchrun or Ray
    Train, the processes share each batch. Raises ``RunError`` before any work where recipe, data, models and folder do not
    fit, ``NotFinite`` naming the samples when a loss is not finite, and ``OutOfMemory`` naming the settings to
    lower when memory runs out.
    """
    check_folder(Path(out), resume)
    chosen, frozen, exports, splits = prepared(recipe, data, models, phase)
    place = distributed.pick_device(device)
    with distributed.process_group(place) as world:
        _enough(chosen, world)
        run = Run(out, recipe, exports, models, writes=world.rank == 0)
        encoders = Encoders(models, text_tokens=recipe.text_tokens, device=place)
        said = say if world.rank == 0 else lambda line: None
        for one in chosen:
            _train_phase(recipe, one, splits.pop(one.name), run, frozen, encoders, said)
    return run


def prepared(
    recipe: Recipe, data: Data, models: Models, phase: str | None
) -> tuple[tuple[Phase, ...], Frozen, dict[str, Export], dict[str, Split]]:
    """The phases to train, what the models fix, the exports, and each phase's data. Raises ``RunError`` where these do
    not fit."""
    chosen = recipe.phases if phase is None else (recipe.phase(phase),)
    frozen = check(recipe, chosen, models)
    exports = {name: Export(path) for name, path in (data if isinstance(data, Mapping) else {MAIN: data}).items()}
    return chosen, frozen, exports, {one.name: load(recipe, one, exports, models) for one in chosen}


def _enough(phases: tuple[Phase, ...], world: World) -> None:
    for phase in phases:
        if phase.batch - phase.pictures < world.size:
            raise RunError(f"phase {phase.name}: batch: a sample for each of {world.size} processes expected")


def _train_phase(
    recipe: Recipe, phase: Phase, split: Split, run: Run, frozen: Frozen, encoders: Encoders, say: Say
) -> None:
    entry, folder, device = run.entry(phase), run.phase_folder(phase), encoders.device
    if entry is not None and entry["done"]:
        say(f"{phase.name}: done before, validation loss {entry['validation'][-1][1]:.4f}")
        return
    begun = time.monotonic()
    for note in split.notes:
        say(f"{phase.name}: {note}")
    reference = motion_reference(split)
    state = init_phase(recipe, phase, run, frozen, reference, device, say)
    entry = run.begin(phase, split, reference, state.origin)
    entry.update(state.facts)  # a kill may have come between the checkpoint and run.json
    spent = entry["seconds"]  # by earlier calls
    done = state.done
    unet, levels = distributed.ddp(state.unet, device), len(state.unet.config.channels)
    batches = Batches(recipe, phase, split, encoders, reference)
    metrics = Metrics(folder, done, writes=run.writes)
    rates = StepRates(state.unet, phase, device, autocast=recipe.autocast, processes=distributed.world().size)
    entry["validation"] = [pair for pair in entry["validation"] if pair[0] <= done]

    def validate(done: int) -> None:
        if not any(pair[0] == done for pair in entry["validation"]):
            value, seconds = validation_loss(state.ema.model, batches, recipe, device), time.monotonic() - begun
            entry["validation"].append([done, value])
            metrics.write(done, validation_loss=value)
            say(f"{phase.name}: step {done}/{phase.steps}, validation loss {value:.4f}, {seconds:.0f} s")

    def save(done: int) -> None:
        if run.writes:
            facts = {"validation": entry["validation"], "seconds": round(spent + time.monotonic() - begun, 2)}
            weights = (state.unet, state.ema.model, state.optimizer)
            path = checkpoint.save(folder, done, *weights, keep=phase.keep, facts=facts)
            entry.update(facts, checkpoint=str(path.relative_to(run.folder)))
            run.write()
        distributed.barrier()

    def make(step: int) -> list[Batch]:
        return [batch.to(device) for batch in batches.training(step, distributed.world())]

    try:
        with explain_oom(lambda: oom_hint(phase, levels, distributed.world().size)), defer_sigint(say) as asked:
            validate(done) if done == 0 else None
            since = time.perf_counter()
            coming = ahead(make, done, phase.steps, 0 if device.type == "cpu" else AHEAD)
            for step, samples in enumerate(coming, done):
                loss = train_step(unet, state.optimizer, samples, recipe, phase, step)
                state.ema.update(state.unet, step)
                done = step + 1
                seconds = time.perf_counter() - since
                metrics.write(step, loss=loss, lr=learning_rate(phase, step), **rates(samples, seconds))
                if done % phase.validate_every == 0 or done == phase.steps:
                    validate(done)
                if phase.sample_every and done % phase.sample_every == 0 and run.writes:
                    save_samples(
                        state.ema.model, batches, recipe, folder / "samples", checkpoint.step_name(done), device
                    )
                if done % phase.save_every == 0 or done == phase.steps:
                    save(done)
                if distributed.any_rank(asked()):
                    raise KeyboardInterrupt
                since = time.perf_counter()
    except KeyboardInterrupt:
        save(done)
        say(f"{phase.name}: interrupted; step {done} is saved, the same command goes on from there")
        raise
    finally:
        metrics.close()
    if batches.failed:
        say(f"{phase.name}: {len(batches.failed)} items could not be read and were replaced")
    if run.writes:
        with explain_oom(lambda: oom_hint(phase, levels)):
            save_samples(state.ema.model, batches, recipe, folder, "samples", device)
        entry.update(done=True, seconds=round(spent + time.monotonic() - begun, 2), samples=_under(run, folder))
        run.write()
    batches.close()
    distributed.barrier()
    run.refresh()
    say(f"{phase.name}: done in {time.monotonic() - begun + spent:.0f} s, samples in {folder / 'samples.png'}")


def _under(run: Run, folder: Path) -> str:
    return str((folder / "samples.png").relative_to(run.folder))
