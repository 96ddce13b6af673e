"""The quickstart: a rendered world of videos, curated with the quickstart recipe. Offline, on two CPU cores."""

from __future__ import annotations

from pathlib import Path

from curation import world
from curation.files import Folder
from pipelines.curate import curate
from pipelines.engine import Engine
from pipelines.progress import progress, stderr
from pipelines.recipe import load_recipe
from pipelines.summary import print_next, print_summary


def quickstart(out: str, *, videos: int, seed: int, engine: Engine) -> None:
    """Render ``videos`` into ``out``/videos, unless they are there, and curate them into ``out``/dataset."""
    manifest = Path(out) / "videos" / "manifest.csv"
    if manifest.exists():
        stderr().print(f"render   nothing to do, {manifest.parent} is there")
    else:
        with progress("render", videos, "videos") as bar:
            render(manifest, videos=videos, seed=seed)
            bar.advance(videos)
    summary = curate([str(manifest)], str(Path(out) / "dataset"), load_recipe("quickstart"), engine=engine)
    print_summary(summary, as_json=False)
    print_next(summary)


def render(manifest: Path, *, videos: int, seed: int) -> None:
    """Render the videos beside ``manifest``, which comes last; every sixth is for validation, every sixth for test.

    The manifest names the splits, because an encoder's bytes, and with them splits by content, differ between processors.
    """
    paths = world.render_world(manifest.parent, seed=seed, videos=videos, shots=(4, 7))
    splits = ("train", "validation", "train", "train", "test", "train")
    rows = [{"path": path.name, "split": splits[number % 6]} for number, path in enumerate(paths)]
    with Folder.at(manifest.parent).new_file(manifest.name) as file:
        file.write(b"path,split\n" + "".join(f"{row['path']},{row['split']}\n" for row in rows).encode())
