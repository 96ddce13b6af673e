"""How true text areas are on the rendered world, and how long the text scorer takes a clip.

    python benchmarks/text.py [DATASET] [--shots 80] [--json]

Shots are rendered at 360 and 180 lines, half of them with text, and scored from JPEGs as evidence is. The error is that of the
text area of one frame over the area of its true boxes. With DATASET: clips a second of its evidence on one core, and how
often a limit of 7 % has another verdict than the scores that it holds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs by its path, too

from dailies.curation import world
from dailies.curation.observations import evidence_within
from dailies.curation.scorers.text import TextScorer
from dailies.curation.tables import DatasetTables, query
from dailies.curation.timing import Span
from dailies.curation.types import Evidence, EvidenceFrame
from dailies.curation.video import jpeg

SIZES = ((640, 360), (320, 180))
LIMIT = 0.07  # of the default recipe


def shots(count: int, size: tuple[int, int], text: float, seed: int) -> Iterator[tuple[Evidence, float]]:
    """Yield evidence of one frame of each of so many shots, and the share of it that is under its text boxes."""
    for number in range(count):
        script = world.write_script(
            (seed, number), shots=1, size=size, shot_frames=(4, 4), text=text, flashes=0, transitions={"cut": 1}
        )
        rgb = np.asarray(next(iter(world.frames(script))))
        under = np.zeros(rgb.shape[:2], bool)
        for line in world.truth(script).shots[0].texts:
            left, top, right, bottom = line.box
            under[top:bottom, left:right] |= line.frame == 0
        frames = (EvidenceFrame(pts=0, jpeg=jpeg(rgb, 80)),)
        span = Span(start=0, end=1, time_base=Fraction(1))
        yield Evidence(clip_id=str(number), span=span, frames=frames), float(under.mean())


def errors(scorer: TextScorer, size: tuple[int, int], count: int, seed: int = 17) -> dict[str, Any]:
    """Return how true the areas of shots with text are, and the most area in those without."""
    with scorer.open() as score:
        having, without = (list(shots(count // 2, size, text, seed + int(text))) for text in (1.0, 0.0))
        areas = np.array(score([clip for clip, _ in having])["text_area"].to_pylist())
        true = np.array([share for _, share in having])
        none = score([clip for clip, _ in without])["text_area"].to_pylist()
    wrong = areas / true - 1
    return {
        "size": "x".join(map(str, size)),
        "frames_with_text": len(wrong),
        "within_15_percent": float((np.abs(wrong) <= 0.15).mean()),
        "median_error": float(np.median(wrong)),
        "largest_without_text": max(none),
    }


def evidence_of(dataset: str) -> tuple[list[Evidence], list[float]]:
    """Return the evidence of a dataset's scored clips, and the text areas that it holds."""
    tables = DatasetTables.open(dataset)
    frames: dict[str, list[EvidenceFrame]] = {}
    for row in query(tables, "select source_id, evidence from observations").to_pylist():
        frames.setdefault(row["source_id"], []).extend(EvidenceFrame(**frame) for frame in row["evidence"] or ())
    clips = query(
        tables,
        'select clip_id, clips.source_id, start, "end", text_area from clips join scores_text using (clip_id) '
        "where text_area is not null order by clip_id",
    ).to_pylist()
    out = []
    for clip in clips:
        span = Span(start=clip["start"], end=clip["end"], time_base=Fraction(1))
        inside = sorted(evidence_within(frames[clip["source_id"]], span), key=lambda frame: frame.pts)
        out.append(Evidence(clip_id=clip["clip_id"], span=span, frames=tuple(inside)))
    return out, [clip["text_area"] for clip in clips]


def speed(scorer: TextScorer, dataset: str) -> dict[str, Any]:
    """Return clips a second of CPU time on a dataset's evidence, and how its verdicts compare with those stored."""
    clips, before = evidence_of(dataset)
    with scorer.open() as score:
        score(clips[:1])
        began = time.process_time()
        areas = score(clips)["text_area"].to_pylist()
        seconds = time.process_time() - began
    differs = [abs(now - then) for now, then in zip(areas, before, strict=True)]
    return {
        "clips": len(clips),
        "clips_per_second": len(clips) / seconds,
        "median_difference": float(np.median(differs)),
        "other_verdicts": sum((now > LIMIT) != (then > LIMIT) for now, then in zip(areas, before, strict=True)),
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?", help="a dataset curated with the scorer text")
    parser.add_argument("--shots", type=int, default=80, help="rendered at each size")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    scorer = TextScorer()
    report: dict[str, Any] = {"world": [errors(scorer, size, options.shots) for size in SIZES]}
    if options.dataset:
        report["dataset"] = speed(scorer, options.dataset)
    if options.json:
        print(json.dumps(report, indent=1))
        return
    for row in report["world"]:
        print(
            f"{row['size']}: {row['within_15_percent']:.1%} of {row['frames_with_text']} frames within 15 %, median "
            f"error {row['median_error']:+.1%}; at most {row['largest_without_text']:.2%} where there is no text"
        )
    if options.dataset:
        row = report["dataset"]
        print(
            f"{row['clips']} clips: {row['clips_per_second']:.1f} clips/s a core; median difference "
            f"{row['median_difference']:.4f}, {row['other_verdicts']} other verdicts at {LIMIT}"
        )


if __name__ == "__main__":
    main()
