"""Scenes of the rendered world, how shapes stand to each other, and the styles of captions that tell it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dailies.curation import world
from dailies.curation.world import Background, Camera, Flash, Overlay, Script, Shape, Shot
from dailies.curation.world.relations import COVERED, Relation, relations
from dailies.curation.world.telling import speed_word
from scripts.builtin.attributes import said, scores, true

GREY = Background(texture="striped", color="grey")
CIRCLE = Shape(kind="circle", color="red", radius=20, x=60, y=90)
SQUARE = Shape(kind="square", color="blue", radius=20, x=200, y=90)


def shot(first: Shape, second: Shape, **more: Any) -> Shot:
    return Shot(frames=48, background=GREY, shapes=(first, second), **more)


def related(first: Shape, second: Shape, **more: Any) -> tuple[int, str, int] | None:
    pairs = relations(shot(first, second, **more), fps=24)
    return (pairs[0].subject, pairs[0].kind, pairs[0].other) if pairs else None


# ---- the dice -------------------------------------------------------------------------------------------------------


def test_scripts_of_before_are_drawn_as_they_were() -> None:
    drawn = [world.write_script(seed, shots=3, text=0.6).to_json() for seed in range(8)]
    told = [shot.caption(180) for seed in range(8) for shot in world.write_script(seed, shots=3, text=0.6).shots]
    rounded = json.dumps(drawn, default=str)
    parsed = json.loads(rounded, parse_float=lambda number: f"{float(number):.6g}")
    assert hashlib.sha256(json.dumps(parsed).encode()).hexdigest()[:16] == "20453471c060e945"
    assert hashlib.sha256("\n".join(told).encode()).hexdigest()[:16] == "8a877869531995b5"


def test_a_scene_is_one_shot_of_its_seed_alone() -> None:
    assert world.write_scene((4, 1)) == world.write_scene((4, 1))
    assert world.write_scene((4, 1)) != world.write_scene((4, 2))
    scripts = [world.write_scene((4, number)) for number in range(300)]
    assert {len(script.shots) for script in scripts} == {1}
    assert all(48 <= script.frames <= 96 for script in scripts)
    shares = Counter(len(script.shots[0].shapes) for script in scripts)
    assert set(shares) == {1, 2}
    assert 0.55 < shares[2] / 300 < 0.75
    for script in scripts:
        shapes = script.shots[0].shapes
        assert len({shape.color for shape in shapes}) == len({shape.kind for shape in shapes}) == len(shapes)


def test_every_shape_of_a_scene_is_in_the_frame_half_way_through() -> None:
    for number in range(400):
        script = world.write_scene((8, number))
        for shape in script.shots[0].shapes:
            x, y, _ = shape.at(script.frames / 2 / script.fps)
            cx, cy, zoom = script.shots[0].camera.at(script.frames / 2 / script.fps)
            assert 0 <= zoom * (x - 160 - cx) + 160 <= 320
            assert 0 <= zoom * (y - 90 - cy) + 90 <= 180


def test_scenes_have_every_relation_and_every_motion() -> None:
    shots = [world.write_scene((5, number)).shots[0] for number in range(400)]
    kinds = Counter(pair.kind for each in shots for pair in relations(each, 24))
    assert set(kinds) == {"left of", "right of", "above", "below", "behind", "towards", "away from"}
    assert min(kinds.values()) >= 12
    cameras = {each.camera.motion for each in shots}
    assert cameras == {
        *("stands still", "pans left", "pans right", "tilts up", "tilts down", "zooms in", "zooms out", "shakes")
    }
    motions = {shape.motion.partition(" diagonally")[0] for each in shots for shape in each.shapes}
    assert {"moves", "moves left", "moves up", "moves in a circle", "grows", "shrinks", "stands still"} <= motions


@pytest.mark.parametrize("wish", ["left of", "above", "behind", "towards", "away from"])
def test_a_wish_is_mostly_kept_and_shapes_do_not_meet_unless_they_are_behind(wish: str) -> None:
    scenes = [world.write_scene((6, number), two=1.0, related={wish: 1.0}, still=0.0) for number in range(60)]
    kept = 0
    for script in scenes:
        pairs = relations(script.shots[0], script.fps)
        if pairs and pairs[0].kind == wish:
            kept += 1
            (x, y, r), (u, v, s) = (shape.at(script.frames / 2 / script.fps) for shape in script.shots[0].shapes)
            assert (np.hypot(x - u, y - v) < COVERED * (r + s)) == (wish == "behind")
    assert kept >= 45


# ---- relations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "y", "kind"),
    [
        (200, 90, "left of"),
        (200, 160, "left of"),  # 27 degrees below the level
        (200, 200, None),  # 38 degrees
        (-100, 90, "right of"),
        (60, 190, "above"),
        (60, -20, "below"),
        (85, 90, "behind"),  # 25 px apart, of 40
        (98, 90, "left of"),  # 38 px apart: they overlap by a rim
    ],
)
def test_sides_go_by_the_way_between_the_centres(x: float, y: float, kind: str | None) -> None:
    assert related(CIRCLE, replace(SQUARE, x=x, y=y)) == (None if kind is None else (0, kind, 1))


def test_a_side_holds_to_the_last_frame_or_is_not_told() -> None:
    # From above the square at 40 degrees to level with it.
    falls = replace(CIRCLE, x=0, y=90, velocity=(0.0, 40.0))
    assert related(falls, replace(SQUARE, x=100, y=130)) == (0, "left of", 1)
    assert related(replace(falls, velocity=(0.0, 120.0)), replace(SQUARE, x=100, y=90)) is None


def test_towards_belongs_to_what_moves_and_needs_a_quarter_of_the_way() -> None:
    comes = replace(SQUARE, velocity=(-40.0, 0.0))
    assert related(CIRCLE, comes) == (1, "towards", 0)
    assert related(comes, CIRCLE) == (0, "towards", 1)
    assert related(CIRCLE, replace(SQUARE, velocity=(-10.0, 0.0))) == (0, "left of", 1)
    assert related(CIRCLE, replace(SQUARE, velocity=(40.0, 0.0))) == (1, "away from", 0)
    # Both move: the one that comes nearer is told, however the other goes ahead of it.
    assert related(replace(CIRCLE, velocity=(60.0, 0.0)), replace(SQUARE, velocity=(10.0, 0.0))) == (0, "towards", 1)
    # Nothing that circles or grows moves towards anything.
    assert related(replace(CIRCLE, orbit=20.0), SQUARE) == (0, "left of", 1)


def test_the_camera_changes_no_relation() -> None:
    camera = Camera(velocity=(90.0, -30.0), zoom_rate=0.3)
    assert related(CIRCLE, SQUARE, camera=camera) == (0, "left of", 1)
    assert world.truth(Script(shots=(shot(CIRCLE, SQUARE, camera=camera),))).shots[0].relations == (
        Relation(subject=0, kind="left of", other=1),
    )


def test_what_lies_behind_is_covered_on_the_pixels() -> None:
    near = shot(CIRCLE, replace(SQUARE, x=85))
    assert related(*near.shapes) == (0, "behind", 1)
    picture = next(world.frames(Script(shots=(near,))))
    assert picture[90, 73].argmax() == 2  # the square's blue, where both are
    assert picture[90, 45].argmax() == 0


# ---- words ----------------------------------------------------------------------------------------------------------


def test_a_caption_in_each_style() -> None:
    told = shot(
        replace(CIRCLE, velocity=(20.0, 0.0)),
        replace(SQUARE, radius=40, growth=0.2),
        camera=Camera(velocity=(-90.0, 0.0)),
        overlays=(Overlay(text="LIVE", x=8, y=8, size=16),),
        flashes=(Flash(start=4),),
    )
    assert told.caption(180) == (
        "a small red circle moves right and a blue square grows over a striped grey background, the camera pans left,"
        ' with the words "LIVE"'
    )
    assert {style: world.tell(told, 180, style) for style in world.STYLES} == {
        "plain": told.caption(180),
        "tags": "small red circle, moves slowly right, blue square, grows, red circle moves towards blue square,"
        ' striped grey background, camera pans quickly left, text "LIVE"',
        "sentence": "A small red circle moves slowly right towards a blue square that grows, over a striped grey background,"
        ' while the camera pans left, with the words "LIVE".',
        "descriptive": "A small red circle moves slowly right towards a blue square that grows. The background is striped and"
        ' grey. The camera pans quickly left. The words "LIVE" are on the screen. The light flashes.',
    }
    assert world.tell_fields(told, 180) == {
        "subject": "a small red circle",
        "action": "moves slowly right towards a blue square that grows",
        "setting": "a striped grey background",
        "camera": "pans quickly left",
        "style": "flat shapes, drawn by a computer",
        "light": "the light flashes",
        "text": "LIVE",
        "details": "the red circle moves towards the blue square",
    }
    with pytest.raises(ValueError, match="style='long': must be one of plain, tags"):
        world.tell(told, 180, "long")


def test_two_shapes_that_stand_in_no_relation_are_told_one_after_the_other() -> None:
    apart = shot(CIRCLE, replace(SQUARE, y=200))
    assert world.tell(apart, 180, "sentence").startswith(
        "A small red circle stands still and a small blue square stands still, over a"
    )
    assert world.tell_fields(apart, 180)["action"] == "stands still and a small blue square stands still"
    assert "details" not in world.tell_fields(apart, 180)
    assert world.tell(Shot(frames=9, background=GREY), 180, "sentence") == (
        "A striped grey background, while the camera stands still."
    )
    assert set(world.tell_fields(Shot(frames=9, background=GREY), 180)) == {"setting", "camera", "style"}


@pytest.mark.parametrize(
    ("speed", "word"), [(0.0, ""), (26.9, "slowly"), (27.0, ""), (71.9, ""), (72.0, "quickly"), (150.0, "quickly")]
)
def test_speeds_are_shares_of_the_short_side_a_second(speed: float, word: str) -> None:
    # 0.15 and 0.4 of 180 px.
    assert speed_word((speed, 0.0), 180) == speed_word((0.0, -2 * speed), 360) == word


def test_a_style_is_drawn_by_a_seed() -> None:
    styles = [world.draw_style((3, number)) for number in range(80)]
    assert styles == [world.draw_style((3, number)) for number in range(80)]
    assert set(styles) == set(world.STYLES)


# ---- the judge of captions ------------------------------------------------------------------------------------------


def test_the_judge_finds_every_true_caption_right() -> None:
    shots = [world.write_scene((7, number)).shots[0] for number in range(150)]
    for style in ("sentence", "descriptive"):
        figures = scores([(said(world.tell(each, 180, style)), true(each, 24)) for each in shots])
        assert {name: value for name, value in figures.items() if name != "clips"} == dict.fromkeys(
            (
                *("colors", "shapes", "both", "motion", "motion_of_shapes"),
                *("camera", "motion_clips", "relations", "ground"),
            ),
            1.0,
        )


@pytest.mark.parametrize(
    ("caption", "wrong"),
    [
        ("a small red circle moves left towards a small blue square that grows", set()),
        ("a small blue square grows and a small red circle moves left", {"relations"}),
        ("a small red circle moves right away from a small blue square that grows", {"motion", "relations"}),
        ("a small blue circle moves left towards a small red square that grows", {"both", "motion", "relations"}),
        ("a small red circle moves left", {"colors", "shapes", "both", "motion", "relations"}),
        (
            "a small red ring moves left towards a small blue square that grows",
            {"shapes", "both", "motion", "relations"},
        ),
        ("", {"colors", "shapes", "both", "motion", "relations"}),
    ],
)
def test_the_judge_takes_a_caption_at_its_word(caption: str, wrong: set[str]) -> None:
    truth = shot(replace(SQUARE, color="red", kind="circle", velocity=(-30.0, 0.0)), replace(SQUARE, x=60, growth=0.1))
    figures = scores([(said(caption), true(truth, 24))])
    assert {name for name in ("colors", "shapes", "both", "motion", "relations") if figures[name] < 1} == wrong
    assert figures["camera"] == 1  # a caption that says nothing of it says that it stands still


def test_a_relation_may_be_told_from_either_side() -> None:
    truth = true(shot(CIRCLE, SQUARE), 24)
    assert said("a blue square stands still, right of a red circle that stands still").relations == truth.relations
    assert said("a red circle stands still, right of a blue square that stands still").relations != truth.relations
