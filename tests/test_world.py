"""The rendered world says of its pixels what is so: everything else is tested against it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import av
import numpy as np
import pytest

from dailies.curation import world
from dailies.curation.world import Background, Camera, Flash, Overlay, Script, Shape, Shot, Transition
from dailies.curation.world.ground_truth import disc_radius
from dailies.curation.world.script import ShapeKind, Texture

SIZE = (160, 90)
NAVY = Background(texture="striped", color="navy", seed=1)
SAND = Background(texture="checked", color="sand", seed=2)
HEART = Shape(kind="heart", color="pink", radius=18, x=50, y=45, velocity=(60, 0))
STAR = Shape(kind="star", color="blue", radius=18, x=90, y=45, orbit=15)


def one(shot: Shot, **script: Any) -> list[np.ndarray]:
    return list(world.frames(Script(shots=(shot,), size=SIZE, **script)))


def decoded(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


# ---- the dice -------------------------------------------------------------------------------------------------------


def test_same_seed_gives_same_pixels_and_truth_and_another_seed_does_not() -> None:
    def draw(seed: int) -> tuple[bytes, dict[str, Any]]:
        script = world.write_script(seed, shots=2, size=SIZE, shot_frames=(8, 12), text=1.0)
        return b"".join(f.tobytes() for f in world.frames(script)), world.truth(script).to_json()

    assert draw(3) == draw(3)
    assert draw(3)[0] != draw(4)[0]
    assert draw(3)[1] != draw(4)[1]


def test_the_same_world_in_another_process(tmp_path: Path) -> None:
    code = (
        "import sys, hashlib; from dailies.curation import world; s = world.write_script(5, shots=2, size=(64, 64), text=1.0);"
        "print(hashlib.sha256(b''.join(f.tobytes() for f in world.frames(s))).hexdigest());"
        "print(any(m in sys.modules for m in ('torch', 'ray', 'rapidocr')))"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(2)]
    assert runs[0].stdout == runs[1].stdout
    assert runs[0].stdout.split()[1] == "False", "importing the world must not load what it doesn't need"


def test_a_draw_is_what_was_asked_for() -> None:
    kinds = ("cut", "dissolve", "fade", "wipe", "push")
    script = world.write_script(1, transitions=kinds, shot_frames=(20, 30), transition_frames=(5, 6), still=0.0)
    truth = world.truth(script)
    assert tuple(cut.kind for cut in truth.cuts) == kinds
    assert len(script.shots) == 6
    assert all(20 <= shot.end - shot.frame <= 30 and not shot.still for shot in truth.shots)
    assert truth.cuts[0].frame == truth.cuts[0].end
    assert all(5 <= cut.end - cut.frame <= 6 for cut in truth.cuts[1:])
    calm = world.truth(world.write_script(1, still=1.0, kinds=("ring",), text=1.0)).shots
    assert all(shot.still and shot.texts and {s.kind for s in shot.shapes} == {"ring"} for shot in calm)


@pytest.mark.parametrize(
    "wrong",
    [
        {"transitions": ("melt",)},
        {"kinds": ()},
        {"kinds": ("blob",)},
        {"shots": 0},
        {"transitions": {"cut": -1.0}},
        {"shot_frames": (9, 3)},
        {"cameras": {"crane": 1.0}},
    ],
)
def test_a_draw_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"one of|weights|least"):
        world.write_script(0, **wrong)


def test_following_backgrounds_are_far_apart_unless_asked_otherwise() -> None:
    def distances(similar: float) -> list[float]:
        colors = [world.BACKGROUNDS[s.background.color] for s in world.write_script(2, shots=30, similar=similar).shots]
        return [world.color_distance(a, b) for a, b in pairwise(colors)]

    assert min(distances(0.0)) >= 25
    assert max(distances(1.0)) == 0


def test_speeds_spread_and_shapes_stay_in_the_frame_while_they_move() -> None:
    speeds, inside = [], []
    for seed in range(40):
        for shot in (script := world.write_script(seed, shots=3)).shots:
            for shape in shot.shapes:
                speeds += [shape.speed] if any(shape.velocity) else []
                for index in (0, shot.frames // 2, shot.frames - 1):
                    t = index / script.fps
                    x, y, _ = shape.at(t)
                    cx, cy, zoom = shot.camera.at(t)
                    u, v = zoom * (x - 160 - cx) + 160, zoom * (y - 90 - cy) + 90
                    inside.append(0 <= u <= 320 and 0 <= v <= 180)
    assert np.percentile(speeds, 10) < 20
    assert np.percentile(speeds, 90) > 90
    assert min(inside), "a centre left the frame"


# ---- transitions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["left", "right", "up", "down"])
@pytest.mark.parametrize("kind", ["cut", "dissolve", "fade", "wipe", "push"])
def test_truth_of_a_transition_holds_on_the_pixels(kind: Any, direction: Any) -> None:
    length = 0 if kind == "cut" else 7
    old, new = Shot(frames=6, background=NAVY, shapes=(HEART,)), Shot(frames=5, background=SAND, shapes=(STAR,))
    script = Script(
        shots=(old, new), transitions=(Transition(kind=kind, frames=length, direction=direction),), size=SIZE
    )
    pictures, (cut,) = list(world.frames(script)), world.truth(script).cuts
    assert (cut.frame, cut.end, cut.kind, len(pictures)) == (6, 6 + length, kind, 11 + length)

    # The pure shots, rendered alone and long enough to run through the blend; the new one's clock starts at the end.
    before = one(replace(old, frames=6 + length))
    late = replace(STAR, phase=STAR.phase - 2 * np.pi * length / script.fps / STAR.period)
    after = one(replace(new, frames=5 + length, shapes=(late,)))
    for index, picture in enumerate(pictures):
        if index < cut.frame:
            assert np.array_equal(picture, before[index])
        elif index >= cut.end:
            assert np.abs(picture.astype(int) - after[index - cut.frame]).max() <= 2  # a phase's rounding
        else:
            assert not np.array_equal(picture, before[index])
            assert np.abs(picture.astype(int) - after[index - cut.frame]).max() > 8

    if kind == "dissolve":
        middle = (before[9].astype(float) + after[3]) / 2
        assert np.abs(pictures[9] - middle).max() <= 2
    if kind == "fade":
        assert pictures[9].max() == 0
    if kind in ("wipe", "push"):
        # "left": the new picture comes in at the right. The first blended frame shows it there and nowhere else.
        axis, last = (1, -1) if direction in ("left", "right") else (0, -1)
        edge = last if direction in ("left", "up") else 0
        lines = np.abs(pictures[6].astype(int) - before[6]).mean(axis=(1 - axis, 2))
        assert lines[edge] > 40
        if kind == "wipe":
            assert lines[-1 - edge] == 0


def test_a_push_moves_both_pictures() -> None:
    shots = (Shot(frames=2, background=NAVY), Shot(frames=2, background=SAND))
    pictures = list(
        world.frames(Script(shots=shots, transitions=(Transition(kind="push", frames=3, direction="left"),), size=SIZE))
    )
    both = np.concatenate([pictures[0], pictures[-1]], axis=1)
    assert np.array_equal(pictures[3], both[:, 80:240])  # half way after two of four steps


# ---- motion ---------------------------------------------------------------------------------------------------------


def test_a_still_shot_is_one_picture() -> None:
    shot = Shot(
        frames=6,
        background=NAVY,
        shapes=(replace(HEART, velocity=(0.0, 0.0)),),
        overlays=(Overlay(text="LIVE", x=8, y=8, size=16),),
    )
    pictures = one(shot)
    assert all(np.array_equal(picture, pictures[0]) for picture in pictures)
    truth = world.truth(Script(shots=(shot,), size=SIZE)).shots[0]
    assert truth.still
    assert truth.flow == 0


@pytest.mark.parametrize("texture", get_args(Texture))
def test_a_pan_moves_the_background_by_the_stated_velocity(texture: Any) -> None:
    # 48 px/s at 24 frames/s: two whole pixels a frame, so that nothing is interpolated.
    shot = Shot(
        frames=9,
        background=Background(texture=texture, color="teal", seed=5),
        shapes=(replace(HEART, velocity=(0.0, 0.0)),),
        camera=Camera(velocity=(48, -24)),
    )
    pictures = one(shot)
    for index in range(8):
        # The camera goes right and up, so the picture, shapes and all, goes left and down.
        assert np.array_equal(pictures[index][:-1, 2:], pictures[index + 1][1:, :-2])
    truth = world.truth(Script(shots=(shot,), size=SIZE)).shots[0]
    assert truth.camera == "moves up and right"
    assert truth.camera_velocity == (48, -24)
    assert truth.flow == pytest.approx(np.hypot(48, 24), rel=1e-3)


def test_a_camera_never_runs_out_of_background() -> None:
    # 40 s of a fast pan: many times around the tile.
    shot = Shot(frames=40, background=SAND, camera=Camera(velocity=(1e4, 1e4)))
    spread = [picture.std() for picture in one(shot, fps=1)]
    assert min(spread) > 0.5 * max(spread)


def test_a_shape_moves_by_its_velocity_and_over_a_still_background() -> None:
    shot = Shot(frames=13, background=NAVY, shapes=(replace(HEART, color="white", velocity=(72.0, 24.0)),))
    first, *_, last = one(shot)

    def centre(picture: np.ndarray) -> np.ndarray:
        return np.argwhere(picture.min(axis=2) > 200).mean(axis=0)[::-1]

    assert centre(last) - centre(first) == pytest.approx((36, 12), abs=0.5)
    assert np.array_equal(first[:20, -30:], last[:20, -30:])
    truth = world.truth(Script(shots=(shot,), size=SIZE)).shots[0]
    assert truth.caption == "a large white heart moves right over a striped navy background"
    assert truth.shapes[0].velocity == (72, 24)


@pytest.mark.parametrize("camera", [Camera(zoom_rate=0.5), Camera(zoom=1.6, zoom_rate=-0.5), Camera(shake=3, seed=1)])
def test_zoom_and_shake_move_the_picture_about_where_it_is(camera: Camera) -> None:
    shot = Shot(
        frames=24, background=NAVY, shapes=(replace(HEART, x=80, color="white", velocity=(0.0, 0.0)),), camera=camera
    )
    pictures = one(shot)
    areas = [int((picture.min(axis=2) > 200).sum()) for picture in pictures]
    assert areas[-1] / areas[0] == pytest.approx(np.exp(2 * camera.zoom_rate * 23 / 24), rel=0.06)
    assert not np.array_equal(pictures[0], pictures[1])
    centres = np.array([np.argwhere(picture.min(axis=2) > 200).mean(axis=0) for picture in pictures])
    assert np.abs(centres - (45, 80)).max() < (12 if camera.shake else 2)
    assert world.truth(Script(shots=(shot,), size=SIZE)).shots[0].flow > 0


@pytest.mark.parametrize("kind", get_args(ShapeKind))
def test_shapes_have_their_size_and_colour(kind: Any) -> None:
    shape = Shape(kind=kind, color="red", radius=24, x=80, y=45)
    picture = one(Shot(frames=1, background=NAVY, shapes=(shape,)))[0].astype(int)
    red = np.abs(picture - world.COLORS["red"]).max(axis=2) < 40
    ys, xs = np.nonzero(red)
    assert 0.8 * 48 < xs.max() - xs.min() < 1.25 * 48
    assert 0.7 * 48 < ys.max() - ys.min() < 1.25 * 48
    assert red.sum() == pytest.approx(np.pi * disc_radius(kind) ** 2 * 24**2, rel=0.1)
    assert red[45, 80] == (kind != "ring")


# ---- light and text -------------------------------------------------------------------------------------------------


def test_a_flash_and_a_switched_light_are_no_transitions() -> None:
    flashes = (Flash(start=3, frames=2, strength=0.9), Flash(kind="lights", start=7, strength=0.5))
    shot = Shot(frames=10, background=NAVY, flashes=flashes)
    script = Script(shots=(shot, shot), transitions=(Transition(),), size=SIZE)
    light = [float(picture.mean()) for picture in world.frames(script)][:10]
    full = one(replace(shot, flashes=()))[0].mean()
    assert [value > 200 for value in light] == [index in (3, 4) for index in range(10)]
    assert light[0] == pytest.approx(0.5 * full, rel=0.03)
    assert light[6] == light[0]
    assert light[7] == light[9] == full
    truth = world.truth(script)
    assert [(c.frame, c.end, c.kind) for c in truth.cuts] == [(10, 10, "cut")]
    assert [(f.frame, f.end, f.kind) for f in truth.flashes][:2] == [(3, 5, "flash"), (7, 8, "lights")]
    assert not truth.shots[0].still


@pytest.mark.parametrize("style", ["plain", "outline", "box"])
def test_text_is_drawn_within_its_box_and_fills_it(style: Any) -> None:
    overlay = Overlay(text="Coffee by 8", x=20, y=40, size=20, style=style, start=2, end=5)
    shot = Shot(frames=7, background=NAVY, overlays=(overlay,))
    pictures, bare = one(shot), one(replace(shot, overlays=()))[0]
    truth = world.truth(Script(shots=(shot,), size=SIZE)).shots[0]
    (text,) = truth.texts
    assert (text.frame, text.end, text.text) == (2, 5, "Coffee by 8")
    x0, y0, x1, y1 = text.box
    assert (x0, y0) == (20, 40)
    for index, picture in enumerate(pictures):
        ys, xs = np.nonzero(np.abs(picture.astype(int) - bare).max(axis=2) > 3)
        assert bool(len(ys)) == (2 <= index < 5)
        if len(ys):
            assert x0 <= xs.min() <= x0 + 4 and x1 - 5 <= xs.max() < x1  # noqa: PT018
            assert y0 <= ys.min() <= y0 + 4 and y1 - 5 <= ys.max() < y1  # noqa: PT018
    assert truth.text_share == pytest.approx((x1 - x0) * (y1 - y0) / (160 * 90), abs=1e-6)
    assert truth.mean_text_share == pytest.approx(truth.text_share * 3 / 7, abs=1e-6)
    assert 'with the words "Coffee by 8"' in truth.caption


def test_text_that_runs_out_of_the_frame_has_the_box_that_is_seen() -> None:
    shot = Shot(frames=1, background=NAVY, overlays=(Overlay(text="A very long line of text", x=-6, y=70, size=30),))
    x0, y0, x1, y1 = world.truth(Script(shots=(shot,), size=SIZE)).shots[0].texts[0].box
    assert (x0, y0, x1, y1) == (0, 70, 160, 90)
    one(shot)


# ---- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "suffix", "options"),
    [("libx264", ".mp4", {}), ("libx264", ".mkv", {"bframes": 0, "gop": 5}), ("mpeg4", ".mp4", {"bitrate": 2_000_000})],
)
def test_what_is_encoded_comes_back(tmp_path: Path, codec: str, suffix: str, options: dict[str, Any]) -> None:
    script = world.write_script(11, shots=2, size=SIZE, shot_frames=(12, 14), transitions=("dissolve",), fps=30)
    path = world.encode(script, tmp_path / f"video{suffix}", codec=codec, **options)
    given, back = list(world.frames(script)), decoded(path)
    assert len(back) == len(given) == script.frames
    assert min(psnr(a, b) for a, b in zip(given, back, strict=True)) > 27
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == 30
        keys = [packet.is_keyframe for packet in container.demux(video=0) if packet.size]
    if "gop" in options:
        assert sum(keys) >= script.frames // 5
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_turned_file_comes_back_upright(tmp_path: Path) -> None:
    given = one(Shot(frames=3, background=SAND, shapes=(HEART,)))
    for rotation in (90, 180, 270):
        path = world.encode(given, tmp_path / f"{rotation}.mp4", rotation=rotation)
        with av.open(str(path)) as container:
            stored = list(container.decode(video=0))
        assert all(frame.rotation % 360 == rotation for frame in stored)
        upright = np.rot90(stored[0].to_ndarray(format="rgb24"), rotation // 90)
        assert psnr(given[0], upright) > 27


def test_frames_can_have_times_of_their_own_and_sound(tmp_path: Path) -> None:
    given = one(Shot(frames=24, background=SAND, shapes=(HEART,)))
    pts = [1000 * index + (index % 3) * 200 for index in range(24)]
    path = world.encode(given, tmp_path / "vfr.mkv", pts=pts, time_base=Fraction(1, 1000), tone=440.0)
    with av.open(str(path)) as container:
        assert [frame.pts for frame in container.decode(video=0)] == pts
    with av.open(str(path)) as container:
        sound = np.concatenate([block.to_ndarray()[0] for block in container.decode(audio=0)])
    assert len(sound) == pytest.approx(48_000 * 23.4, rel=0.02)
    strongest = np.abs(np.fft.rfft(sound[:48_000])).argmax()
    assert strongest == pytest.approx(440, abs=2)


def test_a_failed_encode_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Any:
        yield np.zeros((90, 160, 3), np.uint8)
        raise RuntimeError("the camera fell over")

    with pytest.raises(RuntimeError, match="fell over"):
        world.encode(broken(), tmp_path / "a.mp4")
    with pytest.raises(ValueError, match="even"):
        world.encode([np.zeros((91, 160, 3), np.uint8)], tmp_path / "a.mp4")
    with pytest.raises(ValueError, match="no frame"):
        world.encode([], tmp_path / "a.mp4")
    with pytest.raises(ValueError, match="pts=3 times: there are 2 frames"):
        world.encode(np.zeros((2, 90, 160, 3), np.uint8), tmp_path / "a.mp4", pts=[0, 1, 2])
    with pytest.raises(ValueError, match="pts=1 times: there are more frames"):
        world.encode(np.zeros((2, 90, 160, 3), np.uint8), tmp_path / "a.mp4", pts=[0])
    assert list(tmp_path.iterdir()) == []


def test_render_world_leaves_videos_and_their_truth(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    paths = world.render_world(folder, seed=3, videos=3, shots=2, size=SIZE, shot_frames=(6, 9))
    said = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    assert sorted(p.name for p in folder.iterdir()) == sorted([*said, "truth.json"])
    assert [p.name for p in paths] == list(said)
    for number, path in enumerate(paths):
        truth = world.truth(world.write_script((3, number), shots=2, size=SIZE, shot_frames=(6, 9)))
        assert said[path.name] == truth.to_json()
        assert len(decoded(path)) == truth.frames
    again = world.render_world(tmp_path / "again", seed=3, videos=1, shots=2, size=SIZE, shot_frames=(6, 9))
    assert again[0].read_bytes() == paths[0].read_bytes()
    with pytest.raises(TypeError, match="shorts"):
        world.render_world(folder, seed=3, videos=1, shorts=2)


# ---- words ----------------------------------------------------------------------------------------------------------


def test_captions_say_what_is_seen() -> None:
    shot = Shot(
        frames=10,
        background=Background(texture="cloudy", color="mist"),
        shapes=(
            Shape(kind="ring", color="red", radius=30, x=50, y=50, velocity=(-20, 0)),
            Shape(kind="cross", color="black", radius=10, x=50, y=50, velocity=(20, -20)),
            Shape(kind="square", color="green", radius=20, x=50, y=50, growth=0.4),
        ),
        camera=Camera(velocity=(30, 0)),
    )
    assert shot.caption(180) == (
        "a large red ring moves left, a small black cross moves diagonally up and right and a green square grows "
        "over a cloudy mist background, the camera pans right"
    )
    zoom = replace(shot, shapes=(replace(shot.shapes[0], color="orange"),), camera=Camera(zoom_rate=0.3))
    assert zoom.caption(180) == "an orange ring moves left over a cloudy mist background, the camera zooms in"
    assert Shot(frames=1, background=NAVY).caption(180) == "a striped navy background"


def test_a_script_is_plain_json() -> None:
    script = world.write_script(0, text=1.0, flashes=1.0)
    assert json.loads(json.dumps(script.to_json()))["shots"][0]["frames"] == script.shots[0].frames


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Shape(kind="blob", color="red", radius=3, x=0, y=0), "Shape.kind"),  # type: ignore[arg-type]
        (lambda: Shape(kind="star", color="reddish", radius=3, x=0, y=0), "Shape.color"),
        (lambda: Shot(frames=0, background=NAVY), "Shot.frames"),
        (lambda: Shot(frames=5, background=NAVY, flashes=(Flash(start=5),)), "Shot.flashes"),
        (lambda: Transition(kind="cut", frames=3), "Transition.frames"),
        (lambda: Transition(kind="wipe"), "Transition.frames"),
        (lambda: Script(shots=()), "Script"),
        (lambda: Overlay(text=" ", x=0, y=0, size=20), "Overlay.text"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(make: Any, field: str) -> None:
    with pytest.raises(ValueError, match=field):
        make()
