"""The quickstart renders videos, curates and captions them, trains on them, publishes and samples. Offline, on two CPU cores.

Every step resumes where it was killed, and so does the whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.dataset as ds
from PIL import Image

from dailies.curation import world
from dailies.curation.errors import DailiesError, UsageError
from dailies.curation.folders import what_lies_at
from dailies.curation.packages import DIFFUSION, need
from dailies.curation.progress import Progress, reporting, silent, time_spent
from dailies.curation.tables import Folder
from dailies.curation.video import decode_bytes
from dailies.pipelines.engine import Engine
from dailies.pipelines.footage import QUICKSTART_SHOTS
from dailies.pipelines.recipes.recipe import load_recipe
from dailies.pipelines.reports import Summary
from dailies.pipelines.run import curate
from dailies.pipelines.train import PhaseReport, Request, train_run

MODEL = "quickstart"
STAGES = 5
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

    ``say``: called with a stage and a line about it. Raises ``NotInstalled`` before any work where a package is missing, and
    ``DailiesError`` when too few ``videos`` leave no clip to train on.
    """
    recipe = load_recipe("quickstart")
    need([*(name for step in recipe.before(None) for name in step.spec.requires), *DIFFUSION], by="quickstart")
    folder = Path(out)
    if what_lies_at(folder) == "a file":
        raise UsageError(f"--out={out}: a file; give a folder")
    manifest = folder / "videos" / "manifest.csv"
    begun = time.monotonic()

    def begin(number: int, what: str) -> None:
        so_far = f", {time_spent(time.monotonic() - begun)} so far" if number > 1 else ""
        say(f"{number} of {STAGES}", f"{what}{so_far}")

    with reporting(progress):
        begin(1, "render videos")
        if manifest.exists():
            say("render", f"nothing to do, {manifest.parent} exists")
        else:
            render(manifest, videos=videos, seed=seed)
        begin(2, "curate them")
        summary = curate(
            [str(manifest)], str(folder / "dataset"), recipe, engine=engine, workers=workers, progress=progress
        )
        (export,) = summary.exports
        if export.path is None:
            raise DailiesError(f"--videos={videos}: no clip was selected, so there is nothing to train on; render more")
        begin(3, "train in three phases")
        request = Request(recipe="tiny", data=[export.path])
        phases = train_run(request, str(folder / "run"), say=lambda line: _say_phase(line, say))
        zoo, video = folder / "zoo", folder / "sample.mp4"
        begin(4, "publish the model")
        publish_once(folder / "run", zoo, say)
        begin(5, "sample a video")
        if video.exists():
            say("sample", f"nothing to do, {video} exists")
        else:
            sample(export.path, zoo, video)
            say("sample", str(video))
    return QuickstartResult(summary=summary, phases=phases, zoo=str(zoo), model=MODEL, video=str(video))


def _say_phase(line: str, say: Say) -> None:
    """Say ``PHASE: TEXT``, as training does, about the stage of that name."""
    phase, colon, text = line.partition(": ")
    say(*((phase, text) if colon else ("train", line)))


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
    paths = world.render_world(manifest.parent, seed=seed, videos=videos, shots=QUICKSTART_SHOTS)
    splits = ("train", "validation", "train", "train", "test", "train")
    rows = [{"path": path.name, "split": splits[number % 6]} for number, path in enumerate(paths)]
    with Folder.at(manifest.parent).new_file(manifest.name) as file:
        file.write(b"path,split\n" + "".join(f"{row['path']},{row['split']}\n" for row in rows).encode())
