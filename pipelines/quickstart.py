"""The quickstart renders videos, curates and captions them, trains on them, publishes and samples. Offline, on two CPU cores.

Every step resumes where it was killed, and so does the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.dataset as ds
from PIL import Image

from dailies.curation import world
from dailies.curation.errors import DailiesError
from dailies.curation.tables import Folder
from dailies.curation.video import decode_bytes
from dailies.pipelines.engine import Engine
from dailies.pipelines.progress import Progress, silent
from dailies.pipelines.recipes.recipe import load_recipe
from dailies.pipelines.reports import Summary
from dailies.pipelines.run import curate
from dailies.pipelines.train import PhaseReport, Request, train_run

MODEL = "quickstart"
Say = Callable[[str, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuickstartResult:
    """``model``: its name in the zoo at ``zoo``. ``video``: the path of the sampled video."""

    summary: Summary
    phases: Sequence[PhaseReport]
    zoo: str
    model: str
    video: str


def run_quickstart(
    out: str,
    *,
    videos: int = 18,
    seed: int = 0,
    engine: Engine = "auto",
    workers: int | None = None,
    progress: Progress = silent,
    say: Say = lambda stage, line: None,
) -> QuickstartResult:
    """Make everything in the folder ``out``: videos, dataset, run, zoo, and a sampled video.

    ``say``: called with a stage and a line about it. Raises ``DailiesError`` when too few ``videos`` leave no clip to
    train on.
    """
    folder = Path(out)
    manifest = folder / "videos" / "manifest.csv"
    if manifest.exists():
        say("render", f"nothing to do, {manifest.parent} exists")
    else:
        with progress("render", videos, "videos") as bar:
            render(manifest, videos=videos, seed=seed)
            bar.advance(videos)
    recipe = load_recipe("quickstart")
    summary = curate(
        [str(manifest)], str(folder / "dataset"), recipe, engine=engine, workers=workers, progress=progress
    )
    (export,) = summary.exports
    if export.path is None:
        raise DailiesError(f"--videos={videos}: no clip was selected, so there is nothing to train on; render more")
    request = Request(recipe="tiny", data=[export.path])
    phases = train_run(request, str(folder / "run"), say=lambda line: say("train", line))
    zoo, video = folder / "zoo", folder / "sample.mp4"
    publish_once(folder / "run", zoo, say)
    if not video.exists():
        sample(export.path, zoo, video)
        say("sample", str(video))
    return QuickstartResult(summary=summary, phases=phases, zoo=str(zoo), model=MODEL, video=str(video))


def publish_once(run: Path, zoo: Path, say: Say) -> None:
    """Publish the run's last phase, unless the zoo has it."""
    from dailies.zoo.publishing import publish
    from dailies.zoo.store import Store

    if MODEL in Store(zoo).names():
        say("publish", f"nothing to do, {MODEL} is in {zoo}")
        return
    publish(run, name=MODEL, to=zoo, licence="Apache-2.0")
    say("publish", f"{MODEL} to {zoo}")


def sample(export: str, zoo: Path, video: Path) -> None:
    """Sample a video of the published model, from the first frame of a clip that it was not trained on."""
    from dailies.zoo.generate import run

    image = video.with_suffix(".png")
    rows = ds.dataset(f"{export}/data", format="parquet").to_table(columns=["split", "motion", "video"]).to_pylist()
    held_out = max((row for row in rows if row["split"] != "train"), key=lambda row: row["motion"], default=rows[0])
    Image.fromarray(decode_bytes(held_out["video"]).pixels[0]).save(image)
    run(MODEL, zoo=zoo, image=str(image), out=str(video), seed=0)


def render(manifest: Path, *, videos: int, seed: int) -> None:
    """Render the videos beside ``manifest``, which is written last; every sixth is for validation, every sixth for test.

    The manifest names the splits, because an encoder's bytes, and with them splits by content, differ between processors.
    """
    paths = world.render_world(manifest.parent, seed=seed, videos=videos, shots=(4, 7))
    splits = ("train", "validation", "train", "train", "test", "train")
    rows = [{"path": path.name, "split": splits[number % 6]} for number, path in enumerate(paths)]
    with Folder.at(manifest.parent).new_file(manifest.name) as file:
        file.write(b"path,split\n" + "".join(f"{row['path']},{row['split']}\n" for row in rows).encode())
