"""The decoder of a temporal VAE as a task of the loop, and ``train_vae(start, export, out)``, which trains it.

::

    OUT/vae.json                            recipe, start, data, figures; "done" once vae/ is whole
    OUT/metrics.jsonl  OUT/tensorboard/     losses of each step; figures where they were measured after it
    OUT/checkpoints/step-000500/vae/        diffusers folder, safetensors, float32
    OUT/checkpoints/step-000500/state.pt    optimizer, step, figures
    OUT/samples.png  OUT/samples/           held-out windows: the truth, and what the decoder makes of their latents below it
    OUT/vae/                                the result: a diffusers folder of AutoencoderKLTemporalDecoder

Every draw follows from (seed, position), so that a run which was killed ends with the weights of one that was not, bit
for bit, on the same machine with as many threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dailies.curation import inside
from dailies.curation.atomic import new_folder, remove_unfinished
from dailies.curation.contact_sheet import Strip, save_sheet, spread
from dailies.curation.errors import ModelError
from dailies.curation.plain_text import counted
from dailies.training import checkpoint, distributed
from dailies.training.data.export import Export
from dailies.training.loop import check_batch, run_task, silent, sole_run
from dailies.training.memory import explain_oom
from dailies.training.models.pixels import to_pixels, to_tensor
from dailies.training.models.vae.inflate import inflate
from dailies.training.models.vae.io import load_temporal, load_vae, save_whole, vae_config
from dailies.training.run_log import data_rules_of
from dailies.training.task import Task
from dailies.training.task_record import CHECKPOINTS
from dailies.training.vae.objective import (
    Quality,
    encode,
    encode_held_out,
    losses,
    quality,
    trainable_params,
    units,
)
from dailies.training.vae.recipe import VaeRecipe
from dailies.training.vae.record import FILE, Record, VaeResult
from dailies.training.vae.windows import Window, Windows, split

Say = Callable[[str], None]
CLASSES = ("AutoencoderKL", "AutoencoderKLTemporalDecoder")
PARTS = ("vae",)  # the folder of weights in a checkpoint
SAMPLES = 4  # held-out windows that samples show
FRAMES = 8  # of each


def train_vae(
    start: str | Path,
    export: Export,
    out: str | Path,
    *,
    recipe: VaeRecipe | None = None,
    device: str = "auto",
    resume: bool = False,
    say: Say = print,
) -> VaeResult:
    """Finetune the temporal decoder of the VAE in folder ``start`` on clips of ``export`` into ``OUT/vae``.

    A run that is in ``out`` already goes on. Started by torchrun or Ray Train, the processes share each batch. Raises
    ``UsageError`` before any work where these do not fit each other, ``NotFinite`` naming the clips when a loss is not
    finite, and ``OutOfMemory`` naming the settings to lower.

    Args:
        start: An ``AutoencoderKL``, whose decoder is inflated, or an ``AutoencoderKLTemporalDecoder``. The encoder stays
            as it is.
        device: ``auto`` for CUDA where there is one, or as torch names them.
        resume: Go on with a run that is there; fail if there is none.
        say: Gets lines on how far it is.
    """
    recipe = recipe or VaeRecipe()
    place = distributed.pick_device(device)
    check_start(start, recipe)
    train, held_out, notes = split(export, recipe, data_rules_of(Path(out), FILE))
    with distributed.process_group(place) as world, sole_run(Path(out)):
        check_batch(f"batch={recipe.batch}", recipe.batch, world)
        say_once = say if world.rank == 0 else silent
        record = Record(Path(out), recipe, Path(start), export, resume=resume, writes=world.rank == 0)
        distributed.barrier()  # all have read vae.json before one writes it
        if (known := record.report(notes)) is not None:
            say_once(f"vae: done before: {known.folder}")
            return known
        for note in notes:
            say_once(f"vae: {note}")
        with explain_oom(lambda: oom_hint(recipe)):
            task = VaeTask(Path(start), recipe, record, train, held_out, place, say_once)
        run_task(task, place, say_once)
        record.refresh()
    report = record.report(notes)
    assert report is not None
    return report


def check_start(start: str | Path, recipe: VaeRecipe) -> None:
    """Raise ``ModelError`` where ``start`` holds no VAE to start from, or none that takes the recipe's size."""
    _, config = vae_config(start)
    if config.get("_class_name") not in CLASSES:
        raise ModelError(f"start={start}: holds {config.get('_class_name')}; give a VAE, {' or '.join(CLASSES)}")
    factor = 2 ** (len(config["block_out_channels"]) - 1)
    if any(side % factor for side in recipe.size):
        raise ModelError(f"size={recipe.size}: this VAE takes multiples of {factor} px, its px per latent")


def oom_hint(recipe: VaeRecipe) -> str:
    """Say what to lower when memory runs out, what costs least first."""
    width, height = recipe.size
    free = "" if recipe.checkpointing else "checkpointing=True: slower, same results, and the run goes on. Then "
    return (
        f"vae: out of memory at one window of {recipe.frames} frames of {width}×{height} px. Try {free}"
        "fewer frames or a smaller size: another recipe, so another run"
    )


class WindowDecoder(nn.Module):
    """Decodes one window's latents (T, C, h, w) into frames (T, 3, H, W) in [−1, 1]; what gradients are averaged over."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latents: Tensor) -> Tensor:
        frames: Tensor = self.vae.decode(latents, num_frames=len(latents)).sample
        return frames


class VaeTask(Task[Window]):
    """Trains the temporal decoder of ``start``, as the newest checkpoint left it or at its beginning."""

    name = title = "vae"
    settings: VaeRecipe
    network: WindowDecoder
    skips_weights = True  # diffusers never calls some layers of blocks of more than two

    def __init__(
        self,
        start: Path,
        recipe: VaeRecipe,
        record: Record,
        train: Windows,
        held_out: Windows,
        device: torch.device,
        say: Say,
    ) -> None:
        self.begun, self.spent = time.monotonic(), float(record.facts["seconds"])
        self.settings, self.record, self.device, self._say = recipe, record, device, say
        self.folder, self.checkpoints = record.folder, record.folder / CHECKPOINTS
        self._train, self._held_out = train, held_out
        image = load_vae(start) if vae_config(start)[1]["_class_name"] == CLASSES[0] else None
        self.vae: Any = (load_temporal(start) if image is None else inflate(image)).to(device)
        self.network = WindowDecoder(self.vae)
        chosen = trainable_params(self.vae, recipe.trains)
        if recipe.checkpointing:
            self.vae.enable_gradient_checkpointing()
        self._encoded = encode_held_out(self.vae, held_out)
        self._measure_start(chosen, image)
        self.optimizer = make_optimizer(chosen, record.facts["units"])
        self.done = self._restore()
        count = sum(weight.numel() for _, weight in chosen) / 1e6
        start_words = f"vae: goes on from step {self.done}, " if self.done else "vae: "
        say(f"{start_words}{count:.1f} M parameters of {recipe.trains} layers on {device}")

    def _measure_start(self, chosen: Sequence[tuple[str, nn.Parameter]], image: Any) -> None:
        """Fill in the record's units, and the figures before the first step."""
        facts, device = self.record.facts, self.device
        if facts["units"] is None:  # those of one process, for other machines may round differently
            mine = units(self.vae, chosen, self._encoded[0][0].to(device))
            facts["units"] = distributed.all_gather((mine,))[0]
        if facts["before"] is None:
            if image is not None:
                image = image.to(device)
                decoded = quality(lambda z: image.decode(z.to(device)).sample, self._encoded, device)
                facts["image"] = asdict(decoded)
            facts["before"] = asdict(self._quality())
            self.record.write()

    def _restore(self) -> int:
        """Load the newest checkpoint in place, and return its step; 0 where there is none."""
        if self.record.writes:
            remove_unfinished(inside.inside(self.folder, CHECKPOINTS))
            remove_unfinished(self.folder)
        distributed.barrier()
        newest = checkpoint.latest(self.checkpoints, PARTS, self._say)
        if newest is None:
            return 0
        self.vae.load_state_dict(load_file(newest / "vae" / checkpoint.WEIGHTS))
        state = checkpoint.load_state(newest)
        self.optimizer.load_state_dict(state["optimizer"])
        # A kill may have come between the checkpoint and vae.json; checkpoints of earlier versions have no facts.
        self.record.facts.update(state.get("facts", {}))
        if int(state["step"]) < self.settings.steps:
            self.record.facts["after"] = None  # measured at the end of a shorter run
        self.spent = float(self.record.facts["seconds"])
        return int(state["step"])

    def _quality(self) -> Quality:
        self.vae.eval()
        return quality(lambda z: self.network(z.to(self.device)), self._encoded, self.device)

    # ---- what the loop asks for ----

    def parts(self, step: int) -> list[Window]:
        batch = self.settings.batch
        return [self._train.draw(step * batch + number) for number in distributed.world().part(batch)]

    def losses(self, model: Any, part: Window) -> dict[str, Tensor]:
        recipe = self.settings
        x = to_tensor(part.frames).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.autocast):
            # Nobody wants the latents' gradient, but torch's GroupNorm (2.13, CPU, channels last) crashes the process in
            # the backward of an input that asks for none, as the first temporal layer's is after frozen ones.
            out = model(encode(self.vae, part.frames, part.rng).requires_grad_())
        parts = losses(out.float()[None], x[None])
        loss = parts["pixel"] + recipe.edges * parts["edges"] + recipe.flicker * parts["flicker"]
        return {"loss": loss, **parts}

    def rates(self, parts: Sequence[Window], seconds: float) -> dict[str, float]:
        return {"samples_per_second": self.settings.batch / seconds}

    def validate(self, step: int) -> dict[str, float] | None:
        facts, last = self.record.facts, step == self.settings.steps
        if last and facts["after"] is not None:
            return None
        figures = facts["before"] if step == 0 else asdict(self._quality())
        if last:
            facts["after"] = figures
        return {f"held_out_{name}": value for name, value in figures.items()}

    def describe(self, figures: dict[str, float]) -> str:
        return f"held out: PSNR {figures['held_out_psnr']:.2f} dB, flicker {figures['held_out_flicker']:.3f}"

    @torch.no_grad()
    def save_samples(self, step: int) -> None:
        self._save_samples(inside.make_folder(self.folder, "samples") / f"{checkpoint.step_name(step)}.png")

    @torch.no_grad()
    def _save_samples(self, path: Path) -> None:
        self.vae.eval()
        strips = []
        for latents, frames in self._encoded[:SAMPLES]:
            decoded = to_pixels(self.network(latents.to(self.device)))
            shown = spread(range(len(frames)), FRAMES)
            strips += [
                Strip(label="truth", pictures=[frames[i] for i in shown]),
                Strip(label="decoded", pictures=[decoded[i] for i in shown], notes=[f"frame {i + 1}" for i in shown]),
            ]
        save_sheet(path, strips, title="held-out windows, and what the decoder makes of their latents")

    def save(self, step: int, seconds: float) -> None:
        def write(folder: Path) -> dict[str, Any]:
            save_whole(self.vae, folder / "vae")
            return {}

        self.record.facts["seconds"] = seconds
        kept = {name: self.record.facts[name] for name in ("seconds", "image", "before", "after")}
        checkpoint.save(self.checkpoints, step, write, self.optimizer, keep=self.settings.keep, facts=kept, parts=PARTS)
        self.record.write()

    def finish(self, seconds: float) -> str:
        self._save_samples(self.folder / "samples.png")
        with new_folder(self.record.result) as hidden:
            save_whole(self.vae, hidden)
        self.record.facts.update(seconds=seconds, done=True)
        self.record.write()
        return f"the decoder is in {self.record.result}"

    def oom_hint(self) -> str:
        return oom_hint(self.settings)

    def close(self) -> None:
        for windows, name in ((self._train, "training"), (self._held_out, "held-out")):
            if windows.failed:
                self._say(f"vae: {counted(len(windows.failed), f'{name} clip')} could not be read, and replaced")


def make_optimizer(chosen: Sequence[tuple[str, Tensor]], units: dict[str, float]) -> torch.optim.AdamW:
    """Make a group of parameters for each ``unit`` there is, those at 0 left out. Each step sets the rates."""
    groups: dict[float, list[Tensor]] = {}
    for name, weight in chosen:
        groups.setdefault(units[name], []).append(weight)
    rows = [{"params": weights, "unit": unit} for unit, weights in groups.items() if unit > 0]
    return torch.optim.AdamW(rows, lr=1.0, betas=(0.9, 0.99), weight_decay=0.0)
