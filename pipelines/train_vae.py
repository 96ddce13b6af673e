"""``dailies train vae``: finetunes a temporal VAE decoder on an export, here or on Ray Train. Resolves names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dailies.curation.errors import ExportError, RunError
from dailies.curation.packages import DIFFUSION, need
from dailies.curation.tables import find_export
from dailies.pipelines.model_refs import fetch

if TYPE_CHECKING:
    from dailies.training.data.export import Export
    from dailies.training.vae.plan import VaePlan
    from dailies.training.vae.recipe import VaeRecipe
    from dailies.training.vae.record import VaeResult

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class VaeReport:
    """The result on held-out clips, each as (PSNR in dB, flicker error in levels of 0–255).

    ``image``: the image decoder, ``None`` where the start was a temporal one already. ``before``, ``after``: the temporal
    decoder at its first step and at its last.
    """

    folder: str
    steps: int
    seconds: float
    image: tuple[float, float] | None
    before: tuple[float, float]
    after: tuple[float, float]
    notes: tuple[str, ...]


def plan_vae_run(start: str, data: str | None, *, sets: Sequence[str] = ()) -> VaePlan:
    """Say what finetuning ``start`` costs, needs and lacks, on the export at ``data`` if given.

    Raises ``UsageError`` as ``train_vae_run``.
    """
    folder, recipe = _start(start, sets)
    from dailies.training.vae.plan import plan_vae

    return plan_vae(folder, None if data is None else open_export(data), recipe)


def train_vae_run(
    start: str,
    data: str,
    out: str,
    *,
    sets: Sequence[str] = (),
    device: str = "auto",
    workers: int = 1,
    resume: bool = False,
    say: Say,
) -> VaeReport:
    """Finetune the VAE ``start`` on the export at ``data``; the result is ``OUT/vae``. Goes on where an earlier call stopped.

    Raises ``UsageError`` before any work where these do not fit each other, and ``DailiesError`` when a loss is not finite, no
    clip can be read or memory runs out.

    Args:
        start: ``zoo:NAME``, a folder or a hub id.
        sets: ``FIELD=VALUE`` of ``VaeRecipe``.
        workers: Processes on Ray Train that share each batch.
    """
    place, recipe = _start(start, sets)
    export, folder = open_export(data), Path(out).resolve()  # workers have a folder of their own
    from dailies.training.vae.task import train_vae

    if workers == 1:
        result = train_vae(place, export, folder, recipe=recipe, device=device, resume=resume, say=say)
        return _report(result)
    from dailies.pipelines.workers import run_workers

    _known(place, export, folder, recipe, resume)  # what is wrong with the request is said here, not by each worker

    clips = str(export.folder)

    def work(tell: Say) -> None:  # which reads the export anew, for an open one has a lock and cannot be sent
        train_vae(place, open_export(clips), folder, recipe=recipe, device=device, say=tell)

    run_workers(work, folder, workers, device=device, say=say)
    done = _known(place, export, folder, recipe, resume)
    if done is None:
        raise RunError(f"out={out}: the workers ended before the run was done; run the command again")
    return _report(done)


def _start(start: str, sets: Sequence[str]) -> tuple[Path, VaeRecipe]:
    """Return the folder of the VAE to start from, and the recipe."""
    need(DIFFUSION, by="training vae")
    folder = fetch(start)
    from dailies.training.recipes.overrides import fields_of
    from dailies.training.vae.recipe import VaeRecipe

    return folder, VaeRecipe(**fields_of(VaeRecipe, sets))


def open_export(data: str) -> Export:
    """Open the export at ``data``, named as ``find_export`` takes it. Raises ``ExportError`` where there is none."""
    data = find_export(data)
    if not (Path(data) / "index.parquet").is_file() and not (Path(data) / "data").is_dir():
        raise ExportError(f"data={data}: holds no data/*.parquet; give a folder that dailies has exported")
    from dailies.training.data.export import Export

    return Export(Path(data).resolve())


def _known(start: Path, export: Export, folder: Path, recipe: VaeRecipe, resume: bool) -> VaeResult | None:
    """Check the request, and return what an earlier call has finished."""
    from dailies.training.vae.record import Record
    from dailies.training.vae.task import check_start
    from dailies.training.vae.windows import split

    check_start(start, recipe)
    _, _, notes = split(export, recipe)
    return Record(folder, recipe, start, export, resume=resume, writes=False).report(notes)


def _report(result: VaeResult) -> VaeReport:
    return VaeReport(
        folder=str(result.folder),
        steps=result.steps,
        seconds=result.seconds,
        image=None if result.image is None else (result.image.psnr, result.image.flicker),
        before=(result.before.psnr, result.before.flicker),
        after=(result.after.psnr, result.after.flicker),
        notes=result.notes,
    )
