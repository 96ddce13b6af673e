"""Publishing a training run as a model of a zoo: a diffusers folder with safetensors, a card and a lock.

Everything is checked before the first weight is read, and nothing is to be seen in the zoo before all of it is there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from dailies.curation import inside
from dailies.curation.config import offered
from dailies.curation.downloads import quiet_loading
from dailies.curation.errors import Unsafe, UsageError
from dailies.curation.model_folders import refuse_code
from dailies.curation.packages import DIFFUSION, need
from dailies.curation.plain_text import counted
from dailies.curation.progress import progress_in_force
from dailies.zoo.assemble import assemble, check
from dailies.zoo.captioner_record import CaptionerRun
from dailies.zoo.captioners import publish_captioner
from dailies.zoo.card import CARD, CardFacts, card
from dailies.zoo.catalog import ENTRIES
from dailies.zoo.entry import SamplingDefaults, Sources, ZooEntry
from dailies.zoo.formats import safetensors_info
from dailies.zoo.load import pipeline_spec
from dailies.zoo.pipelines import BY_TASK, PipelineSpec
from dailies.zoo.provenance import look_up
from dailies.zoo.published_folder import dailies_version, forget_places
from dailies.zoo.run_record import WEIGHTS, PhaseRecord, RunRecord
from dailies.zoo.store import ENTRY, Store

SAMPLES = "samples.png"
PNG = b"\x89PNG\r\n\x1a\n"  # how such a file begins


def publish(
    run: str | Path,
    *,
    name: str,
    to: str | Path,
    phase: str | None = None,
    which: str = "ema",
    licence: str | None = None,
) -> ZooEntry:
    """Publish a phase of the training run at ``run``, or the captioner that it made, as ``name`` in the zoo at ``to``.

    Args:
        phase: by default the last one that is done; a captioner's run has none.
        which: ``ema`` weights, or the ``last`` ones of the optimiser.
        licence: an SPDX id; by default the recipe's.

    Raises ``UsageError`` (``NameTaken`` among them) before any work for whatever is absent or does not fit together.
    """
    if CaptionerRun.is_there(run):
        if phase is not None:
            raise UsageError(f"phase={phase!r}: {run} is a run of train captioner, which has no phases; leave it out")
        return publish_captioner(run, name=name, to=to, licence=licence)
    need(DIFFUSION, by="zoo publish")
    store = Store(to)
    store.check_free(name, ENTRIES)
    record = RunRecord.read(run)
    chosen = record.choose(phase)
    spec = _spec(record, chosen)
    unet = _unet(record, chosen, which)
    check(spec, unet, record.models)
    for each in record.phases:
        if (sample := _open_sample(record, each)) is not None:
            sample.close()
    with progress_in_force()("publish", None, "reading weights") as bar, store.adding(name) as folder:
        pipeline = assemble(spec, unet, record.models, record.sampling(chosen))
        bar.advance(0, note="writing weights")
        with quiet_loading("diffusers", "transformers"):
            pipeline.save_pretrained(str(folder), safe_serialization=True)
        forget_places(folder)
        # An entry that `load_pipeline` would refuse must not be published.
        refuse_code(folder)
        if pipeline_spec(folder) is not spec:
            raise AssertionError(f"{folder}: saved as another pipeline than {spec.name}")
        entry = _entry(name, record, chosen, spec, folder, which, licence)
        facts = CardFacts(
            entry=entry,
            run=record,
            phase=chosen,
            export=record.export,
            clips=look_up(record.data, (clip for phase in record.phases for clip in phase.first_clip_ids)),
            pictures=_copy_samples(record, chosen, folder),
            parts=safetensors_info.parts(folder),
        )
        (folder / CARD).write_text(card(facts), encoding="utf-8")
        (folder / ENTRY).write_text(entry.to_json(), encoding="utf-8")
    return entry


def _spec(run: RunRecord, phase: PhaseRecord) -> PipelineSpec:
    """Return the pipeline to publish ``phase`` as. Raises ``UsageError`` where there is none."""
    spec = BY_TASK.get(phase.task)
    if spec is None:
        others = [other.name for other in run.phases if other.done and other.task in BY_TASK]
        begun = [other.name for other in run.phases if not other.done and other.task in BY_TASK]
        hint = f"; phases that can: {', '.join(others)}" if others else ""
        if begun and not others:
            hint = f"; phase {begun[0]} can, and is not finished: repeat dailies train, which goes on"
        raise UsageError(
            f"phase {phase.name!r} is {phase.task}, which cannot be published yet ({', '.join(BY_TASK)} can){hint}"
        )
    if run.objective(phase) != "edm":
        raise UsageError(
            f"phase {phase.name!r} was trained by {run.objective(phase)} matching, which no published pipeline samples;"
            " train it with objective edm"
        )
    return spec


def _unet(run: RunRecord, phase: PhaseRecord, which: str) -> Path:
    """Return the folder of the weights to publish."""
    if which not in WEIGHTS:
        raise UsageError(f"weights={which!r}: no such weights{offered(which, WEIGHTS)}")
    if not phase.checkpoint:
        raise UsageError(f"phase {phase.name!r} of {run.folder} has no checkpoint")
    folder = inside.inside_whole(run.folder, f"{phase.checkpoint}/{WEIGHTS[which]}")
    if not folder.is_dir():
        raise UsageError(f"weights={which!r}: {folder.parent} has no {WEIGHTS[which]}/")
    return folder


def _copy_samples(run: RunRecord, chosen: PhaseRecord, folder: Path) -> Mapping[str, str]:
    """Copy the phases' sample pictures into ``folder``; return phase → file. One that is gone is left out."""
    copied = {}
    for phase in run.phases:
        source = _open_sample(run, phase)
        if source is None:
            continue
        target = SAMPLES if phase is chosen else f"samples-{phase.name}.png"
        with source, os.fdopen(inside.create(folder, target), "wb") as copy:
            shutil.copyfileobj(source, copy)
        copied[phase.name] = target
    return copied


def _open_sample(run: RunRecord, phase: PhaseRecord) -> BinaryIO | None:
    """Open a phase's sample picture; ``None`` where there is none.

    Raises ``Unsafe`` for what is no picture of the run: a model is for others to see.
    """
    if not phase.samples or not run.file(phase.samples).is_file():
        return None
    source = os.fdopen(inside.open_inside(run.folder, phase.samples), "rb")
    if source.read(len(PNG)) != PNG:
        source.close()
        raise Unsafe(f"samples={phase.samples!r}: is no PNG, as the samples of a run are; take it out of run.json")
    source.seek(0)
    return source


def _entry(
    name: str,
    run: RunRecord,
    phase: PhaseRecord,
    spec: PipelineSpec,
    folder: Path,
    which: str,
    licence: str | None,
) -> ZooEntry:
    parameters, size = safetensors_info.size(folder)
    options, defaults = run.sampling(phase), SamplingDefaults()
    return ZooEntry(
        name=name,
        task=phase.task,  # type: ignore[arg-type]  # it has a pipeline
        pipeline=spec.name,
        size=phase.size,
        frames=phase.frames,
        fps=phase.fps,
        fps_range=(min(phase.trained_fps), max(phase.trained_fps)) if phase.trained_fps else None,
        licence=licence or run.recipe.get("licence") or run.recipe.get("license"),
        parameters=parameters,
        bytes=size,
        about=f"{spec.input.phrase} → {counted(phase.frames, 'frame')} of {phase.size[0]}×{phase.size[1]}",
        published=datetime.now(UTC).isoformat(timespec="seconds"),
        version=dailies_version(),
        sampling=SamplingDefaults(
            steps=int(options.get("steps", defaults.steps)),
            guidance=_guidance(options.get("guidance"), spec),
            motion_bucket=int(options.get("motion_bucket", defaults.motion_bucket)),
            noise_aug=float(options.get("noise_aug", defaults.noise_aug)),
        ),
        sources=Sources(
            recipe=run.recipe.get("name"),
            recipe_hash=run.recipe_hash,
            phase=phase.name,
            checkpoint=phase.checkpoint,
            weights=which,
            data=run.export.name or Path(run.data).name,
            clips=phase.clips,
            selection=run.export.selection,
            curation=run.export.recipe,
            curation_hash=run.export.recipe_hash,
        ),
    )


def _guidance(weights: Any, spec: PipelineSpec) -> tuple[float, float]:
    """Return the weights of the first and the last frame, of a recipe's number or pair."""
    if weights is None:
        return spec.guidance
    first, last = weights if isinstance(weights, list) else (weights, weights)
    return float(first), float(last)
