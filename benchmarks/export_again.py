"""How long an export takes after a video was added or a threshold changed, against making all of its clips.

    python benchmarks/export_again.py [--videos 8] [--frames 360] [--size 960x540] [--json]

Videos are rendered and curated without the last one, which is added then; the threshold is the median of motion. Each export
is timed as ``dailies export`` makes it, with a plain loop, and the fresh one in a dataset that holds no export yet. Seconds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs by its path, too

from dailies.curation import world
from dailies.curation.tables import DatasetTables, query
from dailies.pipelines.again import export_again, select_again
from dailies.pipelines.recipes.recipe import load_recipe
from dailies.pipelines.reports import ExportReport
from dailies.pipelines.run import curate

SETTINGS = ("cut.min_seconds=1", "cut.max_seconds=4", "observe.observers=[boundary,motion]")


def render(folder: Path, videos: int, frames: int, size: tuple[int, int]) -> list[Path]:
    """Render videos of one shot each, which the recipe's longest clip parts."""
    for number in range(videos):
        ground = world.Background(texture="dotted", color="grey", seed=number)
        shot = world.Shot(frames=frames, background=ground, camera=world.Camera(velocity=(6.0 * (number + 1), 5.0)))
        world.encode(world.frames(world.Script(shots=(shot,), size=size)), folder / f"{number:03}.mp4", fps=24)
    return sorted(folder.glob("*.mp4"))


def timed(dataset: Path) -> tuple[float, ExportReport]:
    start = time.perf_counter()
    report = export_again(str(dataset), "export", (), engine="local")
    return time.perf_counter() - start, report


def measure(videos: list[Path], folder: Path) -> dict[str, dict[str, float]]:
    """Return seconds, and clips extracted and taken over, of each export."""
    recipe = load_recipe("default", [*SETTINGS, "main.rules={motion: {min: 0, nulls: drop}}"])
    dataset, fresh = folder / "dataset", folder / "fresh"
    results = {}
    curate([str(path) for path in videos[:-1]], str(dataset), recipe, engine="local")
    (before,) = DatasetTables.open(str(dataset)).exports()
    curate([str(path) for path in videos], str(dataset), recipe, engine="local")
    for name in DatasetTables.open(str(dataset)).exports():
        if name != before:
            shutil.rmtree(dataset / "exports" / name)
    shutil.copytree(dataset, fresh, symlinks=True)
    shutil.rmtree(fresh / "exports")
    results["all clips made"] = timed(fresh)
    results["a video added"] = timed(dataset)
    (median,) = query(DatasetTables.open(str(dataset)), "select median(motion) as m from clips")["m"].to_pylist()
    select_again(str(dataset), "main", [f"main.rules.motion.min={median}"])
    results["another threshold"] = timed(dataset)
    return {
        what: {"seconds": round(seconds, 2), "extracted": report.extracted, "taken_over": report.taken_over}
        for what, (seconds, report) in results.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=8)
    parser.add_argument("--frames", type=int, default=360, help="of each video")
    parser.add_argument("--size", default="960x540")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    width, _, height = arguments.size.partition("x")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "videos").mkdir()
        videos = render(folder / "videos", arguments.videos, arguments.frames, (int(width), int(height)))
        results = measure(videos, folder)
    if arguments.json:
        print(json.dumps(results))
        return
    for what, figures in results.items():
        print(
            f"{what:<18} {figures['seconds']:6.2f} s  {figures['extracted']} extracted, {figures['taken_over']} taken over"
        )


if __name__ == "__main__":
    main()
