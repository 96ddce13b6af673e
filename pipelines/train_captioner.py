"""``dailies train captioner``: finetunes a captioner on an export's pairs, here or on Ray Train. Resolves names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dailies.curation.errors import RunError
from dailies.curation.packages import need
from dailies.pipelines.train_vae import open_export
from dailies.zoo.catalog import resolve
from dailies.zoo.default import default_zoo
from dailies.zoo.formats.references import SCHEME

if TYPE_CHECKING:
    from dailies.training.captioner.plan import CaptionerPlan
    from dailies.training.captioner.recipe import CaptionerRecipe
    from dailies.training.captioner.record import CaptionerResult
    from dailies.training.captioner.starts import Start
    from dailies.training.data.export import Export

Say = Callable[[str], None]
PACKAGES = ("torch", "transformers", "safetensors", "sacrebleu")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionerReport:
    """The result on held-out clips, by the names of ``CaptionQuality``: before the first step and after the last.

    ``kind``: the captioner that takes the model, ``coca`` or ``video``.
    """

    folder: str
    kind: str
    steps: int
    seconds: float
    clips: int
    before: dict[str, float]
    after: dict[str, float]
    notes: tuple[str, ...]


def plan_captioner_run(start: str, data: str | None, *, sets: Sequence[str] = ()) -> CaptionerPlan:
    """Say what finetuning ``start`` takes and lacks, on the export at ``data`` if given.

    Raises ``UsageError`` as ``train_captioner_run``.
    """
    begin, recipe = _start(start, sets)
    from dailies.training.captioner.plan import plan_captioner

    return plan_captioner(begin, None if data is None else open_export(data), recipe)


def train_captioner_run(
    start: str,
    data: str,
    out: str,
    *,
    sets: Sequence[str] = (),
    device: str = "auto",
    workers: int = 1,
    resume: bool = False,
    say: Say,
) -> CaptionerReport:
    """Finetune the captioner ``start`` on the export at ``data``; the result is ``OUT/model``. Goes on where an earlier call
    stopped.

    Raises ``UsageError`` before any work where these do not fit each other, and ``DailiesError`` when a loss is not finite, no
    clip can be read or memory runs out.

    Args:
        start: ``zoo:NAME``, a folder, a hub id, or a CoCa as open_clip lists it.
        sets: ``FIELD=VALUE`` of ``CaptionerRecipe``.
        workers: Processes on Ray Train that share each batch.
    """
    begin, recipe = _start(start, sets)
    export, folder = open_export(data), Path(out).resolve()  # workers have a folder of their own
    from dailies.training.captioner.task import train_captioner

    if workers == 1:
        return _report(train_captioner(begin, export, folder, recipe=recipe, device=device, resume=resume, say=say))
    from dailies.pipelines.workers import run_workers

    _known(begin, export, folder, recipe, resume)  # what is wrong with the request is said here, not by each worker
    clips = str(export.folder)

    def work(tell: Say) -> None:  # which reads the export anew, for an open one has a lock and cannot be sent
        train_captioner(begin, open_export(clips), folder, recipe=recipe, device=device, say=tell)

    run_workers(work, folder, workers, device=device, say=say)
    done = _known(begin, export, folder, recipe, resume)
    if done is None:
        raise RunError(f"out={out}: the workers ended before the run was done; run the command again")
    return _report(done)


def _start(name: str, sets: Sequence[str]) -> tuple[Start, CaptionerRecipe]:
    """Return the model to start from, and the recipe."""
    need(PACKAGES, by="training a captioner")
    from dailies.training.captioner.recipe import CaptionerRecipe
    from dailies.training.captioner.starts import Start
    from dailies.training.recipes.overrides import fields_of

    values = fields_of(CaptionerRecipe, sets)
    recipe = CaptionerRecipe(**values)
    start = Start.of(str(resolve(name, default_zoo())) if name.startswith(SCHEME) else name)
    need(["open_clip"] if start.kind == "coca" else ["peft"] * (recipe.trains == "lora"), by="training a captioner")
    return start, recipe


def _known(start: Start, export: Export, folder: Path, recipe: CaptionerRecipe, resume: bool) -> CaptionerResult | None:
    """Check the request, and return what an earlier call has finished."""
    from dailies.training.captioner.pairs import split_pairs
    from dailies.training.captioner.record import FILE, CaptionerRecord
    from dailies.training.run_log import data_rules_of

    split = split_pairs(export, recipe, data_rules_of(folder, FILE))
    return CaptionerRecord(folder, recipe, start, export, split, resume=resume, writes=False).report(split.notes)


def _report(result: CaptionerResult) -> CaptionerReport:
    figures = {
        name: {key: value for key, value in asdict(getattr(result, name)).items() if value is not None}
        for name in ("before", "after")
    }
    return CaptionerReport(
        folder=str(result.folder),
        kind=result.kind,
        steps=result.steps,
        seconds=result.seconds,
        clips=result.after.clips,
        before=figures["before"],
        after=figures["after"],
        notes=result.notes,
    )
