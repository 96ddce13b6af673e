"""Latents made beforehand: what an export of them says of itself in ``latents.json``, and which phases it fits.

Such an export holds, in place of each clip's bytes, K views of it as the frozen models see them (``latent_crops``).
What gives these values their meaning stands here; a phase that asks for something else is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import TypeAdapter, ValidationError

from dailies.curation import schema
from dailies.curation.config import format_error
from dailies.curation.errors import ExportError, RecipeError
from dailies.training.recipes.phase import Bucket, Phase, Rule
from dailies.training.recipes.recipe import Recipe
from dailies.training.recipes.tasks import Task
from dailies.zoo.formats.configs import read_config
from dailies.zoo.formats.lock import sha256

if TYPE_CHECKING:
    from dailies.training.diffusion.encoders import Models

FILE = "latents.json"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Facts:
    """``latents.json``: what gives the values their meaning.

    ``source``, ``source_path``: the export they are made of, its name and place. ``recipe_hash``, ``phase``, ``task``:
    what they are made for; ``fps``, ``buckets``, ``crop``, ``select`` are that phase's. ``views``: K of each clip, drawn
    by ``seed``. ``shown``: which of a view's frames are kept as pixels. ``vae``, ``text_encoder``: sha256 of weights.
    ``factor``: px a latent. Texts, which only some tasks have: ``captions`` are the columns, ``text_tokens`` L and
    ``text_width`` D.
    """

    source: str
    source_path: str
    recipe: str
    recipe_hash: str
    phase: str
    task: Task
    fps: float
    buckets: tuple[Bucket, ...]
    crop: Literal["center", "random"]
    select: tuple[Rule, ...]
    reader: Literal["pyav", "decord"]
    views: int
    seed: int
    shown: tuple[int, ...]
    vae: str
    scaling_factor: float
    factor: int
    captions: tuple[str, ...] = ()
    text_encoder: str | None = None
    text_tokens: int | None = None
    text_width: int | None = None
    version: str = ""
    format: int = FORMAT

    @property
    def fingerprint(self) -> str:
        """8 hex digits over all that the values follow from."""
        meaning = asdict(self)
        for name in ("source", "recipe", "recipe_hash", "phase", "task", "version"):
            del meaning[name]
        return schema.fingerprint(meaning)

    @property
    def text(self) -> str:
        """As it stands in the file."""
        return json.dumps(asdict(self), indent=1) + "\n"

    def moments_shape(self, bucket: int) -> tuple[int, int, int, int]:
        """(T, 8, h, w) of a view of a bucket."""
        width, height = self.buckets[bucket].size
        return self.buckets[bucket].frames, 8, height // self.factor, width // self.factor


def facts_of(recipe: Recipe, phase: Phase, models: Models, *, source: str, views: int, version: str) -> Facts:
    """What latents of the export at ``source`` (path or URL) made for ``phase`` would say of themselves; weights are
    hashed only.

    Raises ``ExportError`` naming the field of a phase that no latents of clips can be made for, or the model missing.
    """
    from dailies.training.diffusion.encoders import inspect_encoders

    if phase.images != "frames" and not phase.task_spec.video:
        raise ExportError(
            f"phase {phase.name}: images: frames expected, not {phase.images!r}: there are no clips in it"
        )
    if views < 1:
        raise ExportError(f"views: a positive whole number expected, not {views}")
    dims = inspect_encoders(models)
    assert models.vae is not None
    for shape in phase.shapes:
        if any(side % dims.factor for side in shape.size):
            raise ExportError(f"phase {phase.name}: size: multiples of {dims.factor} px expected, not {shape.size}")
    config = read_config(models.vae)
    facts = Facts(
        source=source.rpartition("/")[2],
        source_path=source,
        recipe=recipe.name,
        recipe_hash=recipe.hash,
        phase=phase.name,
        task=phase.task,
        fps=phase.fps,
        buckets=phase.shapes,
        crop=phase.crop,
        select=phase.select,
        reader=recipe.reader,
        views=views,
        seed=recipe.seed,
        shown=phase.task_spec.conditioning_frames,
        vae=weights_hash(models.vae),
        scaling_factor=config.get("scaling_factor", 0.18215),  # diffusers' default
        factor=dims.factor,
        version=version,
    )
    if phase.task_spec.cross_attention != "text":
        return facts
    if models.text is None:
        raise ExportError(f"models: phase {phase.name} attends to text and needs a text encoder, which is not given")
    return replace(
        facts,
        captions=tuple(column for column, _ in recipe.captions),
        text_encoder=weights_hash(models.text),
        text_tokens=recipe.text_tokens,
        text_width=dims.text_width,
    )


def read_facts(folder: Path) -> Facts | None:
    """``None`` where the export holds videos. Raises ``ExportError`` for a file that is not of this format."""
    path = folder / FILE
    return parsed(path.read_bytes(), str(path)) if path.is_file() else None


def parsed(data: bytes, path: str) -> Facts:
    """What a latents.json at ``path`` says. Raises ``ExportError`` for what is not of this format."""
    try:
        facts = TypeAdapter(Facts).validate_json(
            data, strict=False
        )  # a bucket, strict in Python, is made of lists here
    except ValidationError as error:
        raise ExportError(f"data: {path}: {format_error(error)}") from error
    except RecipeError as error:  # of a bucket
        raise ExportError(f"data: {path}: {error}") from error
    if facts.format != FORMAT:
        raise ExportError(f"data: {path}: format {FORMAT} expected, not {facts.format}")
    return facts


@cache
def weights_hash(folder: str) -> str:
    """sha256 of the file with a model's weights, or of the lines "sha256 name" where they lie in several."""
    found = sorted(Path(folder).glob("*.safetensors")) or sorted(Path(folder).glob("*.bin"))
    plain = [path for path in found if path.name.count(".") == 1] or found  # a second dot names a variant, as fp16
    if not plain:
        raise ExportError(f"models: no weights in {folder}: *.safetensors or *.bin expected")
    if len(plain) == 1:
        return sha256(plain[0])
    return hashlib.sha256("".join(f"{sha256(path)} {path.name}\n" for path in plain).encode()).hexdigest()


# ---- whether they fit -----------------------------------------------------------------------------------------------


def check_fit(recipe: Recipe, phase: Phase, facts: Facts, folder: Path, models: Models | None = None) -> None:
    """Raises ``ExportError`` naming the field in which ``phase`` asks for something else than latents in ``folder`` are
    for. Weights are compared where ``models`` are given."""
    _refuse(phase, f"the latents in {folder}", _misfits(recipe, phase, facts))
    if models is not None:
        check_weights(phase, facts, models)


def check_weights(phase: Phase, facts: Facts, models: Models) -> None:
    """Raises ``ExportError`` where latents were made by another VAE or text encoder than ``models``' own."""
    _refuse(phase, f"the latents of {facts.source}", _other_weights(phase, facts, models))


def _refuse(phase: Phase, what: str, misfits: Iterator[tuple[str, str, str]]) -> None:
    """``misfits``: (field, what latents are for, what is asked)."""
    for field, made, asked in misfits:
        raise ExportError(f"phase {phase.name}: {field}: {what} are for {made}, and {asked} is asked")


def _other_weights(phase: Phase, facts: Facts, models: Models) -> Iterator[tuple[str, str, str]]:
    named = [("vae", models.vae, facts.vae)]
    if phase.task_spec.cross_attention == "text":
        named.append(("text encoder", models.text, facts.text_encoder or ""))
    for field, folder, made in named:
        if folder is not None and (asked := weights_hash(folder)) != made:
            yield field, f"weights of sha256 {made[:16]}…", f"{folder} of sha256 {asked[:16]}…"


def _misfits(recipe: Recipe, phase: Phase, facts: Facts) -> Iterator[tuple[str, str, str]]:
    if facts.fps != phase.fps:
        yield "fps", f"{facts.fps:g} 1/s", f"{phase.fps:g} 1/s"
    if set(facts.buckets) != set(phase.shapes):
        fields = ["size", "frames"] if len(facts.buckets) == len(phase.shapes) == 1 else ["buckets"]
        different = [name for name in fields if _each(facts.buckets, name) != _each(phase.shapes, name)]
        yield (different or fields)[0], _shapes(facts.buckets), _shapes(phase.shapes)
    if facts.crop != phase.crop:
        yield "crop", facts.crop, phase.crop
    spec = phase.task_spec
    if not set(spec.conditioning_frames) <= set(facts.shown):
        kept = f"frames {', '.join(map(str, facts.shown))} kept" if facts.shown else "no frames kept as pixels"
        yield (
            "task",
            f"{facts.task}, with {kept}",
            f"{phase.task}, which shows {', '.join(map(str, spec.conditioning_frames))}",
        )
    if phase.image_share and phase.images == "frames" and phase.size not in _each(facts.buckets, "size"):
        yield "image_share", _shapes(facts.buckets), f"a picture of {phase.size[0]}x{phase.size[1]} px"
    if spec.cross_attention != "text":
        return
    missing = [column for column, _ in recipe.captions if column not in facts.captions]
    if missing:
        yield "caption", f"texts of {', '.join(facts.captions) or 'no column'}", missing[0]
    if facts.text_tokens != recipe.text_tokens:
        yield "text_tokens", str(facts.text_tokens), str(recipe.text_tokens)


def _each(shapes: Sequence[Bucket], name: str) -> set[Any]:
    return {getattr(shape, name) for shape in shapes} if name != "buckets" else set(shapes)


def _shapes(shapes: Sequence[Bucket]) -> str:
    return ", ".join(f"{shape.size[0]}x{shape.size[1]} px × {shape.frames}" for shape in shapes)
