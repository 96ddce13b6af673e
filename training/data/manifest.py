"""The manifest of precomputed latents, ``latents.json``: what gives their values a meaning, and which phases they fit.

An export of latents holds, in place of each clip's bytes, K crops of it as the frozen models encode them
(``latent_crops``). A phase that asks for something else than they were made for is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from dailies.curation import inside, schema
from dailies.curation.config import format_error, read_json
from dailies.curation.errors import ExportError, RecipeError
from dailies.curation.litter import without_litter
from dailies.training.diffusion.encoders import Models, inspect_encoders
from dailies.training.recipes.phase import Bucket, Phase, Rule
from dailies.training.recipes.recipe import TrainingRecipe
from dailies.training.recipes.tasks import Task
from dailies.zoo.formats.clip_folders import TOKENIZER_FILES, tokenizer_folder
from dailies.zoo.formats.configs import read_config
from dailies.zoo.formats.hashes import sha256_of

FILE = "latents.json"
FORMAT = 1
CROPS, TEXT = "views", "text_"  # columns; the latter's names end in those of the captions


@dataclass(frozen=True, kw_only=True)
class LatentsManifest:
    """A manifest is what ``latents.json`` holds; its fields are that file's keys.

    Args:
        source, source_path: The export that the latents are made of, its name and place; the file has the name for both,
            but for files of before.
        source_content: What it held, as ``shards_content`` tells it; ``None`` in manifests made before it was kept.
        recipe, recipe_hash, phase, task: What they are made for; ``fps`` (1/s), ``buckets``, ``crop`` and ``select`` are
            that phase's.
        views: Crops of each clip (K), drawn by ``seed``.
        shown: Which of a crop's frames are kept as pixels, to condition on.
        vae, text_encoder: sha256 of the weights.
        tokenizer: sha256 of what the text encoder's tokenizer is loaded from; ``None`` without texts, and in manifests made
            before it was kept.
        factor: px a latent.
        captions: Columns of texts, which only some tasks have: of ``text_tokens`` tokens (L), ``text_width`` wide (D).
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
    source_content: str | None = None
    tokenizer: str | None = None
    version: str = ""
    format: int = FORMAT

    @property
    def fingerprint(self) -> str:
        """Return 8 hex digits over all that the values follow from: the export's content, in older manifests its place."""
        return schema.fingerprint(self._meaning())

    def differing(self, existing: LatentsManifest) -> list[str]:
        """Return the fields in which ``existing`` latents differ from those that this manifest asks for.

        Latents made before contents were kept are told by the place of their export, and of those made before tokenizers
        were kept, any will do.
        """
        asked = self if existing.source_content is not None else replace(self, source_content=None)
        if existing.tokenizer is None:
            asked = replace(asked, tokenizer=None)
        ours, theirs = asked._meaning(), existing._meaning()
        return [name for name in ours | theirs if ours.get(name) != theirs.get(name)]

    def _meaning(self) -> dict[str, Any]:
        meaning = asdict(self)
        place = "source_content" if self.source_content is None else "source_path"
        for name in ("source", "recipe", "recipe_hash", "phase", "task", "version", place):
            del meaning[name]
        if self.tokenizer is None:  # so that latents without texts, and those of before, keep their fingerprint
            del meaning["tokenizer"]
        return meaning

    @property
    def text(self) -> str:
        """Return the file's text, which names the export and not where on a disk it lies."""
        return json.dumps(asdict(self) | {"source_path": self.source}, indent=1) + "\n"

    def moments_shape(self, bucket: int) -> tuple[int, int, int, int]:
        """Return (T, 8, h, w) of a crop of a bucket."""
        width, height = self.buckets[bucket].size
        return self.buckets[bucket].frames, 8, height // self.factor, width // self.factor


def build_manifest(
    recipe: TrainingRecipe, phase: Phase, models: Models, *, source: str, content: str, views: int, version: str
) -> LatentsManifest:
    """Return the manifest of latents of the export at ``source`` (path or URL) for ``phase``; weights are hashed, not
    loaded. ``content``: what ``shards_content`` says of the export.

    Raises ``ExportError`` naming the field of a phase that no latents of clips can be made for, or the model missing.
    """
    if phase.images != "frames" and not phase.task_spec.video:
        raise ExportError(
            f"phase {phase.name}: images={phase.images!r}: the phase trains on no clips; latents are made of clips only"
        )
    if views < 1:
        raise ExportError(f"views={views}: give a positive whole number")
    dims = inspect_encoders(models)
    assert models.vae is not None
    for shape in phase.shapes:
        if any(side % dims.factor for side in shape.size):
            width, height = shape.size
            raise ExportError(f"phase {phase.name}: size={width}x{height}: the VAE needs multiples of {dims.factor} px")
    config = read_config(models.vae)
    manifest = LatentsManifest(
        source=source.rpartition("/")[2],
        source_path=source,
        source_content=content,
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
        return manifest
    if models.text is None:
        raise ExportError(f"phase {phase.name}: task={phase.task}: needs a text encoder; give one as text")
    return replace(
        manifest,
        captions=tuple(column for column, _ in recipe.captions),
        text_encoder=weights_hash(models.text),
        tokenizer=tokenizer_hash(models.text),
        text_tokens=recipe.text_tokens,
        text_width=dims.text_width,
    )


def read_manifest(folder: Path) -> LatentsManifest | None:
    """Return ``None`` where the export holds videos. Raises ``ExportError`` for a file that is not of this format."""
    path = folder / FILE
    return parse_manifest(inside.read_bytes(folder, FILE), str(path)) if os.path.lexists(path) else None


def parse_manifest(data: bytes, path: str) -> LatentsManifest:
    """Parse the ``latents.json`` that lies at ``path``. Raises ``ExportError`` for what is not of this format."""
    try:
        # Not validate_json: in it a bucket, strict by itself, refuses lists for tuples.
        manifest = TypeAdapter(LatentsManifest).validate_python(read_json(data, f"{path}:", ExportError), strict=False)
    except ValidationError as error:
        raise ExportError(f"{path}: {format_error(error)}") from error
    except RecipeError as error:  # of a bucket
        raise ExportError(f"{path}: {error}") from error
    if manifest.format != FORMAT:
        raise ExportError(f"{path}: format={manifest.format}: this version of dailies reads format {FORMAT}")
    return manifest


def weights_hash(folder: str) -> str:
    """Return the sha256 of the file with a model's weights, or of the lines "sha256 name" where they lie in several.

    Raises ``ExportError`` where there is none.
    """
    files = list(without_litter(Path(folder), "*.safetensors"))
    plain = [path for path in files if path.name.count(".") == 1] or files  # a second dot names a variant, as fp16
    if not plain:
        raise ExportError(f"{folder}: holds no weights; give a folder with *.safetensors")
    hashes = sha256_of(Path(folder), {path.name: path for path in plain})
    if len(plain) == 1:
        return hashes[plain[0].name]
    return _joint(hashes)


def tokenizer_hash(folder: str) -> str:
    """Return the sha256 of the lines "sha256 name" of the files that the tokenizer of a text encoder is loaded from."""
    place = tokenizer_folder(Path(folder))
    return _joint(sha256_of(place, {name: place / name for name in TOKENIZER_FILES if (place / name).is_file()}))


def _joint(hashes: Mapping[str, str]) -> str:
    return hashlib.sha256("".join(f"{digits} {name}\n" for name, digits in hashes.items()).encode()).hexdigest()


# ---- whether they fit -----------------------------------------------------------------------------------------------


def check_fit(
    recipe: TrainingRecipe, phase: Phase, manifest: LatentsManifest, folder: Path, models: Models | None = None
) -> None:
    """Raise ``ExportError`` naming the field in which ``phase`` asks for something else than latents in ``folder`` are
    for. Weights are compared where ``models`` are given."""
    for problem in _misfits(recipe, phase, manifest, f"the latents in {folder}"):
        raise ExportError(f"phase {phase.name}: {problem}")
    if models is not None:
        check_weights(phase, manifest, models)


def check_weights(phase: Phase, manifest: LatentsManifest, models: Models) -> None:
    """Raise ``ExportError`` where latents were made by another VAE, text encoder or tokenizer than ``models``' own."""
    weights = [("vae", models.vae, manifest.vae, weights_hash, "weights")]
    if phase.task_spec.cross_attention == "text":
        weights.append(("text", models.text, manifest.text_encoder or "", weights_hash, "weights"))
        if manifest.tokenizer is not None:
            weights.append(("text", models.text, manifest.tokenizer, tokenizer_hash, "a tokenizer"))
    for field, folder, made_by, hash_of, what in weights:
        if folder is not None and (asked := hash_of(folder)) != made_by:
            raise ExportError(
                f"phase {phase.name}: {field}={folder}: has {what} of sha256 {asked[:16]}…; the latents of "
                f"{manifest.source} were made by {made_by[:16]}…"
            )


def _misfits(recipe: TrainingRecipe, phase: Phase, manifest: LatentsManifest, latents: str) -> Iterator[str]:
    """Yield ``FIELD=VALUE: what is wrong`` for each field; ``latents`` names them."""
    if manifest.fps != phase.fps:
        yield f"fps={phase.fps:g}: {latents} were made at {manifest.fps:g} fps"
    elif phase.trained_fps != (manifest.fps,):
        yield f"rates={phase.rates}: {latents} were made at {manifest.fps:g} fps alone"
    if set(manifest.buckets) != set(phase.shapes):
        fields = ["size", "frames"] if len(manifest.buckets) == len(phase.shapes) == 1 else ["buckets"]
        different = [name for name in fields if _each(manifest.buckets, name) != _each(phase.shapes, name)]
        field = (different or fields)[0]
        yield f"{field}={_named(phase.shapes, field)}: {latents} have {_named(manifest.buckets, field)}"
    if manifest.crop != phase.crop:
        yield f"crop={phase.crop}: {latents} were made with {manifest.crop} crops"
    kind = phase.task_spec
    if not set(kind.conditioning_frames) <= set(manifest.shown):
        kept = f"keep frames {_listed(manifest.shown)}" if manifest.shown else "keep no frames"
        yield (
            f"task={phase.task}: conditions on frames {_listed(kind.conditioning_frames)}; {latents}, "
            f"for {manifest.task}, {kept}"
        )
    if phase.image_share and phase.images == "frames" and phase.size not in _each(manifest.buckets, "size"):
        size = f"{phase.size[0]}x{phase.size[1]}"
        yield (
            f"image_share={phase.image_share:g}: needs pictures of {size} px; {latents} have "
            f"{_named(manifest.buckets, 'size')}"
        )
    if kind.cross_attention != "text":
        return
    missing = [column for column, _ in recipe.captions if column not in manifest.captions]
    if missing:
        yield f"caption={missing[0]}: {latents} have texts of {', '.join(manifest.captions) or 'no column'}"
    if manifest.text_tokens != recipe.text_tokens:
        yield f"text_tokens={recipe.text_tokens}: {latents} have texts of {manifest.text_tokens} tokens"


def _each(shapes: Sequence[Bucket], name: str) -> set[Any]:
    return {getattr(shape, name) for shape in shapes} if name != "buckets" else set(shapes)


def _named(shapes: Sequence[Bucket], field: str) -> str:
    """Return the ``field`` (size, frames or buckets) of all shapes, for people."""
    names = {
        "size": [f"{shape.size[0]}x{shape.size[1]}" for shape in shapes],
        "frames": [str(shape.frames) for shape in shapes],
        "buckets": [f"{shape.size[0]}x{shape.size[1]}x{shape.frames}" for shape in shapes],
    }
    return ", ".join(dict.fromkeys(names[field]))


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
