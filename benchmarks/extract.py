"""How fast clips are extracted in each mode, against ffmpeg doing the same, in paired runs on one thread each.

    python benchmarks/extract.py FOLDER [--seconds 4] [--runs 3] [--json]

Every video of FOLDER is cut into clips of ``--seconds`` at times that no keyframe is asked about, to files in memory.
ffmpeg: one process per clip, as the scripts do that people write, with ``-ss`` before ``-i``: encode ``-c:v libx264
-crf 18 -preset veryfast``, copy ``-c copy``. ffmpeg has no smart cut. Videos that cannot be cut in a mode count for
both sides of its ratio. Ratio: ffmpeg's time over ours, the median of the runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs by its path, too

from dailies.curation import video
from dailies.curation.errors import NotCopied, SourceError
from dailies.curation.timing import Span, ticks
from dailies.curation.video.encode import Encoding
from dailies.curation.video.extract import MODES, Extractor, Mode

SUFFIXES = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".ts"}
ENCODING = Encoding(crf=18, preset="veryfast", threads=1)
FFMPEG = {
    "encode": ["-an", "-c:v", "libx264", "-crf", "18", "-preset", "veryfast", "-threads", "1"],
    "copy": ["-an", "-c", "copy"],
}


def clips_of(path: Path, seconds: float) -> list[Span]:
    """Equal spans of about so many seconds between the first and the last frame; none for a file that cannot be
    used."""
    with video.open_source(str(path)) as source:
        pts = [picture.pts for picture in source.frames()]
        base = source.time_base
    length = ticks(seconds, base)
    marks = [pts[0]]
    marks += [at for before, at in pairwise(pts) if (at - pts[0]) // length > (before - pts[0]) // length]
    return [Span(start=start, end=end, time_base=base) for start, end in pairwise([*marks, pts[-1]]) if start < end]


def ours(clips: dict[Path, list[Span]], mode: Mode) -> Iterator[video.ExtractedClip | None]:
    for path, spans in clips.items():
        with Extractor(str(path)) as extractor:
            for span in spans:
                try:
                    yield extractor.extract(span, mode, encoding=ENCODING)
                except NotCopied:
                    yield None


def ffmpeg(clips: dict[Path, list[Span]], mode: str, folder: Path) -> None:
    for path, spans in clips.items():
        start = spans[0].start
        for span in spans:
            at, length = float((span.start - start) * span.time_base), float(span.seconds)
            command = [
                "ffmpeg",
                "-v",
                "quiet",
                "-y",
                "-threads",
                "1",
                "-ss",
                f"{at:.6f}",
                "-t",
                f"{length:.6f}",
                "-i",
                str(path),
            ]
            subprocess.run([*command, *FFMPEG[mode], str(folder / "clip.mp4")], check=False)


def measure(clips: dict[Path, list[Span]], mode: Mode, runs: int, folder: Path) -> dict[str, Any]:
    seconds = sum(float(span.seconds) for spans in clips.values() for span in spans)
    times: list[tuple[float, float]] = []
    for _ in range(runs):
        began = time.perf_counter()
        made = list(ours(clips, mode))
        mine, began = time.perf_counter() - began, time.perf_counter()
        if mode in FFMPEG:
            ffmpeg(clips, mode, folder)
        times.append((mine, time.perf_counter() - began))
    whole = [cut for cut in made if cut is not None]
    return {
        "mode": mode,
        "clips": len(whole),
        "not_copied": len(made) - len(whole),
        "times_real": round(seconds / statistics.median(mine for mine, _ in times), 1),
        "ffmpeg_over_ours": round(statistics.median(b / a for a, b in times), 2) if mode in FFMPEG else None,
        "lost": round(1 - sum(float(cut.span.seconds) for cut in whole) / seconds, 3),
        "frames_encoded": round(sum(cut.encoded for cut in whole) / sum(cut.frames for cut in whole), 3),
        "mb": round(sum(len(cut.data or b"") for cut in whole) / 1e6, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    clips = {}
    for path in sorted(path for path in args.folder.iterdir() if path.suffix in SUFFIXES):
        try:
            clips[path] = clips_of(path, args.seconds)
        except SourceError as error:
            print(f"{path.name}: {error}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(clips, mode, args.runs, Path(folder)) for mode in MODES]
    if args.json:
        print(json.dumps(rows))
        return
    for name in rows[0]:
        print(f"{name:<18}" + "".join(f"{'–' if row[name] is None else row[name]:>10}" for row in rows))


if __name__ == "__main__":
    main()
