"""Curate videos, look at what was kept and why, and select again under other rules. Each ``# %%`` is a notebook's cell.

    python examples/curate.py [VIDEOS [DATASET]]

Without VIDEOS it renders three short ones.
"""

# %% Videos
import sys
from pathlib import Path

import dailies

videos = Path(sys.argv[1] if len(sys.argv) > 1 else "example/videos")
out = Path(sys.argv[2] if len(sys.argv) > 2 else "example/dataset")
if not videos.exists():
    dailies.curation.world.render_world(videos, seed=1, videos=3, shots=(3, 4))

# %% Where do shots meet in one of them?
first = min(videos.glob("*.mp4"))
for cut in dailies.detect_cuts(first):
    print(f"{first.name}: {cut.kind} at frame {cut.frame}")

# %% One decode of each video; clips, scores, verdicts and training shards out. The same cell again resumes.
result = dailies.curate(videos, out, engine="local", overrides=["cut.min_seconds=1"])
print(f"{result.sources.ok} of {result.sources.given} videos are usable")
for uri, kind, message in result.sources.failures:
    print(f"{uri}: {kind}: {message}")
for selection in result.selections:
    print(
        f"selection {selection.name}: {selection.kept} of {selection.clips} clips kept, dropped by {selection.reasons}"
    )

# %% Every number is a column.
dataset = dailies.Dataset(out)
clips = dataset.clips("main").sort_by([("motion", "descending")])
print(clips.select(["clip_id", "seconds", "motion", "text_area", "keep", "reason"]).to_pandas().to_string())
print(dataset.sql("select reason, count(*) as clips from selection_main group by reason order by clips desc"))

# %% The frames of the liveliest clip
frames = dataset.frames(clips["clip_id"][0].as_py(), short_side=120)
print(frames.pixels.shape, frames.pixels.dtype)

# %% Other rules compute nothing again.
livelier = dataset.select(overrides=["main.rules.motion.min=1"])
print(f"with more motion: {livelier.kept} of {livelier.clips} clips, dropped by {livelier.reasons}")
