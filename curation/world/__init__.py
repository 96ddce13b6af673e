"""The rendered world makes short videos with exact truth: the quickstart's input and the tests' oracle.

::

    script = world.write_script(7, shots=4)             # or Script(shots=(Shot(...), ...), transitions=(...))
    world.encode(script, "seven.mp4")                   # its pixels: world.frames(script)
    world.truth(script).cuts                            # what a detector should find
    world.render_world("videos", seed=0, videos=20)     # 20 mp4 files and truth.json
"""

from dailies.curation.world.encode import encode
from dailies.curation.world.folder import render_world
from dailies.curation.world.generate import TRANSITIONS, color_distance, write_script
from dailies.curation.world.ground_truth import CutTruth, FlashTruth, ShapeTruth, ShotTruth, TextTruth, Truth, truth
from dailies.curation.world.render import frames
from dailies.curation.world.script import (
    BACKGROUNDS,
    COLORS,
    Background,
    Camera,
    Flash,
    Overlay,
    Script,
    Shape,
    Shot,
    Transition,
)

__all__ = [
    "BACKGROUNDS",
    "COLORS",
    "TRANSITIONS",
    "Background",
    "Camera",
    "CutTruth",
    "Flash",
    "FlashTruth",
    "Overlay",
    "Script",
    "Shape",
    "ShapeTruth",
    "Shot",
    "ShotTruth",
    "TextTruth",
    "Transition",
    "Truth",
    "color_distance",
    "encode",
    "frames",
    "render_world",
    "truth",
    "write_script",
]
