"""The quickstart: a rendered world of videos, curated with the quickstart recipe. Offline, on two CPU cores."""

from __future__ import annotations

from pathlib import Path

from curation import world
from pipelines.curate import curate
from pipelines.engine import Engine
from pipelines.progress import progress, stderr
from pipelines.recipe import load_recipe
from pipelines.summary import print_next, print_summary


def quickstart(out: str, *, videos: int, seed: int, engine: Engine) -> None:
    """Render ``videos`` into ``out``/videos, unless they are there, and curate them into ``out``/dataset."""
    folder = Path(out) / "videos"
    if not (folder / "truth.json").exists():
        with progress("render", videos, "videos") as bar:
            world.render_world(folder, seed=seed, videos=videos, shots=(4, 7))
            bar.advance(videos)
    else:
        stderr().print(f"render   nothing to do, {folder} is there")
    summary = curate([str(folder)], str(Path(out) / "dataset"), load_recipe("quickstart"), engine=engine)
    print_summary(summary, as_json=False)
    print_next(summary)
