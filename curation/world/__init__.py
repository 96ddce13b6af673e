"""The rendered world makes short videos with exact truth: the quickstart's input and the tests' oracle.

::

    script = world.write_script(7, shots=4)             # or Script(shots=(Shot(...), ...), transitions=(...))
    world.encode(script, "seven.mp4")                   # its pixels: world.frames(script)
    world.truth(script).cuts                            # what a detector should find
    scene = world.write_scene(7)                        # one shot of one or two shapes, for captions of motion
    world.tell(scene.shots[0], 180, "sentence")         # its caption in one of STYLES
    world.render_world("videos", seed=0, videos=20)     # 20 mp4 files and truth.json
"""

from dailies.curation.world.draw import color_distance
from dailies.curation.world.encode import encode
from dailies.curation.world.folder import render_world
from dailies.curation.world.generate import TRANSITIONS, write_script
from dailies.curation.world.ground_truth import CutTruth, FlashTruth, ShapeTruth, ShotTruth, TextTruth, Truth, truth
from dailies.curation.world.relations import Relation, relations
from dailies.curation.world.render import frames
from dailies.curation.world.scenes import write_scene
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
from dailies.curation.world.telling import STYLES, CaptionStyle, draw_style, tell, tell_fields

__all__ = [
    "BACKGROUNDS",
    "COLORS",
    "STYLES",
    "TRANSITIONS",
    "Background",
    "Camera",
    "CaptionStyle",
    "CutTruth",
    "Flash",
    "FlashTruth",
    "Overlay",
    "Relation",
    "Script",
    "Shape",
    "ShapeTruth",
    "Shot",
    "ShotTruth",
    "TextTruth",
    "Transition",
    "Truth",
    "color_distance",
    "draw_style",
    "encode",
    "frames",
    "relations",
    "render_world",
    "tell",
    "tell_fields",
    "truth",
    "write_scene",
    "write_script",
]
