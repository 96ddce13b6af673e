"""A small captioned export of the rendered world, written in the schema of ``dailies.curation.export`` without curating
anything, and the built-in models that go with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from dailies.curation import export, export_schema, schema, world
from dailies.curation.export import ExportManifest
from dailies.training.diffusion.encoders import Models

BUILTIN = Path(__file__).resolve().parents[1] / "zoo" / "builtin"
MODELS = Models(
    vae=str(BUILTIN / "vae-world"),
    vae_temporal=str(BUILTIN / "vae-world-temporal"),
    text=str(BUILTIN / "clip-world"),
    image=str(BUILTIN / "clip-world"),
)
COLUMNS = [
    schema.field("motion", pa.float32(), "how much moves", "px"),
    schema.field("caption_fuse", pa.string(), "what it shows"),
]
MORE = [
    *COLUMNS,
    schema.field("caption_coca", pa.string(), "what its middle frame shows"),
    schema.field("elevation", pa.float32(), "of the camera", "°"),
]


def build_export(
    folder: Path,
    *,
    clips: int,
    seed: int = 7_000_000,
    size: tuple[int, int] = (320, 180),
    frames: tuple[int, int] = (36, 72),
    validation: int = 8,
    columns: list[pa.Field] = COLUMNS,
) -> Path:
    """``clips`` one-shot clips at 24 1/s; every ``validation``-th is of the validation split."""
    (folder / "data").mkdir(parents=True)
    rows = [_row(folder, number, seed, size, frames, validation) for number in range(clips)]
    index: list[dict[str, Any]] = []
    for split in ("train", "validation"):
        chosen = [row for row in rows if row["split"] == split]
        name = f"{split}-00000-of-00001.parquet"
        path = str(folder / "data" / name)
        index += export.write_shard(path, name, chosen, columns, lambda row: {"video": row["bytes"]})
    manifest = ExportManifest.of(
        pa.Table.from_pylist(index, schema=export_schema.export_index(columns)),
        name=folder.name,
        recipe="rendered",
        recipe_hash="00000000",
        selection="all",
        rules={},
        limits={},
        tables={},
        extraction={"mode": "encode"},
        seed=seed,
        version="0",
    )
    (folder / "export.json").write_text(manifest.to_json(), encoding="utf-8")
    return folder


def _row(
    folder: Path, number: int, seed: int, size: tuple[int, int], frames: tuple[int, int], validation: int
) -> dict[str, Any]:
    script = world.write_script((seed, number), shots=1, size=size, shot_frames=frames, text=0, flashes=0, still=0.05)
    path = world.encode(script, folder / "clip.mp4")
    data = path.read_bytes()
    path.unlink()
    truth = world.truth(script)
    return {
        "clip_id": schema.digest("clip", seed, number),
        "source_id": schema.digest("source", seed, number),
        "content_id": schema.digest("content", seed, number),
        "uri": f"/videos/{number}.mp4",
        "split": "validation" if number % validation == validation - 1 else "train",
        "start": 0,
        "end": script.frames,
        "time_base_num": 1,
        "time_base_den": 24,
        "seconds": script.frames / 24,
        "frames": script.frames,
        "fps": 24.0,
        "width": size[0],
        "height": size[1],
        "motion": truth.shots[0].flow,
        "caption_fuse": truth.shots[0].caption,
        "caption_coca": f"{number} of a world",
        "elevation": float(10 * number),
        "bytes": data,
    }
