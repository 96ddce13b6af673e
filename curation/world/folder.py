"""A folder of rendered videos and their truth is written here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dailies.curation.atomic import write_json
from dailies.curation.progress import progress_in_force
from dailies.curation.world.encode import encode
from dailies.curation.world.generate import write_script
from dailies.curation.world.ground_truth import truth


def render_world(
    folder: str | os.PathLike[str],
    *,
    seed: int,
    videos: int,
    crf: int = 20,
    gop: int | None = None,
    tone: float | None = None,
    **script: Any,
) -> list[Path]:
    """Write ``videos`` mp4 files and ``truth.json`` (file name to truth) into ``folder``, made if need be.

    Video i is ``write_script((seed, i), **script)``: further keywords are that function's, and it refuses others. The
    list of videos comes last: where there is a ``truth.json``, every file it names is whole.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / "truth.json"
    index.unlink(missing_ok=True)
    paths, truths = [], {}
    scripts = [write_script((seed, number), **script) for number in range(videos)]
    with progress_in_force()("render", videos, "videos", size=sum(drawn.frames for drawn in scripts)) as bar:
        for number, drawn in enumerate(scripts):
            paths.append(encode(drawn, folder / f"world-{seed}-{number:04d}.mp4", crf=crf, gop=gop, tone=tone))
            truths[paths[-1].name] = truth(drawn).to_json()
            bar.advance(size=drawn.frames)
    write_json(index, truths)
    return paths
