"""``train_temporal_vae(start, export, out)``: finetune a temporal VAE decoder, and go on where a call was killed.

::

    OUT/vae.json                            recipe, start, data, figures; "done" once vae/ is whole
    OUT/metrics.jsonl                       losses of each step; figures where they were measured after it
    OUT/checkpoints/step-000500/vae/        diffusers folder, safetensors, float32
    OUT/checkpoints/step-000500/state.pt    optimizer, step
    OUT/vae/                                the result: a diffusers folder of AutoencoderKLTemporalDecoder
 Every draw follows from (seed, position), so that a run which was killed ends with the weights of one that was not, bit
for bit, on the same machine with as many threads.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from dailies.curation.errors import NotFinite, RunError
from dailies.training import checkpoint
from dailies.training.data.items import Export
from dailies.training.distributed import pick_device
from dailies.training.interrupt import defer_sigint
from dailies.training.memory import explain_oom
from dailies.training.models.pixels import to_tensor
from dailies.training.models.vae.inflate import inflate
from dailies.training.models.vae.io import load_temporal, load_vae, read_config, save_whole
from dailies.training.run_log import Metrics
from dailies.training.vae.temporal_vae import (
    Held,
    Quality,
    VaeRecipe,
    Windows,
    encode,
    encode_held_out,
    losses,
    quality,
    split,
    trained,
    units,
)

Say = Callable[[str], None]
KINDS = ("AutoencoderKL", "AutoencoderKLTemporalDecoder")


@dataclass(frozen=True, slots=True, kw_only=True)
class VaeReport:
    """``image``: the image decoder, ``None`` where the start was a temporal one. ``before``, ``after``: the temporal
    decoder at the first step and at the end; between ``image`` and ``before`` lies what inflation could not keep."""

    folder: Path
    steps: int
    seconds: float
    image: Quality | None
    before: Quality
    after: Quality
    notes: tuple[str, ...] = ()


def train_temporal_vae(
    start: str | Path,
    export: Export,
    out: str | Path,
    *,
    recipe: VaeRecipe | None = None,
    device: str = "auto",
    resume: bool = False,
    say: Say = print,
) -> VaeReport:
    """Finetune the temporal decoder of the VAE in folder ``start`` on clips of ``export`` into ``OUT/vae``.

    ``start``: an ``AutoencoderKL``, whose decoder is inflated, or an ``AutoencoderKLTemporalDecoder``. The encoder
    stays as it is. ``device``: ``auto`` for CUDA where there is one, or as torch names them. What was begun in ``out`` goes
    on; ``resume``: nothing is begun. Raises ``RunError`` before any work where these do not fit each other,
    ``NotFinite`` naming the clips when a loss is not finite, and ``OutOfMemory`` naming the settings to lower.
    """
    recipe = recipe or VaeRecipe()
    target = pick_device(device)
    check_start(start, recipe)
    train, held_out, notes = split(export, recipe)
    record = Record(Path(out), recipe, Path(start), export, resume=resume)
    if (known := record.report(notes)) is not None:
        say(f"done before: {known.folder}")
        return known
    for note in notes:
        say(note)
    return _Training(recipe, record, target, say).run(Path(start), train, held_out, notes)


def check_start(start: str | Path, recipe: VaeRecipe) -> None:
    """Raises ``RunError`` where ``start`` holds no VAE to start from, or none that takes the recipe's size."""
    _, config = read_config(start)
    if config.get("_class_name") not in KINDS:
        raise RunError(f"start: {start} holds {config.get('_class_name')}, where {' or '.join(KINDS)} is expected")
    factor = 2 ** (len(config["block_out_channels"]) - 1)
    if any(side % factor for side in recipe.size):
        raise RunError(f"size: multiples of {factor} px, the VAE's px per latent, expected, not {recipe.size}")


class Record:
    """OUT/vae.json, written whole after each change. Raises ``RunError`` where the folder was begun with other
    facts."""

    def __init__(self, folder: Path, recipe: VaeRecipe, start: Path, export: Export, *, resume: bool) -> None:
        self.folder, self.path, self.result = folder, folder / "vae.json", folder / "vae"
        self.facts: dict[str, Any] = {
            "recipe": recipe.meaning,
            "start": str(start.resolve()),
            "data": str(export.folder.resolve()),
            "units": None,
            "seconds": 0.0,
            "image": None,
            "before": None,
            "after": None,
            "done": False,
        }
        if not self.path.exists():
            if resume:
                raise RunError(f"out: nothing was begun in {folder}, so there is nothing to go on with")
            return
        old = json.loads(self.path.read_text(encoding="utf-8"))
        for name in ("recipe", "start", "data"):
            if old[name] != self.facts[name]:
                raise RunError(
                    f"{name}: {folder} was begun with {old[name]}, not {self.facts[name]}; take another folder"
                )
        self.facts = old

    def write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        checkpoint.write_text(self.path, json.dumps(self.facts, indent=1))

    def quality(self, name: str) -> Quality | None:
        return None if self.facts[name] is None else Quality(**self.facts[name])

    def report(self, notes: tuple[str, ...]) -> VaeReport | None:
        """``None`` where the run is not done."""
        before, after = self.quality("before"), self.quality("after")
        if not self.facts["done"] or before is None or after is None:
            return None
        return VaeReport(
            folder=self.result,
            steps=self.facts["recipe"]["steps"],
            seconds=self.facts["seconds"],
            image=self.quality("image"),
            before=before,
            after=after,
            notes=notes,
        )


class _Training:
    """One call's work: the model, its optimizer and how far they are."""

    def __init__(self, recipe: VaeRecipe, record: Record, device: torch.device, say: Say) -> None:
        self.recipe, self.record, self.device, self.say = recipe, record, device, say
        self.checkpoints = record.folder / "checkpoints"
        self.begun, self.spent = time.monotonic(), float(record.facts["seconds"])

    def run(self, start: Path, train: Windows, held_out: Windows, notes: tuple[str, ...]) -> VaeReport:
        with explain_oom(lambda: _advice(self.recipe)):
            held = self._begin(start, held_out)
            self._loop(train, held)
            self._finish(held)
        for side, name in ((train, "training"), (held_out, "held-out")):
            if side.failed:
                self.say(f"{len(side.failed)} {name} clips could not be read and were replaced")
        report = self.record.report(notes)
        assert report is not None
        return report

    def _begin(self, start: Path, held_out: Windows) -> Held:
        """Model and optimizer, from the newest checkpoint where there is one; the first figures where there are
        none."""
        image = load_vae(start) if read_config(start)[1]["_class_name"] == KINDS[0] else None
        self.vae: Any = (load_temporal(start) if image is None else inflate(image)).to(self.device)
        chosen = trained(self.vae, self.recipe.trains)
        if self.recipe.checkpointing:
            self.vae.enable_gradient_checkpointing()
        held = encode_held_out(self.vae, held_out)
        facts = self.record.facts
        if facts["units"] is None:
            facts["units"] = units(self.vae, chosen, held[0][0].to(self.device))
        self.optimizer = _optimizer(chosen, facts["units"])
        if facts["before"] is None:
            if image is not None:
                image = image.to(self.device)
                facts["image"] = asdict(quality(lambda z: image.decode(z.to(self.device)).sample, held))
            facts["before"] = asdict(self._quality(held))
            self.record.write()
        newest = checkpoint.latest(self.checkpoints)
        self.done = 0 if newest is None else self._restore(newest)
        count = sum(weight.numel() for _, weight in chosen)
        words = f"{count / 1e6:.1f} M parameters of {self.recipe.trains} layers on {self.device}"
        self.say(f"{words}, from step {self.done}" if self.done else words)
        return held

    def _quality(self, held: Held) -> Quality:
        self.vae.eval()
        return quality(lambda z: self.vae.decode(z.to(self.device), num_frames=len(z)).sample, held)

    # ---- steps ----

    def _loop(self, train: Windows, held: Held) -> None:
        recipe, metrics = self.recipe, Metrics(self.record.folder, self.done)
        try:
            with defer_sigint(self.say) as asked:
                for step in range(self.done, recipe.steps):
                    row = self._step(train, step)
                    self.done = step + 1
                    if self.done % recipe.validate_every == 0 and self.done < recipe.steps:
                        found = self._quality(held)
                        row |= {"held_out_psnr": found.psnr, "held_out_flicker": found.flicker}
                        self._tell(found)
                    metrics.write(step, **row)
                    if self.done % recipe.save_every == 0 or self.done == recipe.steps:
                        self._save()
                    if asked():
                        self._save()
                        self.say(f"interrupted; step {self.done} is saved, the same command goes on from there")
                        raise KeyboardInterrupt
        finally:
            metrics.close()

    def _step(self, train: Windows, step: int) -> dict[str, float]:
        """One optimizer step. Raises ``NotFinite`` before the weights change."""
        recipe, ids = self.recipe, []
        self.vae.train()
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, float] = {"loss": 0.0}
        for position in range(step * recipe.batch, (step + 1) * recipe.batch):
            name, frames, rng = train.drawn(position)
            ids.append(name)
            x = to_tensor(frames).to(self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.autocast):
                # Nobody wants the latents' gradient, but torch's GroupNorm (2.13, CPU, channels last) crashes the process in
                # the backward of an input that asks for none, as the first temporal layer's is after frozen ones.
                latents = encode(self.vae, frames, rng).requires_grad_()
                out = self.vae.decode(latents, num_frames=len(x)).sample
            parts = losses(out.float()[None], x[None])
            loss = parts["pixel"] + recipe.edges * parts["edges"] + recipe.flicker * parts["flicker"]
            (loss / recipe.batch).backward()  # type: ignore[no-untyped-call]
            for key, value in {"loss": loss, **parts}.items():
                sums[key] = sums.get(key, 0.0) + value.item() / recipe.batch
        norm = self._clip()
        if not (math.isfinite(sums["loss"]) and math.isfinite(norm)):
            what = "gradient" if math.isfinite(sums["loss"]) else f"loss ({sums['loss']})"
            raise NotFinite(f"step {step}: {what} is not finite on samples {', '.join(ids)}")
        rate = recipe.learning_rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["unit"]
        self.optimizer.step()
        return {**sums, "lr": rate, "gradient": norm}

    def _clip(self, most: float = 1.0) -> float:
        """The gradient's norm, its parameters measured in their units; a longer one is cut to ``most``."""
        groups = [
            (group["unit"], [weight.grad for weight in group["params"] if weight.grad is not None])
            for group in self.optimizer.param_groups
        ]
        norm = torch.stack([torch.linalg.vector_norm(g) * unit for unit, gradients in groups for g in gradients]).norm()
        scale = (most / (norm + 1e-6)).clamp(max=1.0)
        for gradient in (one for _, gradients in groups for one in gradients):
            gradient.mul_(scale)
        return float(norm)

    def _tell(self, found: Quality) -> None:
        words = f"step {self.done}/{self.recipe.steps}, held out: PSNR {found.psnr:.2f} dB, flicker {found.flicker:.3f}"
        self.say(f"{words}, {time.monotonic() - self.begun:.0f} s")

    # ---- files ----

    def _save(self) -> None:
        final = self.checkpoints / checkpoint.step_name(self.done)
        if not final.exists():
            aside = self.checkpoints / f".part-{os.getpid()}-{final.name}"
            shutil.rmtree(aside, ignore_errors=True)
            save_whole(self.vae, aside / "vae")
            torch.save({"step": self.done, "optimizer": self.optimizer.state_dict()}, aside / "state.pt")
            os.replace(aside, final)
        for old in sorted(self.checkpoints.glob("step-*"))[: -self.recipe.keep]:
            shutil.rmtree(old)
        self.record.facts["seconds"] = self._seconds()
        self.record.write()

    def _restore(self, path: Path) -> int:
        self.vae.load_state_dict(load_file(path / "vae" / checkpoint.WEIGHTS))
        state = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
        self.optimizer.load_state_dict(state["optimizer"])
        return int(state["step"])

    def _finish(self, held: Held) -> None:
        found = self._quality(held)
        self._tell(found)
        aside = self.record.folder / ".part-vae"
        for left in (aside, self.record.result):  # of a call that was killed just here
            shutil.rmtree(left, ignore_errors=True)
        save_whole(self.vae, aside)
        os.replace(aside, self.record.result)
        self.record.facts.update(after=asdict(found), seconds=self._seconds(), done=True)
        self.record.write()

    def _seconds(self) -> float:
        return round(self.spent + time.monotonic() - self.begun, 2)


def _optimizer(chosen: Sequence[tuple[str, Tensor]], units: dict[str, float]) -> torch.optim.AdamW:
    """A group for each ``unit`` there is, those at 0 left out. The loop sets the rates."""
    groups: dict[float, list[Tensor]] = {}
    for name, weight in chosen:
        groups.setdefault(units[name], []).append(weight)
    made = [{"params": weights, "unit": unit} for unit, weights in groups.items() if unit > 0]
    return torch.optim.AdamW(made, lr=1.0, betas=(0.9, 0.99), weight_decay=0.0)


def _advice(recipe: VaeRecipe) -> str:
    """What to lower when memory runs out."""
    width, height = recipe.size
    free = "" if recipe.checkpointing else "checkpointing = True: slower, same results, and the run goes on. Then "
    return (
        f"out of memory at one window of {recipe.frames} frames of {width}×{height} px. Try {free}"
        "fewer frames or a smaller size: another run"
    )
