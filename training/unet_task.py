"""A phase of a video model as a task of the loop: its UNet, the average of its weights, and batches of latents."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from dailies.curation import inside
from dailies.curation.errors import ExportError
from dailies.training import checkpoint, distributed
from dailies.training.data.batches import Batch, Batches
from dailies.training.data.split import Split
from dailies.training.diffusion import objective
from dailies.training.diffusion.encoders import Encoders
from dailies.training.diffusion.sample import bind_condition
from dailies.training.ema import Ema
from dailies.training.flops import StepRates
from dailies.training.memory import oom_hint
from dailies.training.models import VideoUNet
from dailies.training.phase_state import init_phase, motion_reference
from dailies.training.recipes.phase import Phase
from dailies.training.recipes.recipe import EncoderDims, TrainingRecipe
from dailies.training.run_log import Run
from dailies.training.samples import save_samples
from dailies.training.task import Task
from dailies.training.threads import THREADS

NAMED = 3  # items that could not be read, in the line that counts them


class UNetTask(Task[Batch]):
    """Trains ``phase``, as its newest checkpoint in ``run`` left it or at its beginning."""

    settings: Phase
    network: VideoUNet
    ema: Ema

    def __init__(
        self,
        recipe: TrainingRecipe,
        phase: Phase,
        split: Split,
        run: Run,
        dims: EncoderDims,
        encoders: Encoders,
        say: Callable[[str], None],
    ) -> None:
        self.begun = time.monotonic()
        self.recipe, self.run, self.device, self._say = recipe, run, encoders.device, say
        self.name, self.title, self.settings = phase.name, f"phase {phase.name}", phase
        self.folder = run.phase_folder(phase)
        for note in split.notes:
            say(f"{phase.name}: {note}")
        reference = motion_reference(split)
        state = init_phase(recipe, phase, run, dims, reference, self.device, say)
        self.network, self.ema, self.optimizer, self.done = state.unet, state.ema, state.optimizer, state.done
        self.entry = run.begin(phase, split, reference, state.origin)
        self.entry.update(state.facts)  # a kill may have come between the checkpoint and run.json
        self.entry["validation"] = [pair for pair in self.entry["validation"] if pair[0] <= self.done]
        self.spent = float(self.entry["seconds"])
        self._processes = distributed.world().size
        self._rates = StepRates(state.unet, phase, self.device, autocast=recipe.autocast, processes=self._processes)
        self.batches = Batches(recipe, phase, split, encoders, reference)
        try:
            self.batches.check_readable()
        except ExportError:
            self.batches.close()
            raise

    def parts(self, step: int) -> list[Batch]:
        batches = self.batches.training(step, distributed.world())
        return [part.to(self.device) for batch in batches for part in split_batch(batch, at_once(self.settings))]

    def losses(self, model: Any, part: Batch) -> dict[str, Tensor]:
        return {"loss": batch_loss(model, part, self.recipe, self.settings)}

    def rates(self, parts: Sequence[Batch], seconds: float) -> dict[str, float]:
        return self._rates(parts, seconds)

    def validate(self, step: int) -> dict[str, float] | None:
        if any(pair[0] == step for pair in self.entry["validation"]):
            return None
        value = validation_loss(self.ema.model, self.batches, self.recipe, self.device)
        self.entry["validation"].append([step, value])
        return {"validation_loss": value}

    def describe(self, figures: dict[str, float]) -> str:
        return f"validation loss {figures['validation_loss']:.4f}"

    def save_samples(self, step: int) -> None:
        self._save_samples("samples", checkpoint.step_name(step))

    def _save_samples(self, *place: str) -> None:
        folder = inside.make_folder(
            self.run.folder, str(self.folder.joinpath(*place[:-1]).relative_to(self.run.folder))
        )
        save_samples(self.ema.model, self.batches, self.recipe, folder, place[-1], self.device)

    def save(self, step: int, seconds: float) -> None:
        facts = {"validation": self.entry["validation"], "seconds": seconds}
        path = checkpoint.save(
            self.folder,
            step,
            lambda folder: checkpoint.write_unet(folder, self.network, self.ema.model),
            self.optimizer,
            keep=self.settings.keep,
            facts=facts,
        )
        self.entry.update(facts, checkpoint=str(path.relative_to(self.run.folder)))
        self.run.write()

    def finish(self, seconds: float) -> str:
        self._save_samples("samples")
        samples = self.folder / "samples.png"
        failed = self.batches.failed
        self.entry["unreadable"] = {"items": len(failed), "first": dict(list(failed.items())[:10])}
        self.entry.update(done=True, seconds=seconds, samples=str(samples.relative_to(self.run.folder)))
        self.run.write()
        return f"samples in {samples}"

    def oom_hint(self) -> str:
        return oom_hint(self.settings, len(self.network.config.channels), self._processes)

    def close(self) -> None:
        if failed := self.batches.failed:
            named = "; ".join(f"{clip_id}: {reason}" for clip_id, reason in list(failed.items())[:NAMED])
            more = "; …" if len(failed) > NAMED else ""
            self._say(f"{self.name}: {len(failed)} items could not be read and were replaced: {named}{more}")
        self.batches.close()


def batch_loss(unet: Any, batch: Batch, recipe: TrainingRecipe, phase: Phase) -> Tensor:
    """Compute the phase's objective per sample: (B,)."""
    with torch.autocast(batch.clean.device.type, torch.bfloat16, enabled=recipe.autocast):
        return objective.of_phase(phase).loss(
            bind_condition(unet, batch.condition), batch.clean, batch.noise, batch.sigma
        )


def at_once(phase: Phase) -> int:
    """Return how many samples a process computes at a time."""
    return max(1, phase.batch // phase.accumulate // distributed.world().size)


def split_batch(batch: Batch, most: int) -> Iterator[Batch]:
    """Split a batch into parts of at most ``most`` samples, in their order."""
    for start in range(0, len(batch.clip_ids), most):
        yield batch.rows(start, min(start + most, len(batch.clip_ids)))


@torch.no_grad()
def validation_loss(unet: Any, batches: Batches, recipe: TrainingRecipe, device: torch.device) -> float:
    """Average the objective over the phase's fixed validation samples, noise and noise levels; nothing is dropped."""
    unet.eval()
    phase = batches.phase
    summed = torch.zeros(2, dtype=torch.float64, device=device)  # of losses, and of samples
    for sigma in phase.validation_sigmas:
        for batch in batches.validation(sigma, at_once(phase), distributed.world()):
            THREADS.look()
            loss = batch_loss(unet, batch.to(device), recipe, phase)
            summed += torch.stack([loss.double().sum(), loss.new_tensor(len(loss)).double()])
    losses, samples = distributed.all_reduce(summed).tolist()
    return float(losses / samples)
