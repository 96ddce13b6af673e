"""A captioner as a task of the loop, and ``train_captioner(start, export, out)``, which finetunes one.

::

    OUT/captioner.json                      recipe, start, data, figures, examples; "done" once model/ is whole
    OUT/metrics.jsonl  OUT/tensorboard/     losses of each step; figures of held-out clips where they were measured after it
    OUT/checkpoints/step-000500/            weights that learn (and their averages), optimizer, step, figures
    OUT/samples.png  OUT/samples/           held-out clips, with their own caption and the one that the model writes
    OUT/model/                              the result: a folder of open_clip's, or of transformers'
    OUT/adapter/                            where adapters alone learnt: these, in peft's format; model/ has them merged

Every draw follows from (seed, position), so that a run which was killed ends with the weights of one that was not, bit
for bit, on the same machine with as many threads. Held-out clips are measured and never trained on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dailies.curation import inside
from dailies.curation.atomic import new_folder, remove_unfinished
from dailies.curation.contact_sheet import Strip, save_sheet, spread
from dailies.curation.errors import RunError
from dailies.curation.plain_text import counted
from dailies.training import checkpoint, distributed
from dailies.training.captioner.measures import CaptionQuality, quality, shown
from dailies.training.captioner.models import CaptionNetwork, TrainedEma
from dailies.training.captioner.pairs import ClipPairs, Pair, split_pairs
from dailies.training.captioner.recipe import CaptionerRecipe
from dailies.training.captioner.record import FILE, CaptionerRecord, CaptionerResult
from dailies.training.captioner.starts import Start
from dailies.training.data.export import Export
from dailies.training.data.world import World
from dailies.training.loop import check_batch, run_task, silent, sole_run
from dailies.training.memory import explain_oom
from dailies.training.run_log import data_rules_of
from dailies.training.task import Task
from dailies.training.task_record import CHECKPOINTS

Say = Callable[[str], None]
WEIGHTS, AVERAGES = "weights.safetensors", "averages.safetensors"  # of a checkpoint
KEPT = ("seconds", "before", "after", "validation", "examples")  # of the record, in a checkpoint
SAMPLES = 6  # held-out clips that samples show
FRAMES = 8  # of each


def train_captioner(
    start: Start,
    export: Export,
    out: str | Path,
    *,
    recipe: CaptionerRecipe | None = None,
    device: str = "auto",
    resume: bool = False,
    say: Say = print,
) -> CaptionerResult:
    """Finetune the captioner ``start`` on clips of ``export`` and their captions into ``OUT/model``.

    A run that is in ``out`` already goes on. Started by torchrun or Ray Train, the processes share each batch. Raises
    ``UsageError`` before any work where these do not fit each other, ``NotFinite`` naming the clips when a loss is not
    finite, and ``OutOfMemory`` naming the settings to lower.

    Args:
        device: ``auto`` for CUDA where there is one, or as torch names them.
        resume: Go on with a run that is there; fail if there is none.
        say: Gets lines on how far it is.
    """
    recipe = recipe or CaptionerRecipe()
    place = distributed.pick_device(device)
    split = split_pairs(export, recipe, data_rules_of(Path(out), FILE))
    with distributed.process_group(place) as world, sole_run(Path(out)):
        check_shares(start, recipe, world)
        say_once = say if world.rank == 0 else silent
        record = CaptionerRecord(Path(out), recipe, start, export, split, resume=resume, writes=world.rank == 0)
        distributed.barrier()  # all have read captioner.json before one writes it
        if (known := record.report(split.notes)) is not None:
            say_once(f"captioner: done before: {known.folder}")
            return known
        for note in split.notes:
            say_once(f"captioner: {note}")
        with explain_oom(lambda: oom_hint(recipe)):
            network = start.load(recipe)
            train = ClipPairs(export, split.train, recipe, network.frames)
            held_out = ClipPairs(export, split.held_out, recipe, network.frames)
            task = CaptionerTask(network, recipe, record, train, held_out, place, say_once)
        run_task(task, place, say_once)
        record.refresh()
    report = record.report(split.notes)
    assert report is not None
    return report


def check_shares(start: Start, recipe: CaptionerRecipe, world: World) -> None:
    """Raise ``RunError`` where the processes' shares of a batch cannot be computed, or held against each other."""
    check_batch(f"batch={recipe.batch}", recipe.batch, world)
    parts = recipe.accumulate * world.size
    if start.kind == "coca" and recipe.contrast_weight and recipe.batch % parts:
        raise RunError(
            f"batch={recipe.batch}: the contrast needs equal parts; take a multiple of {parts}, which is accumulate times "
            "the processes"
        )
    if start.kind == "coca" and recipe.contrast_weight and recipe.batch < 2 * recipe.accumulate:
        raise RunError(f"batch={recipe.batch}: the contrast needs two clips a part; raise it, or set contrast_weight=0")


def oom_hint(recipe: CaptionerRecipe) -> str:
    """Say what to lower when memory runs out, what costs least first."""
    free = "" if recipe.checkpointing else "checkpointing=True: slower, same results, and the run goes on. Then "
    less = [] if recipe.accumulate == recipe.batch else [f"accumulate={min(recipe.batch, 2 * recipe.accumulate)}"]
    less += [] if recipe.trains == "lora" else ["trains=lora"]
    less += ["fewer frames or a smaller short_side: another recipe, so another run"]
    return (
        f"captioner: out of memory at a batch of {recipe.batch} in {counted(recipe.accumulate, 'part')}. Try {free}"
        f"{', '.join(less)}"
    )


@dataclass(frozen=True, kw_only=True)
class PairBatch:
    """Pairs that are computed together. ``inputs``: what the model takes of them, on the CPU. ``seed``: for what it draws."""

    clip_ids: tuple[str, ...]
    inputs: dict[str, Tensor]
    seed: int


class CaptionerTask(Task[PairBatch]):
    """Trains a captioner, as its newest checkpoint left it or at its beginning."""

    name = title = "captioner"
    settings: CaptionerRecipe
    network: CaptionNetwork
    ema: TrainedEma | None

    def __init__(
        self,
        network: CaptionNetwork,
        recipe: CaptionerRecipe,
        record: CaptionerRecord,
        train: ClipPairs,
        held_out: ClipPairs,
        device: torch.device,
        say: Say,
    ) -> None:
        self.begun, self.spent = time.monotonic(), float(record.facts["seconds"])
        self.settings, self.record, self.device, self._say = recipe, record, device, say
        self.folder, self.checkpoints = record.folder, record.folder / CHECKPOINTS
        self._train, self._held_out = train, held_out
        self._measured = held_out.spread(recipe.validation_clips)
        self.network = network.to(device)
        self.skips_weights = network.skips_weights
        self.ema = TrainedEma(network.trained, recipe.ema) if recipe.ema else None
        self.optimizer = make_optimizer(list(network.trained.values()), recipe.weight_decay)
        self.done = self._restore()
        count = sum(weight.numel() for weight in network.trained.values()) / 1e6
        told = f"captioner: goes on from step {self.done}, " if self.done else "captioner: "
        say(
            f"{told}{count:.2f} M parameters learn, {counted(len(train), 'clip')}, {len(self._measured)} held out, {device}"
        )

    @property
    def _parts(self) -> tuple[str, ...]:
        return (WEIGHTS,) if self.ema is None else (WEIGHTS, AVERAGES)

    def _restore(self) -> int:
        """Load the newest checkpoint in place, and return its step; 0 where there is none."""
        if self.record.writes:
            remove_unfinished(inside.inside(self.folder, CHECKPOINTS))
            remove_unfinished(self.folder)
        distributed.barrier()
        newest = checkpoint.latest(self.checkpoints, self._parts, self._say)
        if newest is None:
            return 0
        self.network.load_state(load_file(newest / WEIGHTS))
        if self.ema is not None:
            self.ema.load_state(load_file(newest / AVERAGES))
        state = checkpoint.load_state(newest)
        self.optimizer.load_state_dict(state["optimizer"])
        self.record.facts.update(state["facts"])  # a kill may have come between the checkpoint and captioner.json
        if int(state["step"]) < self.settings.steps:
            self.record.facts["after"] = None  # measured at the end of a shorter run
        self.spent = float(self.record.facts["seconds"])
        return int(state["step"])

    # ---- what the loop asks for ----

    def parts(self, step: int) -> list[PairBatch]:
        batch = self.settings.batch
        mine = list(distributed.world().part(batch))
        shares = [
            World(rank=number, size=self.settings.accumulate).part(len(mine))
            for number in range(self.settings.accumulate)
        ]
        return [
            self._batch([self._train.draw(step * batch + mine[at]) for at in share]) for share in shares if len(share)
        ]

    def _batch(self, pairs: Sequence[Pair]) -> PairBatch:
        inputs = self.network.inputs(pairs)
        return PairBatch(clip_ids=tuple(pair.clip_id for pair in pairs), inputs=inputs, seed=pairs[0].seed)

    def losses(self, model: Any, part: PairBatch) -> dict[str, Tensor]:
        torch.manual_seed(part.seed)  # of dropout, where a model has some
        with self._precision():
            figures: dict[str, Tensor] = model(**self.network.to_device(part.inputs))
        return figures

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.autocast)

    def rates(self, parts: Sequence[PairBatch], seconds: float) -> dict[str, float]:
        return {"samples_per_second": self.settings.batch / seconds}

    def validate(self, step: int) -> dict[str, float] | None:
        facts, last = self.record.facts, step == self.settings.steps
        if last and facts["after"] is not None:
            return None
        measured = self._measure()
        self.record.measured(step, measured)
        if step == 0:
            facts["before"] = asdict(measured)
        if last:
            facts["after"] = asdict(measured)
        return {f"held_out_{name}": value for name, value in measured.figures().items()}

    @torch.no_grad()
    def _measure(self) -> CaptionQuality:
        """Measure the model on the held-out clips; each process takes a share of them, and the figures are of all."""
        world = distributed.world()
        rows: list[tuple[int, str, float, float, float]] = []
        with self._at_rest(), self._precision():
            for number in range(world.rank, len(self._measured), world.size):
                pair = self._measured[number]
                scores = self.network.token_scores(self.network.to_device(self.network.inputs([pair])))
                counts = (float(scores.loss.sum()), float(scores.correct.sum()), float(scores.tokens.sum()))
                rows.append((number, self.network.write(pair), *counts))
        rows = sorted(distributed.all_gather(tuple(rows)))
        self.record.facts["examples"] = [
            {"clip_id": self._measured[number].clip_id, "caption": self._measured[number].caption, "written": text}
            for number, text, *_ in rows
        ]
        return quality(
            [text for _, text, *_ in rows],
            [self._measured[number].caption for number, *_ in rows],
            loss=sum(row[2] for row in rows),
            correct=sum(row[3] for row in rows),
            tokens=sum(row[4] for row in rows),
        )

    @contextmanager
    def _at_rest(self) -> Iterator[None]:
        """Have the model as it will be published, its averages in place where it has some, within the block."""
        self.network.eval()
        with nullcontext() if self.ema is None else self.ema.in_place():
            yield

    def describe(self, figures: dict[str, float]) -> str:
        return f"held out: {shown({name.removeprefix('held_out_'): value for name, value in figures.items()})}"

    def save_samples(self, step: int) -> None:
        self._save_samples(inside.make_folder(self.folder, "samples") / f"{checkpoint.step_name(step)}.png")

    @torch.no_grad()
    def _save_samples(self, path: Path) -> None:
        strips = []
        with self._at_rest(), self._precision():
            for pair in spread(self._measured, SAMPLES):
                chosen = spread(range(len(pair.frames)), FRAMES)
                strips.append(
                    Strip(
                        label="held out",
                        pictures=[pair.frames[number] for number in chosen],
                        notes=[f"{pair.times[number]:.2f} s" for number in chosen],
                        text=f"caption: “{pair.caption}” · written: “{self.network.write(pair)}”",
                    )
                )
        save_sheet(path, strips, title="held-out clips, their captions, and what the model writes")

    def save(self, step: int, seconds: float) -> None:
        def write(folder: Path) -> dict[str, Any]:
            save_file(self.network.state(), folder / WEIGHTS)
            if self.ema is not None:
                save_file(self.ema.state(), folder / AVERAGES)
            return {}

        self.record.facts["seconds"] = seconds
        kept = {name: self.record.facts[name] for name in KEPT}
        checkpoint.save(
            self.checkpoints, step, write, self.optimizer, keep=self.settings.keep, facts=kept, parts=self._parts
        )
        self.record.write()

    def finish(self, seconds: float) -> str:
        self._save_samples(self.folder / "samples.png")
        with self._at_rest():
            if self.network.adapters:
                with new_folder(self.folder / "adapter") as hidden:
                    self.network.save_adapter(hidden)
            with new_folder(self.record.result) as hidden:
                self.network.save(hidden)
                for file in hidden.rglob("*.safetensors"):
                    file.chmod(0o644)  # safetensors writes 0600
        self.record.facts.update(seconds=seconds, done=True)
        self.record.write()
        return f"the captioner is in {self.record.result}"

    def oom_hint(self) -> str:
        return oom_hint(self.settings)

    def close(self) -> None:
        for pairs, name in ((self._train, "training"), (self._held_out, "held-out")):
            if pairs.failed:
                self._say(f"captioner: {counted(len(pairs.failed), f'{name} clip')} could not be read, and replaced")


def make_optimizer(weights: Sequence[torch.nn.Parameter], decay: float) -> torch.optim.AdamW:
    """Make AdamW, whose decay spares biases, norms and scales. Each step sets the rate."""
    groups = [
        {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": decay},
        {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=1.0, betas=(0.9, 0.98))
