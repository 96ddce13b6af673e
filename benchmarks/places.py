"""What it costs when every URL of a dataset is signed anew, and what reading the places of clips costs afterwards.

    python benchmarks/places.py [--sources 20000] [--clips 10] [--evidence-kb 16] [--json]

Builds a dataset of so many sources in a temporary folder, with so much evidence each (real sources have far more), and
gives each source another signature three times. Seconds, the median of the three; MB written; and what a statement of
``dailies sql`` takes before and after.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs by its path, too

from dailies.curation import schema
from dailies.curation.addresses import public
from dailies.curation.tables import DatasetTables, Receipt, query
from dailies.pipelines import places

PART = 250  # sources of one part
STATEMENTS = {"count": "select count(*) from clips", "uris": "select count(distinct uri) from clips"}


def uri_of(source: int, signature: int) -> str:
    return f"s3://bucket/videos/{source:08d}.mp4?X-Amz-Signature={schema.digest(source, signature) * 2}"


def contents_of(rows: Sequence[Mapping[str, Any]], sizes: Collection[int | None] | None) -> dict[str, str]:
    return {row["address"]: f"c{int(row['uri'].partition('.mp4')[0][-8:])}" for row in rows}


def build(folder: str, sources: int, clips: int, evidence: int) -> DatasetTables:
    dataset = DatasetTables.create(folder)
    observed = dataset.table("observations@00000000", schema.OBSERVATIONS)
    cut = dataset.table("clips/cuts@00000000", schema.clips([]))
    first: list[Receipt] = []
    second: list[Receipt] = []
    for start in range(0, sources, PART):
        part = range(start, min(start + PART, sources))
        same = [
            {"source_id": schema.source_id(f"{n}"), "uri": public(uri_of(n, 0)), "content_id": f"c{n}"} for n in part
        ]
        frame = [{"pts": 0, "jpeg": os.urandom(evidence)}]
        more = {"segment": 0, "segments": 1, "status": "ok", "bytes": 1, "evidence": frame}
        first.append(observed.write_part([row | more | {"unit": f"{row['source_id']}/0"} for row in same]))
        rows = [row | {"clip_id": f"{row['source_id']}-{k}", "status": "ok"} for row in same for k in range(clips)]
        second.append(cut.write_part(rows))
    observed.commit(first)
    cut.commit(second)
    return dataset


def seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def size(folder: str) -> float:
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()) / 1e6


def measure(sources: int, clips: int, evidence: int) -> Iterator[tuple[str, float]]:
    places._contents = contents_of  # a store would be asked
    with tempfile.TemporaryDirectory() as folder:
        dataset = build(folder, sources, clips, evidence)
        yield "MB of the dataset", size(folder)
        for name, statement in STATEMENTS.items():
            yield f"s, {name} before", statistics.median(seconds(partial(query, dataset, statement)) for _ in range(3))
        before, times = size(folder), list[float]()
        for signature in range(1, 4):
            rows = [
                {"source_id": schema.source_id(uri), "uri": public(uri), "address": uri, "manifest": None}
                for uri in (uri_of(source, signature) for source in range(sources))
            ]
            times.append(seconds(partial(places.place_sources, dataset, rows)))
        yield "s, signed anew", statistics.median(times)
        yield "MB written each time", (size(folder) - before) / 3
        for name, statement in STATEMENTS.items():
            yield f"s, {name} after", statistics.median(seconds(partial(query, dataset, statement)) for _ in range(3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=int, default=20_000)
    parser.add_argument("--clips", type=int, default=10)
    parser.add_argument("--evidence-kb", type=int, default=16)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    results = {name: round(value, 2) for name, value in measure(args.sources, args.clips, args.evidence_kb * 1000)}
    if args.json:
        print(json.dumps(results))
        return
    for name, value in results.items():
        print(f"{name:24}{value:10.2f}")


if __name__ == "__main__":
    main()
