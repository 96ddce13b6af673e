"""``dailies train vae``: finetunes a temporal VAE decoder on an export. Resolves names, and puts errors into a line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dailies.curation.errors import UsageError
from dailies.curation.packages import need
from dailies.pipelines.model_refs import fetch


@dataclass(frozen=True, slots=True, kw_only=True)
class VaeTrained:
    """Held-out figures, each (PSNR in dB, flicker error in levels of 0–255): of the image decoder, ``None`` where the start was
    a temporal one already, and of the temporal decoder before its first step and after its last."""

    folder: str
    steps: int
    seconds: float
    image: tuple[float, float] | None
    before: tuple[float, float]
    after: tuple[float, float]
    notes: tuple[str, ...]


def train_vae_run(
    start: str,
    data: str,
    out: str,
    *,
    sets: Sequence[str] = (),
    device: str = "auto",
    resume: bool = False,
    say: Callable[[str], None],
) -> VaeTrained:
    """Finetune the VAE ``start`` (``zoo:NAME``, a folder or a hub id) on the export at ``data``; the result is ``OUT/vae``.
    Goes on where an earlier call stopped.

    ``sets``: ``FIELD=VALUE`` of ``VaeRecipe``. Raises ``UsageError`` before any work where these do not
    fit each other, and ``DailiesError`` when a loss is not finite, no clip can be read or memory runs out.
    """
    need(["torch", "diffusers", "safetensors"], by="training")
    folder = fetch(start)
    if not (Path(data) / "index.parquet").is_file() and not (Path(data) / "data").is_dir():
        raise UsageError(f"no export at {data}: expected a folder with data/*.parquet, as dailies export makes it")
    from dailies.training.data.export import Export
    from dailies.training.recipes.overrides import fields_of
    from dailies.training.vae.temporal_vae import VaeRecipe
    from dailies.training.vae.vae_loop import train_temporal_vae

    recipe = VaeRecipe(**fields_of(VaeRecipe, sets))
    report = train_temporal_vae(folder, Export(data), out, recipe=recipe, device=device, resume=resume, say=say)
    return VaeTrained(
        folder=str(report.folder),
        steps=report.steps,
        seconds=report.seconds,
        image=None if report.image is None else (report.image.psnr, report.image.flicker),
        before=(report.before.psnr, report.before.flicker),
        after=(report.after.psnr, report.after.flicker),
        notes=report.notes,
    )
