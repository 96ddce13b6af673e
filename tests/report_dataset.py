"""Datasets for the tests of reports: rows of every table, made from arrays that the tests count on their own, in seconds."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from dailies.curation import schema
from dailies.curation.tables import DatasetTables
from dailies.pipelines.recipes.recipe import CurationRecipe, parse_recipe
from dailies.pipelines.recipes.steps import SelectStep
from dailies.pipelines.run_rows import record_run, record_times
from dailies.pipelines.selecting import clips_table, measures, select_step

STEPS: list[dict[str, Any]] = [
    {"observe": {"observers": ["boundary", "luma", "motion", "sharpness"], "evidence": {"fps": 1}}},
    {"cut": {"detector": "boundary", "min_seconds": 2}},
    {"score": {"scorer": "text"}},
    {"caption": {"captioner": "motion"}},
    {
        "select": {
            "rules": {
                "motion": {"min": 0.5, "nulls": "drop"},
                "luma": {"max_quantile": 0.9},
                "text_area": {"max": 0.07, "nulls": "drop"},
                "manifest.license": {"one_of": ["cc"], "nulls": "drop"},
            }
        }
    },
]
HOSTILE = "</script><script>document.title='owned'</script><img src=https://evil.example/x onerror=alert(1)>\u202egp4"
SECRET = "Sup3rS3cretT0ken"
UNLICENSED: dict[int, str | None] = dict.fromkeys(range(0, 10000, 7))  # rows whose manifest says nothing of it
TICKS = 1000  # a second


@dataclass(frozen=True)
class Truth:
    """What a dataset was made of: ids and values by clip, NaN for none; ``copies``: row of the clip that each is a copy of."""

    path: Path
    ids: list[str]
    status: NDArray[np.str_]
    seconds: NDArray[np.float64]
    motion: NDArray[np.float64]
    luma: NDArray[np.float64]
    text: NDArray[np.float64]
    cc: NDArray[np.bool_]
    copies: NDArray[np.bool_]
    recipe: CurationRecipe


def picture(number: int, size: tuple[int, int] = (160, 90), noise: bool = False) -> bytes:
    """A JPEG that differs by ``number``; of ``noise``, which takes the most bytes that a picture can."""
    draw = np.random.default_rng(number)
    if noise:
        pixels = draw.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    else:
        across = np.linspace(0, 255, size[0])[None, :, None] * draw.uniform(0.2, 1, 3)
        pixels = np.broadcast_to(across, (size[1], size[0], 3)).astype(np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=80)
    return data.getvalue()


def build(path: Path, clips: int, *, each: int = 4, noise: bool = False, seed: int = 3) -> Truth:
    """Make a dataset of ``clips``, ``each`` from a source, with a selection of them; some are copies, some lack a value."""
    draw = np.random.default_rng(seed)
    recipe = parse_recipe({"name": "reported", "steps": STEPS})
    dataset = DatasetTables.create(path)
    number = np.arange(clips)
    source = number // each
    content = source.copy()
    copies = (draw.random(clips) < 0.05) & (source > 0) & (number % each == 0)
    content[copies] = source[copies] - 1  # and the same span, so that it is a copy of that source's first clip
    status = np.where(draw.random(clips) < 0.1, "too_short", "ok")
    status[copies] = status[np.maximum(0, (source[copies] - 1) * each)]
    seconds = np.round(draw.uniform(2, 9, clips), 3)
    motion = np.where(draw.random(clips) < 0.04, np.nan, draw.lognormal(0, 1, clips))
    luma, text = draw.uniform(0, 255, clips), np.maximum(0, draw.normal(0.02, 0.04, clips))
    text[draw.random(clips) < 0.03] = np.nan
    cc = draw.random(clips) < 0.8
    ids = [schema.digest("clip", n) for n in number]
    sources = [schema.digest("source", n) for n in range(int(source[-1]) + 1)]
    _observations(dataset, recipe, sources, each, noise)
    ok = status == "ok"

    def known(values: NDArray[np.float64]) -> pa.Array:
        return pa.array([None if np.isnan(value) else float(value) for value in values], pa.float32())

    rows = pa.table(
        {
            "clip_id": ids,
            "source_id": [sources[n] for n in source],
            "content_id": [f"content-{n}" for n in content],
            "uri": [f"/videos/{n} {HOSTILE if n == 1 else 'a'}.mp4" for n in source],
            "manifest": [
                json.dumps({"license": "cc" if yes else UNLICENSED.get(n, "other")}) for n, yes in enumerate(cc)
            ],
            "split": ["train"] * clips,
            "status": list(status),
            "stream": [0] * clips,
            "start": number % each,
            "end": number % each + 9 * TICKS,
            "time_base_num": [1] * clips,
            "time_base_den": [TICKS] * clips,
            "start_seconds": (number % each) / TICKS,
            "seconds": seconds,
            "motion": known(motion),
            "motion_camera": [("pan", "zoom", "static")[n % 3] for n in number],
            "luma": known(luma),
        }
    )
    dataset.table(recipe.clips, schema.clips(measures(recipe))).append(rows, keys=())
    for step in recipe.before(None):
        table = dataset.table(recipe.annotations(step), schema.scores(step.spec.columns))
        base = {"clip_id": rows["clip_id"].filter(ok), "source_id": rows["source_id"].filter(ok)}
        words = [HOSTILE if n == 2 else f"the camera moves {'very ' * (n % 4)}slowly" for n in number[ok]]
        values = {"text_area": known(text[ok])} if step.name == "text" else {"text": words}
        table.append(pa.table({**base, "status": ["ok"] * int(ok.sum()), **values}), keys=())
    run = record_run(dataset, recipe)
    record_times(dataset, run, {"observe": 12.5, "cut": 0.5, "text": 30.0, "select.main": 0.2})
    assert clips_table(dataset, recipe).exists()
    select_step(dataset, recipe, recipe.step(SelectStep))
    return Truth(path, ids, status, seconds, motion, luma, text, cc, copies & ok, recipe)


def _observations(dataset: DatasetTables, recipe: CurationRecipe, sources: list[str], each: int, noise: bool) -> None:
    table = dataset.table(recipe.observations, schema.OBSERVATIONS)
    jpegs = [picture(n, (320, 180) if noise else (160, 90), noise) for n in range(32)]
    for start in range(0, len(sources), 50):
        rows = []
        for at, identity in enumerate(sources[start : start + 50], start):
            evidence = [{"pts": TICKS + 1500 * n, "jpeg": jpegs[(at + n) % len(jpegs)]} for n in range(5)]
            evidence.append({"pts": each + 9 * TICKS, "jpeg": jpegs[(at + 16) % len(jpegs)]})  # after every clip
            rows.append(
                {
                    **schema.empty_row(schema.OBSERVATIONS),
                    "source_id": identity,
                    "uri": f"/videos/{at} a.mp4",
                    "segment": 0,
                    "segments": 1,
                    "unit": f"{identity}/0",
                    "content_id": f"content-{at}",
                    "status": "ok",
                    "manifest": json.dumps({"license": "cc"}),
                    "seconds": 10.0,
                    "evidence": evidence,
                }
            )
        table.append(rows)
    failure = schema.failed("observe", "unreadable", f"no video at https://me:{SECRET}@host.example/a.mp4 {HOSTILE}")
    broken = {"source_id": "broken", "uri": "/videos/broken.mp4", "segment": 0, "unit": "broken/0", **failure}
    table.append([{**schema.empty_row(schema.OBSERVATIONS), **broken}])
