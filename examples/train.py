"""Train a small video model on an export, publish it, and run it. Each ``# %%`` is a notebook's cell.

    python examples/train.py [VIDEOS [FOLDER]]

Needs the extras models and train. Without VIDEOS it renders some. A few steps show the way; leave ``overrides`` out for a model
that has learnt something.
"""

# %% Captioned clips
import sys
from pathlib import Path

from PIL import Image

import dailies

videos = Path(sys.argv[1] if len(sys.argv) > 1 else "example/videos")
folder = Path(sys.argv[2] if len(sys.argv) > 2 else "example")
if not videos.exists():
    dailies.curation.world.render_world(videos, seed=1, videos=3, shots=(3, 4))
curated = dailies.curate(
    videos,
    folder / "captioned",
    recipe="quickstart",
    engine="local",
    overrides=["main.rules.motion.min=0", "captioned.rules.motion.min=0", "cut.validation_share=0.3"],
)
dataset = dailies.Dataset(folder / "captioned")

# %% Image → video → image-to-video, each phase from the last one's weights. The same cell again resumes.
overrides = ["*.steps=2", "*.batch=2", "*.samples=1", "*.sample_steps=2", "*.validation_clips=2", "hq.select=[]"]
report = dailies.train("tiny", dataset.exports[-1], folder / "run", overrides=overrides)
for phase in report.phases:
    print(f"{phase.name}: validation loss {phase.first_loss:.3f} → {phase.last_loss:.3f}, {phase.samples}")

# %% A model that others can list, verify and run
zoo = folder / "zoo"
if "example" not in dailies.zoo.Store(zoo).names():
    dailies.zoo.publish(report.run, name="example", to=zoo, licence="Apache-2.0")

# %% A video from the first frame of a clip
clip_id = dataset.clips()["clip_id"][0].as_py()
Image.fromarray(dataset.frames(clip_id).pixels[0]).save(folder / "first.png")
video = dailies.zoo.run("example", zoo=zoo, image=folder / "first.png", out=folder / "clip.mp4", steps=2)
print(f"{video.out}: {video.frames} frames of {video.size[0]}×{video.size[1]}")
