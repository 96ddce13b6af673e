"""The quickstart: a rendered world, curated, captioned, trained on, published and sampled from. Offline, on two CPU cores.

Every step goes on where it was killed, so the same command does.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow.dataset as ds
from PIL import Image

from dailies.curation import world
from dailies.curation.errors import DailiesError
from dailies.curation.tables import Folder
from dailies.curation.video import decode_bytes
from dailies.pipelines.cli.progress import progress, stderr
from dailies.pipelines.cli.tables import print_next, print_summary, print_training
from dailies.pipelines.engine import Engine
from dailies.pipelines.recipe import load_recipe
from dailies.pipelines.run import curate
from dailies.pipelines.train import Request, train_run

MODEL = "quickstart"


def quickstart(out: str, *, videos: int, seed: int, engine: Engine) -> None:
    """Everything in the folder ``out``: videos, dataset, run, zoo, and a sampled video."""
    folder = Path(out)
    manifest = folder / "videos" / "manifest.csv"
    if manifest.exists():
        stderr().print(f"render   nothing to do, {manifest.parent} is there")
    else:
        with progress("render", videos, "videos") as bar:
            render(manifest, videos=videos, seed=seed)
            bar.advance(videos)
    summary = curate([str(manifest)], str(folder / "dataset"), load_recipe("quickstart"), engine=engine)
    (export,) = summary.exports
    if export.path is None:
        raise DailiesError("no clip was kept, so there is nothing to train on; give more --videos")
    phases = train_run(Request(recipe="tiny", data=[export.path]), str(folder / "run"), say=_say)
    zoo, video = folder / "zoo", folder / "sample.mp4"
    publish_once(folder / "run", zoo)
    if not video.exists():
        sample(export.path, zoo, video)
    print_summary(summary, as_json=False)
    print_training(phases, as_json=False)
    print_next(summary, MODEL, str(zoo), str(video))


def _say(line: str) -> None:
    stderr().print(f"train    {line}", soft_wrap=True, markup=False)


def publish_once(run: Path, zoo: Path) -> None:
    """Publish the run's last phase, unless it is there."""
    from dailies.zoo.publishing import publish
    from dailies.zoo.store import Store

    if MODEL in Store(zoo).names():
        stderr().print(f"publish  nothing to do, {MODEL} is in {zoo}")
        return
    publish(run, name=MODEL, to=zoo, licence="Apache-2.0")
    stderr().print(f"publish  {MODEL} to {zoo}")


def sample(export: str, zoo: Path, video: Path) -> None:
    """A video of the published image-to-video model, from the first frame of a clip that it was not trained on."""
    from dailies.zoo.generate import run

    image = video.with_suffix(".png")
    rows = ds.dataset(f"{export}/data", format="parquet").to_table(columns=["split", "motion", "video"]).to_pylist()
    held_out = max((row for row in rows if row["split"] != "train"), key=lambda row: row["motion"], default=rows[0])
    Image.fromarray(decode_bytes(held_out["video"]).pixels[0]).save(image)
    made = run(MODEL, zoo=zoo, image=str(image), out=str(video), seed=0)
    stderr().print(f"sample   {made.out}")


def render(manifest: Path, *, videos: int, seed: int) -> None:
    """Render the videos beside ``manifest``, which comes last; every sixth is for validation, every sixth for test.

    The manifest names the splits, because an encoder's bytes, and with them splits by content, differ between processors.
    """
    paths = world.render_world(manifest.parent, seed=seed, videos=videos, shots=(4, 7))
    splits = ("train", "validation", "train", "train", "test", "train")
    rows = [{"path": path.name, "split": splits[number % 6]} for number, path in enumerate(paths)]
    with Folder.at(manifest.parent).new_file(manifest.name) as file:
        file.write(b"path,split\n" + "".join(f"{row['path']},{row['split']}\n" for row in rows).encode())
