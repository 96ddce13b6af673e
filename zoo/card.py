"""The card of a published model: README.md, for people first, with a front matter that hubs read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dailies.zoo.entry import ZooEntry
from dailies.zoo.provenance import Clip, Export
from dailies.zoo.run_folder import Phase, Run

DASH = "–"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that a card tells. ``clips``: clip id → where it lies; ``pictures``: phase name → file in the folder."""

    entry: ZooEntry
    run: Run
    phase: Phase
    export: Export
    clips: Mapping[str, Clip]
    pictures: Mapping[str, str]


def card(facts: Facts, parts: Mapping[str, tuple[int, int]]) -> str:
    """README.md. ``parts``: component → (parameters, bytes)."""
    return "\n".join(
        [
            *_front(facts.entry),
            *_head(facts),
            *_running(facts.entry),
            *_training(facts),
            *_data(facts),
            *_folder(facts.entry, parts),
            *_limits(facts),
        ]
    )


def _front(entry: ZooEntry) -> list[str]:
    return [
        "---",
        f"license: {json.dumps(entry.licence or 'unknown')}",
        f"pipeline_tag: {entry.task}",
        "library_name: diffusers",
        "tags:",
        "- video",
        "- dailies",
        "---",
        "",
    ]


def _head(facts: Facts) -> list[str]:
    entry, phase = facts.entry, facts.phase
    given = "a prompt" if entry.task == "text-to-video" else "an image"
    clip = (
        f"{phase.frames} frames of {phase.size[0]} × {phase.size[1]} px{f' at {phase.fps:g} fps' if phase.fps else ''}"
    )
    picture = facts.pictures.get(phase.name)
    return [
        f"# {entry.name}",
        "",
        f"Makes {clip} from {given}. {count(entry.parameters)} parameters, {megabytes(entry.bytes)}, all parts together.",
        "",
        f"Phase `{phase.name}` of training recipe {_code(facts.run.recipe.get('name'))}"
        f", {_weights(entry)} after {phase.steps:,} steps,"
        f" published {(entry.published or '')[:10]} by dailies {entry.version or '(version unknown)'}.",
        "",
        *([f"![samples of phase {phase.name}]({picture})", ""] if picture else []),
    ]


def _weights(entry: ZooEntry) -> str:
    return "averaged (EMA) weights" if entry.sources.weights == "ema" else "the optimiser's last weights"


# ---- how to run it --------------------------------------------------------------------------------------------------


def _running(entry: ZooEntry) -> list[str]:
    given = '--prompt "…"' if entry.task == "text-to-video" else "--image first.png"
    return [
        "## Run it",
        "",
        "```sh",
        f"dailies zoo run {entry.name} {given} --out clip.mp4",
        f"dailies zoo verify {entry.name}    # every file against its SHA-256, offline",
        "```",
        "",
        "```python",
        *(_svd_snippet(entry) if entry.task == "image-to-video" else _own_snippet(entry)),
        "```",
        "",
    ]


def _svd_snippet(entry: ZooEntry) -> list[str]:
    said = entry.sampling
    return [
        "from diffusers import StableVideoDiffusionPipeline",
        "from diffusers.utils import export_to_video, load_image",
        "",
        'pipe = StableVideoDiffusionPipeline.from_pretrained("path/to/this/folder", use_safetensors=True)',
        f'image = load_image("first.png").resize({entry.size})',
        f"frames = pipe(image, {_call(entry)}, noise_aug_strength={said.noise_aug:g}).frames[0]",
        f'export_to_video(frames, "clip.mp4", fps={entry.fps or 7:g})',
    ]


def _own_snippet(entry: ZooEntry) -> list[str]:
    return [
        "# diffusers has no text-to-video pipeline over this UNet: the class comes with dailies, not with this folder.",
        "from diffusers.utils import export_to_video",
        "from dailies.zoo.text_to_video import TextToVideoPipeline",
        "",
        'pipe = TextToVideoPipeline.from_pretrained("path/to/this/folder", use_safetensors=True)',
        f'frames = pipe("…", {_call(entry)}).frames[0]',
        f'export_to_video(frames, "clip.mp4", fps={entry.fps or 7:g})',
    ]


def _call(entry: ZooEntry) -> str:
    """The keyword arguments that both pipelines take: without them diffusers assumes SVD's own 1024 × 576."""
    width, height = entry.size or (1024, 576)
    said = entry.sampling
    return (
        f"width={width}, height={height}, num_frames={entry.frames}, fps={entry.fps or 7:g},\n"
        f"    num_inference_steps={said.steps}, min_guidance_scale={said.guidance[0]:g},"
        f" max_guidance_scale={said.guidance[1]:g},\n    motion_bucket_id={said.motion_bucket}"
    )


# ---- where it came from ---------------------------------------------------------------------------------------------


def _training(facts: Facts) -> list[str]:
    rows = []
    for phase in facts.run.phases:
        name = f"**{phase.name}** ← this model" if phase is facts.phase else phase.name
        shape = f"{phase.size[0]}×{phase.size[1]}" + (f" × {phase.frames}" if phase.frames > 1 else "")
        first, last = (phase.validation[0], phase.validation[-1]) if phase.validation else (None, None)
        steps = f"{phase.steps:,}" if phase.done else f"{phase.steps:,}, not done"
        clips = DASH if phase.clips is None else f"{phase.clips:,}"
        cells = [name, phase.task, shape, clips, steps, length(phase.seconds), _loss(first), _loss(last)]
        rows.append(f"| {' | '.join(cells)} |")
    others = [
        f"![samples of phase {name}]({picture})" for name, picture in facts.pictures.items() if name != facts.phase.name
    ]
    return [
        "## How it was trained",
        "",
        "| phase | task | size | clips | steps | time | validation loss, first | last |",
        "|---|---|---|---:|---:|---:|---:|---:|",
        *rows,
        "",
        "Losses are on clips held out from training, at the step given in parentheses.",
        "",
        f"Training recipe {_code(facts.run.recipe.get('name'))}, hash `{facts.run.recipe_hash}`;"
        f" checkpoint {_code(facts.phase.checkpoint)}.",
        "",
        *[line for picture in others for line in (picture, "")],
    ]


def _loss(pair: tuple[int, float] | None) -> str:
    return DASH if pair is None else f"{pair[1]:.4g} ({pair[0]:,})"


def _data(facts: Facts) -> list[str]:
    export = facts.export
    held = f": {export.clips:,} clips from {export.sources:,} sources" if export.clips and export.sources else ""
    dailies = f", dailies {export.version}" if export.version else ""
    return [
        "## What it was trained on",
        "",
        f"- export {_code(export.name)} at `{facts.run.data}`{held}",
        f"- selection {_code(export.selection)}{', by the rules below' if export.rules else ''}",
        f"- curation recipe {_code(export.recipe)}, hash {_code(export.recipe_hash)}{dailies}",
        "",
        *_rules(export),
        *_clips(facts),
    ]


def _rules(export: Export) -> list[str]:
    columns = [*export.rules, *(column for column in export.limits if column not in export.rules)]
    if not columns:
        return []
    rows = [
        f"| `{column}` | {_terms(export.rules.get(column))} | {_terms(export.limits.get(column))} |"
        for column in columns
    ]
    return ["| column | rule | limit it came to |", "|---|---|---|", *rows, ""]


def _terms(rule: Any) -> str:
    if not isinstance(rule, dict):
        return DASH if rule is None else f"`{json.dumps(rule)}`"
    said = [
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in rule.items()
        if value is not None
    ]
    return ", ".join(said).replace("|", "\\|") or DASH


def _clips(facts: Facts) -> list[str]:
    shown: dict[str, list[str]] = {}
    for phase in facts.run.phases:
        for clip_id in phase.first_clip_ids:
            shown.setdefault(clip_id, []).append(phase.name)
    rows = []
    for clip_id, phases in shown.items():
        clip = facts.clips.get(clip_id) or Clip(clip_id=clip_id)
        span = DASH
        if clip.start is not None and clip.seconds is not None:
            span = f"{clip.start:.2f} s + {clip.seconds:.2f} s"
        rows.append(f"| `{clip_id}` | {', '.join(phases)} | {_code(clip.uri, DASH)} | {span} |")
    if not rows:
        return []
    return [
        "The first clips that each phase was shown. `index.parquet` of the export leads from any clip to its source;",
        "`dailies sql DATASET` from there to its scores.",
        "",
        "| clip | phases | source | from + length |",
        "|---|---|---|---|",
        *rows,
        "",
    ]


def _folder(entry: ZooEntry, parts: Mapping[str, tuple[int, int]]) -> list[str]:
    said = entry.sampling
    rows = [f"| `{name}` | {count(parameters)} | {megabytes(size)} |" for name, (parameters, size) in parts.items()]
    return [
        "## What is in this folder",
        "",
        "| part | parameters | size |",
        "|---|---:|---:|",
        *rows,
        "",
        f"A diffusers folder for `{entry.pipeline}`, safetensors only. Run by default with {said.steps} steps,"
        f" guidance {said.guidance[0]:g} to {said.guidance[1]:g} over the frames, motion bucket {said.motion_bucket}.",
        "`model.json` is the zoo's entry, `dailies.lock.json` the size and SHA-256 of every file.",
        "",
    ]


def _limits(facts: Facts) -> list[str]:
    entry, phase = facts.entry, facts.phase
    seen = max((one.clips or 0 for one in facts.run.phases), default=0)
    return [
        "## Limits",
        "",
        f"- Licence: {entry.licence or 'not stated by whoever published it; ask before use'}.",
        f"- Trained for {phase.frames} frames at {phase.size[0]} × {phase.size[1]}; other sizes and lengths are untested.",
        *([f"- It has seen {seen:,} clips, and knows nothing beyond them."] if seen else []),
        *[f"- Its data's card says: {line}" for line in facts.export.caveats],
        "- Clips it makes are not filmed: say so where you show them.",
        "",
    ]


# ---- words ----------------------------------------------------------------------------------------------------------


def _code(value: str | None, absent: str = "(not stated)") -> str:
    return f"`{value}`" if value else absent


def count(number: int | None) -> str:
    """Parameters in words: 1.52 B, 12.3 M, 845 k."""
    if number is None:
        return DASH
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)


def megabytes(size: int | None) -> str:
    """Bytes in words: 3.1 GB, 45.2 MB, 12 kB."""
    if size is None:
        return DASH
    if size >= 1e9:
        return f"{size / 1e9:.1f} GB"
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def length(seconds: float | None) -> str:
    """A duration in words: 42 s, 12 min, 3.4 h."""
    if seconds is None:
        return DASH
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
