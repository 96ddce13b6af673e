"""A training run → a model in a zoo: a diffusers folder with safetensors, a card and a lock.

Everything is checked before the first weight is read, and nothing is to be seen in the zoo before all of it is there.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from dailies.curation.errors import UsageError
from dailies.curation.packages import need
from dailies.zoo import assemble
from dailies.zoo.card import Facts, card
from dailies.zoo.catalog import ENTRIES
from dailies.zoo.entry import Sampling, Sources, ZooEntry
from dailies.zoo.formats import safetensors_info as weights
from dailies.zoo.load import PIPELINES, class_name, quiet, refuse_code
from dailies.zoo.provenance import Export, look_up
from dailies.zoo.run_folder import WEIGHTS, Phase, Run
from dailies.zoo.store import ENTRY, Store

SAMPLES = "samples.png"
GUIDANCE = {"image-to-video": (1.0, 3.0), "text-to-video": (4.0, 4.0)}
"""At the first and the last frame. Image-to-video starts from a frame that is given: SVD's, weak there."""


def publish(
    run: str | Path,
    *,
    name: str,
    to: str | Path,
    phase: str | None = None,
    which: str = "ema",
    licence: str | None = None,
) -> ZooEntry:
    """Publish a phase of the training run at ``run`` as ``name`` in the zoo at ``to``.

    ``phase``: the last one that is done by default. ``which``: ``ema`` weights, or the ``last`` ones of the optimiser.
    ``licence``: an SPDX id; by default the recipe's. Raises ``UsageError`` (``NameTaken`` among them) before any
    work for whatever is absent or does not fit together.
    """
    need(["torch", "diffusers", "transformers", "safetensors"], by="zoo publish")
    store = Store(to)
    store.check_free(name, ENTRIES)
    read = Run.read(run)
    chosen = read.choose(phase)
    unet = _unet(read, chosen, which)
    assemble.check(chosen.task, unet, read.models)
    export = Export.from_card(read.export_card)
    with store.adding(name) as folder:
        pipeline = assemble.assemble(chosen.task, unet, read.models, read.sampling(chosen))
        with quiet():
            pipeline.save_pretrained(str(folder), safe_serialization=True)
        _check_written(folder, chosen.task)
        pictures = _copy_samples(read, chosen, folder)
        entry = _entry(name, read, chosen, export, folder, which, licence)
        clips = look_up(read.data, (clip for one in read.phases for clip in one.first_clip_ids))
        facts = Facts(entry=entry, run=read, phase=chosen, export=export, clips=clips, pictures=pictures)
        (folder / "README.md").write_text(card(facts, weights.parts(folder)))
        (folder / ENTRY).write_text(entry.to_json())
    return entry


def _unet(run: Run, phase: Phase, which: str) -> Path:
    """The folder of the weights to publish."""
    if which not in WEIGHTS:
        raise UsageError(f"unknown weights {which!r}; allowed: {', '.join(WEIGHTS)}")
    if phase.task not in assemble.NEEDS:
        makers = [one.name for one in run.phases if one.done and one.task in assemble.NEEDS]
        hint = f"; phases that can: {', '.join(makers)}" if makers else ""
        raise UsageError(
            f"phase {phase.name!r} is {phase.task}, which cannot be published yet"
            f" ({', '.join(assemble.NEEDS)} can){hint}"
        )
    if run.objective(phase) != "edm":
        raise UsageError(
            f"phase {phase.name!r} was trained by {run.objective(phase)} matching, which the published pipelines do not sample"
        )
    if not phase.checkpoint:
        raise UsageError(f"phase {phase.name!r} of {run.folder} has no checkpoint")
    folder = run.folder / phase.checkpoint / WEIGHTS[which]
    if not folder.is_dir():
        raise UsageError(f"no {WEIGHTS[which]}/ in {folder.parent}")
    return folder


def _check_written(folder: Path, task: str) -> None:
    """What was written is what ``load_pipeline`` takes: an entry that it would refuse must not be published."""
    refuse_code(folder)
    name = class_name(folder)
    if PIPELINES[name].task != task:
        raise UsageError(f"{name} is for {PIPELINES[name].task}, not {task}")


def _copy_samples(run: Run, chosen: Phase, folder: Path) -> Mapping[str, str]:
    """Copy the phases' sample pictures in; phase name → file. A picture that is gone is not shown."""
    copied = {}
    for phase in run.phases:
        source = run.folder / phase.samples if phase.samples else None
        if source is not None and source.is_file():
            target = SAMPLES if phase is chosen else f"samples-{phase.name}{source.suffix}"
            shutil.copyfile(source, folder / target)
            copied[phase.name] = target
    return copied


def _entry(
    name: str, run: Run, phase: Phase, export: Export, folder: Path, which: str, licence: str | None
) -> ZooEntry:
    parameters, size = weights.size(folder)
    said, usual = run.sampling(phase), Sampling()
    first, last = _guidance(said.get("guidance"), phase.task)
    footage = f"{phase.frames} frames of {phase.size[0]}×{phase.size[1]}"
    return ZooEntry(
        name=name,
        task=phase.task,  # type: ignore[arg-type]  # checked by _unet
        pipeline=class_name(folder),
        size=phase.size,
        frames=phase.frames,
        fps=phase.fps,
        licence=licence or run.recipe.get("licence") or run.recipe.get("license"),
        parameters=parameters,
        bytes=size,
        about=f"{'a prompt' if phase.task == 'text-to-video' else 'an image'} → {footage}",
        published=datetime.now(UTC).isoformat(timespec="seconds"),
        version=_version(),
        sampling=Sampling(
            steps=int(said.get("steps", usual.steps)),
            guidance=(first, last),
            motion_bucket=int(said.get("motion_bucket", usual.motion_bucket)),
            noise_aug=float(said.get("noise_aug", usual.noise_aug)),
        ),
        sources=Sources(
            recipe=run.recipe.get("name"),
            recipe_hash=run.recipe_hash,
            phase=phase.name,
            checkpoint=phase.checkpoint,
            weights=which,
            data=run.data,
            clips=phase.clips,
            selection=export.selection,
            curation=export.recipe,
            curation_hash=export.recipe_hash,
        ),
    )


def _guidance(said: Any, task: str) -> tuple[float, float]:
    """One weight for all frames, or a pair for the first and the last."""
    if said is None:
        return GUIDANCE[task]
    first, last = said if isinstance(said, list) else (said, said)
    return float(first), float(last)


def _version() -> str | None:
    try:
        return version_of("dailies")
    except PackageNotFoundError:
        return None
