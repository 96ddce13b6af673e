"""Whole runs on an object store that harms answers all the time end with the same tables as on one that does not."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import fsspec
import pyarrow.parquet as pq
import pytest

from dailies.curation import world
from dailies.curation.tables import DatasetTables, verify
from tests.cutting_proxy import Choose, Fault, Proxy, cutting_proxy
from tests.s3_server import s3_server

pytest.importorskip("moto.server", reason="needs moto[s3] and flask: a real S3 server")

RECIPE = """
name: outages
steps:
  - observe:
      observers: [boundary, luma: {fps: 2, short_side: 90}]
      evidence: {fps: 2, short_side: 90}
  - cut: {detector: boundary, min_seconds: 1, max_seconds: 4}
  - score: {scorer: text}
  - caption: {captioner: coca}
  - select: {name: main, rules: {}}
  - export: {select: main, preset: ultrafast, shard_mb: 1}
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Proxy]]:
    """A bucket's URL, with videos in ``sources``, and a proxy before its server, which the environment does not lead to."""
    films = tmp_path_factory.mktemp("films")
    world.render_world(films, seed=5, videos=4, shots=(3, 4), shot_frames=(30, 60))
    with s3_server("videos") as bucket:
        server = urlsplit(os.environ["AWS_ENDPOINT_URL"])
        assert server.hostname
        assert server.port
        for film in films.glob("*.mp4"):
            fsspec.filesystem("s3").put(str(film), f"{bucket}/sources/{film.name}", ACL="public-read")
        with cutting_proxy(server.hostname, server.port) as proxy:
            yield bucket, proxy


def harming(seed: int) -> Choose:
    """Cut 2 % of the bodies, answer 1 % of requests with 503, and lose the answers to 1 % that were carried out."""
    draw = random.Random(seed)

    def choose(method: str, path: str) -> Fault | None:
        chance = draw.random()
        return "cut" if chance < 0.02 else "busy" if chance < 0.03 else "lose" if chance < 0.04 else None

    return choose


def contents(dataset: DatasetTables) -> dict[str, str]:
    """Everything that must not depend on what the store did meanwhile."""
    out = {}
    for name in dataset.tables():
        rows = dataset.table(name).read()
        if name == "runs":
            out[name] = f"{len(rows)} rows"
            continue
        rows = rows.drop_columns([c for c in ("seconds_taken",) if c in rows.column_names])
        out[name] = repr(sorted(map(repr, rows.to_pylist())))
    for name in dataset.exports():
        export = dataset.folder / "exports" / name
        index = pq.read_table(export.file("index.parquet"), filesystem=export.fs)
        out[name] = repr(sorted(map(repr, index.drop_columns(["bytes"]).to_pylist())))
    return out


def curate(proxy: Proxy, recipe: Path, out: str, *sources: str) -> DatasetTables:
    """Curate through the proxy, in a process of its own: deltalake asks some things while it holds the GIL."""
    arguments = ["curate", *sources, "--out", out, "--recipe", str(recipe), "--engine", "local"]
    environment = os.environ | {"AWS_ENDPOINT_URL": proxy.url}
    done = subprocess.run(
        [sys.executable, "-m", "dailies", *arguments], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return DatasetTables.open(out)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(RECIPE)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["s3", "http"])
def test_a_run_whose_answers_are_harmed_ends_as_any(scheme: str, store: tuple[str, Proxy], recipe: Path) -> None:
    bucket, proxy = store
    films = sorted(fsspec.filesystem("s3").ls(f"{bucket}/sources"))
    sources = [f"{bucket}/sources"] if scheme == "s3" else [f"{proxy.url}/{film}" for film in films]
    whole = contents(curate(proxy, recipe, f"{bucket}/{scheme}/whole", *sources))
    asked = len(proxy.paths)
    for seed in range(3):
        proxy.choose, before = harming(seed), proxy.faults
        try:
            dataset = curate(proxy, recipe, f"{bucket}/{scheme}/{seed}", *sources)
        finally:
            proxy.choose = lambda method, path: None
        assert proxy.faults > before + 5, asked
        assert contents(dataset) == whole
        assert verify(dataset) == []
