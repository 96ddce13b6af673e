"""Pictures that change size, shape, turn or format in the middle of a source: no clip is squashed, none has two sizes."""

from __future__ import annotations

import io
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from dailies.curation import video
from dailies.curation.clips import ClipRules, clip_rows, span_of
from dailies.curation.detectors import BoundaryDetector
from dailies.curation.errors import NotCopied
from dailies.curation.geometry import Geometry, largest_within, placed, with_changes
from dailies.curation.observations import joined_row, observe_row
from dailies.curation.observe import EvidenceGrid
from dailies.curation.observers import BordersObserver, BoundaryObserver
from dailies.curation.timing import Span
from dailies.curation.types import Cut
from dailies.curation.video.extract import Extractor
from tests.rendered_video import GOP, render, turning

COUNT = 36  # frames of each part, at 25 a second
TICK = 3600  # of a transport stream, a frame
RULES = ClipRules(min_seconds=0.5, max_seconds=10)
TOP, BOTTOM = slice(6, 14), slice(-14, -6)
SMALL, LARGE, TALL = (160, 90), (320, 180), (90, 160)


def disc(_index: int, width: int, height: int) -> np.ndarray:
    """(h, w, 3): a white disc in the middle of a grey that is the same everywhere, three quarters as high as the picture."""
    y, x = np.mgrid[:height, :width]
    inside = (x - width / 2 + 0.5) ** 2 + (y - height / 2 + 0.5) ** 2 < (3 / 8 * min(width, height)) ** 2
    return np.where(inside[..., None], 235, 90).repeat(3, axis=-1).astype(np.uint8)


def upright_disc(turn: int) -> Callable[[int, int, int], np.ndarray]:
    """The disc with a black mark at the left of its picture's top, as it is coded to be turned counter-clockwise."""

    def picture(index: int, width: int, height: int) -> np.ndarray:
        rgb = disc(index, *((height, width) if turn % 180 else (width, height)))
        rgb[4:16, 4:16] = 16
        return np.rot90(rgb, -turn // 90)

    return picture


def is_upright(rgb: np.ndarray) -> bool:
    """Whether the mark is where it was, and nowhere else."""
    corners = [rgb[y, x].mean(axis=(0, 1, 2)) < 50 for y in (TOP, BOTTOM) for x in (TOP, BOTTOM)]
    return corners == [True, False, False, False]


def roundness(rgb: np.ndarray) -> float:
    """Width over height of what is white in (h, w, 3)."""
    white = rgb.mean(axis=-1) > 160
    return float(white.any(axis=0).sum() / white.any(axis=1).sum())


def joined(path: Path, *parts: dict[str, Any]) -> Path:
    """One transport stream of parts, each rendered by its settings; with a ``turn``, its keyframes state it."""
    with av.open(str(path), "w") as container:
        stream: Any = None
        for number, settings in enumerate(parts):
            part = path.with_name(f"part{number}.ts")
            given = {"pts": range(COUNT), "options": {"x264-params": f"{GOP}:bframes=2"}, "picture": disc, **settings}
            turn = given.pop("turn", 0)
            render(part, **{**given, "pts": list(given["pts"])}, time_base=Fraction(1, 25))
            with av.open(str(part)) as coded:
                source = coded.streams.video[0]
                stream = stream or container.add_stream_from_template(source)
                first = None
                for packet in coded.demux(source):
                    if not packet.size:
                        continue
                    first = packet.pts if first is None else first
                    packet.pts += number * COUNT * TICK - first
                    packet.dts += number * COUNT * TICK - first
                    if turn and packet.is_keyframe:
                        packet = turning(packet, source.codec_context.name, turn)
                    packet.stream = stream
                    container.mux(packet)
    return path


def observe_file(path: Path, observers: list[Any]) -> dict[str, Any]:
    """The observations row."""
    unit = {"source_id": "s", "uri": str(path), "manifest": None, "segment": 0, "segments": None, "origin": None}
    row = observe_row(unit, observers, EvidenceGrid())
    assert row["status"] == "ok", row["failure"]
    return row


def clips_of(path: Path, *observers: Any) -> list[dict[str, Any]]:
    looking = [BoundaryObserver(), *observers]
    return clip_rows(observe_file(path, looking), BoundaryDetector(), looking, RULES)


def sizes(data: bytes | None) -> set[tuple[int, int, str]]:
    """All (width, height, pixel format) among the frames of a video, as coded."""
    assert data is not None
    with av.open(io.BytesIO(data)) as container:
        return {(frame.width, frame.height, frame.format.name) for frame in container.decode(video=0)}


def check_modes(path: Path, clip: dict[str, Any], shape: float = 1.0, *, marked: bool = False) -> dict[str, int]:
    """Extract a clip in every mode; its file, its reference and its row agree, and its disc is round, its mark where it was.
    Returns how many frames were encoded in each."""
    encoded = {}
    size = (clip["width"], clip["height"])
    for mode in ("encode", "smart", "copy", "none"):
        with Extractor(str(path)) as extractor:
            made = extractor.extract(span_of(clip), mode, size=size)
        encoded[mode] = made.encoded
        assert (made.width, made.height) == size, mode
        base = {"num": made.span.time_base.numerator, "den": made.span.time_base.denominator}
        row = {
            **clip,
            "video": made.data,
            "source_start": made.span.start,
            "source_end": made.span.end,
            **{f"time_base_{name}": value for name, value in base.items()},
            **dict.fromkeys(("crop_left", "crop_top", "crop_right", "crop_bottom"), 0),
        }
        pixels = video.clip_frames(row).pixels
        assert pixels.shape == (made.frames, size[1], size[0], 3), mode
        for rgb in pixels[[0, -1]]:
            assert roundness(rgb) == pytest.approx(shape, abs=0.06), mode
            assert not marked or is_upright(rgb), mode
        if mode != "none":
            assert len(sizes(made.data)) == 1, mode
            assert video.count_frames(made.data or b"") == made.frames, mode
        if mode != "copy":
            assert made.frames == clip["frames"], mode
    return encoded


def test_another_shape_ends_the_shot_and_both_stay_round(tmp_path: Path) -> None:
    """Excludes the first frame's canvas for all, and a change that goes back seen as none."""
    path = joined(tmp_path / "x.ts", {"size": LARGE}, {"size": TALL}, {"size": LARGE})
    clips = clips_of(path, BordersObserver())
    assert [(c["first_frame"], c["frames"], c["width"], c["height"]) for c in clips] == [
        (0, 36, *LARGE), (36, 36, *TALL), (72, 36, *LARGE)
    ]  # fmt: skip
    kinds = [(c["start_kind"], c["end_kind"], c["end_detector"]) for c in clips]
    assert kinds[:2] == [("source", "geometry", "geometry"), ("geometry", "geometry", "geometry")]
    assert all(c[f"border_{side}"] == 0 for c in clips for side in ("left", "top", "right", "bottom"))
    for clip in clips:
        check_modes(path, clip)


def test_slides_of_another_shape_are_cut_by_their_own_track(tmp_path: Path) -> None:
    """Only the part with pauses has the track of held frames."""
    slides = {
        "size": TALL,
        "options": {"x264-params": f"{GOP}:bframes=0"},
        "pts": [25 * n for n in range(6)],
        "picture": lambda n, w, h: np.full((h, w, 3), 40 * n, np.uint8),
    }
    row = observe_file(joined(tmp_path / "x.ts", {"size": LARGE}, slides), [BoundaryObserver()])
    assert row["status"] == "ok", row["failure"]
    assert {track["name"] for track in row["tracks"]} > {"boundary_held"}


@pytest.mark.parametrize(
    ("parts", "largest"), [((SMALL, LARGE), LARGE), ((LARGE, SMALL), LARGE), ((SMALL, LARGE, SMALL, (240, 136)), LARGE)]
)
def test_one_shot_in_several_sizes_is_one_clip_in_the_largest(
    parts: tuple[tuple[int, int], ...], largest: tuple[int, int], tmp_path: Path
) -> None:
    path = joined(tmp_path / "x.ts", *({"size": size} for size in parts))
    (clip,) = clips_of(path)
    assert (clip["frames"], clip["width"], clip["height"]) == (COUNT * len(parts), *largest)
    encoded = check_modes(path, clip)
    assert encoded["copy"] == encoded["smart"] == clip["frames"]  # pictures of two sizes are copied nowhere


def test_a_span_within_one_size_is_copied_whatever_the_first_size_was(tmp_path: Path) -> None:
    path = joined(tmp_path / "x.ts", {"size": SMALL}, {"size": LARGE})
    (clip,) = clips_of(path)
    late = {**clip, "start": clip["start"] + (COUNT + 9) * TICK, "frames": COUNT - 9, "width": 320, "height": 180}
    encoded = check_modes(path, late)
    assert encoded["copy"] == 0
    assert video.extract_clip(str(path), span_of(late), "none").width == 320


def test_pixels_that_become_wide_are_another_shape(tmp_path: Path) -> None:
    """4:3 to 16:9 at the same coded size, as in broadcasts; two reordered pictures come out late."""
    mpeg2 = {"codec": "mpeg2video", "options": {"g": "9", "bf": "2", "b": "2M"}, "size": (160, 120)}
    for settings in ({"size": (160, 120)}, mpeg2):
        parts = [{**settings, "aspect": aspect, "picture": disc} for aspect in (Fraction(1), Fraction(4, 3))]
        path = joined(tmp_path / "x.ts", *parts)
        clips = clips_of(path)
        assert [(c["first_frame"], c["frames"], c["width"], c["height"]) for c in clips] == [
            (0, 36, 160, 120), (36, 36, 213, 120)
        ]  # fmt: skip
        wide = video.extract_clip(str(path), span_of(clips[1]))
        pixels = video.decode_bytes(wide.data or b"").pixels
        assert [roundness(pixels[at]) for at in (0, -1)] == pytest.approx([4 / 3] * 2, abs=0.05)


def test_another_pixel_format_ends_no_shot_and_no_copy_holds_two(tmp_path: Path) -> None:
    path = joined(tmp_path / "x.ts", {"size": LARGE}, {"size": LARGE, "pix_fmt": "yuv422p10le"})
    row = observe_file(path, [BoundaryObserver()])
    assert [g["pixel_format"] for g in row["geometries"]] == ["yuv420p", "yuv422p10le"]
    (clip,) = clips_of(path)
    encoded = check_modes(path, clip)
    assert encoded["copy"] == encoded["smart"] == 2 * COUNT


def test_colours_stay_where_the_matrix_changes_with_the_size(tmp_path: Path) -> None:
    """Red of BT.601 and of BT.709 in one clip: excludes samples of one taken for the other, which are off by 20."""

    def red(_index: int, width: int, height: int) -> np.ndarray:
        return np.full((height, width, 3), (200, 30, 30), np.uint8)

    path = joined(
        tmp_path / "x.ts", *({"size": size, "picture": red, "tags": (1, tag)} for size, tag in ((SMALL, 6), (LARGE, 1)))
    )
    (clip,) = clips_of(path)
    pixels = video.decode_bytes(video.extract_clip(str(path), span_of(clip)).data or b"").pixels
    for at in (0, -1):
        assert np.abs(pixels[at].mean((0, 1)) - (200, 30, 30)).max() < 6


def test_a_picture_of_another_shape_stands_between_bars_where_a_span_holds_both(tmp_path: Path) -> None:
    """As spans do that people name, and clips of before."""
    path = joined(tmp_path / "x.ts", {"size": LARGE}, {"size": TALL})
    row = observe_file(path, [])
    span = Span(start=row["pts"][0], end=row["end"], time_base=Fraction(1, 90000))
    made = video.extract_clip(str(path), span)
    for pixels in (video.decode_bytes(made.data or b"").pixels, video.read_span(str(path), span).pixels):
        assert pixels.shape == (72, 180, 320, 3)
        assert roundness(pixels[-1]) == pytest.approx(1, abs=0.05)
        assert pixels[-1, :, :90].max() < 30  # the picture is 100 px wide, in the middle
        assert pixels[-1, 90, 112:208].min() > 60


def test_a_long_sources_segments_know_the_geometries_that_the_whole_does(tmp_path: Path) -> None:
    path = joined(tmp_path / "x.ts", {"size": LARGE}, {"size": TALL}, {"size": TALL})
    whole = observe_file(path, [BoundaryObserver()])
    parts = [
        {**whole, "pts": whole["pts"][:50], "geometries": whole["geometries"]},
        {**whole, "pts": whole["pts"][50:], "geometries": [{**whole["geometries"][1], "pts": whole["pts"][50]}]},
    ]
    parts[1]["tracks"] = [{**track, "pts": [], "values": []} for track in whole["tracks"]]
    looking = [BoundaryObserver()]
    once, again = (clip_rows(row, BoundaryDetector(), looking, RULES) for row in (whole, joined_row(parts)))
    assert [(c["first_frame"], c["frames"]) for c in again] == [(c["first_frame"], c["frames"]) for c in once]


def test_a_copy_that_keyframes_leave_under_the_least_length_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    render(path, pts=list(range(54)), time_base=Fraction(1, 25), options={"x264-params": GOP})
    row = observe_file(path, [])
    base = Fraction(row["probe"]["time_base_num"], row["probe"]["time_base_den"])
    span = Span(
        start=row["pts"][1], end=row["pts"][27], time_base=base
    )  # the next keyframe is at 9: 18 frames are left
    with Extractor(str(path)) as extractor:
        assert extractor.extract(span, "copy", least=Fraction(18, 25)).frames == 18
        with pytest.raises(NotCopied, match=r"0\.72 s from its keyframe on are left of it, under min_seconds=0\.8"):
            extractor.extract(span, "copy", least=Fraction(4, 5))
        assert extractor.extract(span, "smart", least=Fraction(4, 5)).frames == 26


# ---- rules ----------------------------------------------------------------------------------------------------------


def at(pts: int, width: int, height: int, rotation: int = 0) -> Geometry:
    return Geometry(pts=pts, width=width, height=height, rotation=rotation, pixel_format="yuv420p", pixel_aspect=1.0)


def test_only_another_shape_is_a_change_and_only_where_no_cut_lies() -> None:
    pts = list(range(0, 100, 2))
    hard = Cut(start=58, end=60, kind="cut", detector="x", strength=1.5)
    geometries = [at(0, 640, 360), at(20, 854, 480), at(40, 640, 480), at(60, 640, 360), at(80, 360, 640)]
    found = with_changes([hard], geometries, pts)
    assert [(cut.start, cut.end, cut.kind) for cut in found] == [
        (38, 40, "geometry"), (58, 60, "cut"), (78, 80, "geometry")
    ]  # fmt: skip
    assert all(cut.strength > 1 for cut in found)
    drift = [at(2 * n, 1000 + 6 * n, 1000) for n in range(5)]  # each by less than a percent, together by more
    assert [cut.end for cut in with_changes([], drift, pts)] == [4, 8]
    assert with_changes([hard], [], pts) == [hard]


def test_another_turn_is_a_change_whatever_the_shape() -> None:
    """Excludes turns told apart by shape alone, and 270° taken to be further from upright than 90°."""
    pts = list(range(0, 100, 2))
    geometries = [at(20 * n, 360, 360, turn) for n, turn in enumerate((0, 0, 270, 270, 90))]
    assert [(cut.start, cut.end, cut.strength) for cut in with_changes([], geometries, pts)] == [
        (38, 40, 2), (78, 80, 4)
    ]  # fmt: skip


def test_the_largest_size_of_a_span_and_where_it_is() -> None:
    geometries = [at(0, 160, 90), at(10, 640, 360), at(15, 640, 360), at(20, 320, 180), at(30, 1280, 720)]

    def span(start: int, end: int) -> Span:
        return Span(start=start, end=end, time_base=Fraction(1, 25))

    assert largest_within(geometries, span(5, 30)) == ((640, 360), span(10, 20))
    assert largest_within(geometries, span(16, 30)) == ((640, 360), span(16, 20))
    assert largest_within(geometries, span(22, 31)) == ((1280, 720), span(30, 31))
    assert largest_within([], span(0, 5)) is None


@pytest.mark.parametrize(
    ("inner", "outer", "place"),
    [
        ((160, 90), (640, 360), (0, 0, 640, 360)),
        ((854, 480), (640, 360), (0, 0, 640, 360)),
        ((180, 320), (320, 180), (110, 0, 100, 180)),
        ((180, 320), (322, 180), (110, 0, 100, 180)),  # at an even column: chroma has half the size
        ((320, 180), (180, 320), (0, 110, 180, 100)),
        ((640, 480), (1920, 1080), (240, 0, 1440, 1080)),
    ],
)
def test_a_picture_is_placed_whole(
    inner: tuple[int, int], outer: tuple[int, int], place: tuple[int, int, int, int]
) -> None:
    assert placed(inner, outer) == place
