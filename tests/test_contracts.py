"""The contracts of every table of curation: OBSERVERS, DETECTORS, SCORERS, CAPTIONERS.

The tests run over the tables themselves, so a new entry is tested without a line here, but for three that are written down
on purpose: its identity (``IDENTITIES``), the range of a unit that is new (``RANGES``), and parameters that it cannot be made
without (``ARGUMENTS``). CONTRIBUTING.md says what to add for each kind of thing.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import pickle
import re
import typing
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest

from dailies.curation.captioners import CAPTIONERS, COLUMNS, STATE
from dailies.curation.detectors import DETECTORS
from dailies.curation.errors import RecipeError, SourceError
from dailies.curation.observe import EvidenceGrid, Observation, observe
from dailies.curation.observers import OBSERVERS
from dailies.curation.scorers import SCORERS
from dailies.curation.scorers.ask import Question
from dailies.curation.scorers.caption_quality import CaptionQualityScorer
from dailies.curation.timing import Span
from dailies.curation.types import Evidence, EvidenceFrame, Frame
from dailies.curation.video import jpeg, unjpeg
from dailies.pipelines.recipes.recipe import parse_recipe, resolved
from dailies.pipelines.stages import score_rows
from scripts.columns import page
from tests.chat_server import MODEL, ChatServer
from tests.craft_weights import seeing_light

ROOT = Path(__file__).resolve().parents[1]
MODELS = {**SCORERS, "text_craft": SCORERS["text"], **{f"caption_{name}": cls for name, cls in CAPTIONERS.items()}}
SPECS = {
    **{("observer", name): cls for name, cls in OBSERVERS.items()},
    **{("detector", name): cls for name, cls in DETECTORS.items()},
    **{("scorer", name): cls for name, cls in SCORERS.items()},
    **{("captioner", name): cls for name, cls in CAPTIONERS.items()},
}

# An identity is part of the names of people's tables. A new thing's is added here once; it never changes after that, wherever
# its class moves and whatever it is called: a changed one would compute everyone's datasets again.
IDENTITIES = {
    ("observer", "artifacts"): "curation.observers.artifacts.Artifacts",
    ("observer", "borders"): "curation.observers.borders.Borders",
    ("observer", "boundary"): "curation.observers.boundary.Boundary",
    ("observer", "change"): "curation.observers.change.Change",
    ("observer", "combing"): "curation.observers.combing.Combing",
    ("observer", "duplicates"): "curation.observers.duplicates.Duplicates",
    ("observer", "luma"): "curation.observers.luma.Luma",
    ("observer", "motion"): "curation.observers.motion.Motion",
    ("observer", "sharpness"): "curation.observers.sharpness.Sharpness",
    ("observer", "sound"): "curation.observers.sound.Sound",
    ("detector", "boundary"): "curation.cuts.boundary.Boundary",
    ("detector", "content"): "curation.cuts.content.Content",
    ("scorer", "aesthetic"): "curation.scorers.aesthetic.Aesthetic",
    ("scorer", "ask"): "curation.scorers.ask.Ask",
    ("scorer", "ask_endpoint"): "curation.scorers.ask.AskEndpoint",
    ("scorer", "caption_quality"): "curation.scorers.caption_quality.CaptionQuality",
    ("scorer", "classify"): "curation.scorers.classify.Classify",
    ("scorer", "brisque"): "curation.scorers.brisque.Brisque",
    ("scorer", "clip"): "curation.scorers.clip.Clip",
    ("scorer", "embed"): "curation.scorers.embed.Embed",
    ("scorer", "raft"): "curation.scorers.raft.Raft",
    ("scorer", "safety"): "curation.scorers.safety.Safety",
    ("scorer", "technical"): "curation.scorers.technical.Technical",
    ("scorer", "text"): "curation.scorers.text.Text",
    ("captioner", "alt_text"): "curation.captioners.alt_text.AltText",
    ("captioner", "best"): "curation.captioners.best.Best",
    ("captioner", "coca"): "curation.captioners.coca.Coca",
    ("captioner", "endpoint"): "curation.captioners.endpoint.Endpoint",
    ("captioner", "fuse"): "curation.captioners.fuse.Fuse",
    ("captioner", "motion"): "curation.captioners.motion.Motion",
    ("captioner", "summary"): "curation.captioners.summary.Summary",
    ("captioner", "summary_endpoint"): "curation.captioners.summary.EndpointSummary",
    ("captioner", "summary_vllm"): "curation.captioners.summary.VllmSummary",
    ("captioner", "video"): "curation.captioners.video.Video",
    ("captioner", "vllm"): "curation.captioners.vllm.Vllm",
}
# What a unit says of the numbers in it.
RANGES = {
    "0-1": (0.0, 1.0),
    "share of frame": (0.0, 1.0),
    "-1 to 1": (-1.0, 1.0),
    "0-255": (0.0, 255.0),
    "luma²": (0.0, math.inf),
    "s": (0.0, math.inf),
    "px of the upright source": (0.0, 16384.0),
    "px per 1/2 s at 240 px": (-math.inf, math.inf),  # to either side
    "percent per 1/2 s": (-100.0, math.inf),
    "degree per 1/2 s": (-180.0, 180.0),
    "box": (0, math.inf),
    "face": (0, math.inf),
    "M3": (0.0, math.inf),
    "BRISQUE": (-100.0, 200.0),  # a regression, which no range holds exactly
    "token": (1, math.inf),
    "word": (0, math.inf),
    "character": (0, math.inf),
    "phrase": (0, math.inf),
    "unit vector": (-1.0, 1.0),  # each of its numbers
    "LAION's points, 1 to 10": (-math.inf, math.inf),  # as rated; a head is linear and may leave them
    "LUFS": (-70.0, math.inf),
}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "raft": {"model": "raft.pth", "short_side": 128, "updates": 1},  # in the folder that ``arguments`` is of
    "coca": {"beams": 2, "max_tokens": 8},
    "video": {"model": "qwen2.5-vl", "frames": 3, "max_tokens": 6},
    "endpoint": {"url": "http://127.0.0.1:9/v1", "model": MODEL},  # of a server that the fixture starts
    "vllm": {"model": "owner/name"},
    "summary": {"model": "llama", "max_tokens": 6},
    "summary_endpoint": {"url": "http://127.0.0.1:9/v1", "model": MODEL},
    "ask": {"model": "qwen2.5-vl", "frames": 2, "max_tokens": 6},
    "ask_endpoint": {"url": "http://127.0.0.1:9/v1", "model": MODEL, "question": "Does it move, yes or no?"},
    "summary_vllm": {"model": "owner/name"},
    "aesthetic": {"head": "head.pth"},
    "best": {"captions": ("caption_coca", "caption_fuse"), "similarities": ("clip_similarity", "contrast")},
    "text_craft": {"craft": "craft.pth", "side": 96},
}
WIDTH = 128  # of an embedding by the built-in model
WATCHING = [name for name, cls in OBSERVERS.items() if cls().needs is not None]  # the others hear: tests/test_sound.py
BLIND = {"caption_alt_text", "caption_best", "caption_motion", "caption_fuse"}  # read columns alone, and no evidence
UNBOUNDED = {
    ("captioner", "coca", "seed"),
    ("captioner", "coca", "length_penalty"),
    ("captioner", "endpoint", "seed"),
    ("captioner", "summary", "seed"),
    ("captioner", "summary_endpoint", "seed"),
    ("captioner", "summary_vllm", "seed"),
    ("captioner", "video", "seed"),
    ("captioner", "vllm", "seed"),
}  # any number means something


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    with ChatServer() as server:
        yield server


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory, server: ChatServer) -> dict[str, dict[str, Any]]:
    """``ARGUMENTS``, with a server, files of random weights for RAFT and for a head, and of those that see what is bright for
    CRAFT."""
    asking = ("endpoint", "summary_endpoint", "ask_endpoint")
    served = ARGUMENTS | {name: {**ARGUMENTS[name], "url": server.url} for name in asking}
    if find_spec("torchvision") is None:
        return served
    import torch
    from torchvision.models.optical_flow import raft_small

    from tests.tiny_chat_models import save_tiny

    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("weights")
    torch.save(raft_small().state_dict(), folder / "raft.pth")
    torch.save(torch.nn.Linear(WIDTH, 1).state_dict(), folder / "head.pth")
    torch.save(seeing_light(), folder / "craft.pth")
    return {
        **served,
        "raft": {**ARGUMENTS["raft"], "model": str(folder / "raft.pth")},
        "aesthetic": {"head": str(folder / "head.pth")},
        "text_craft": {**ARGUMENTS["text_craft"], "craft": str(folder / "craft.pth")},
        **{
            name: {**ARGUMENTS[name], "model": str(save_tiny(ARGUMENTS[name]["model"], folder / name))}
            for name in ("summary", "video", "ask")
        },
    }


def make(name: str, cls: Any, arguments: dict[str, dict[str, Any]]) -> Any:
    """A spec that can be opened; skips visibly where a package that it requires is absent."""
    spec = cls(**arguments.get(name.removeprefix("caption_"), {}))
    for package in spec.requires:
        pytest.importorskip(package)
    return resolved(spec)


# ---- every spec -----------------------------------------------------------------------------------------------------


def ids(keys: Any) -> list[str]:
    return ["-".join(key) for key in keys]


def columns_of(cls: Any) -> tuple[pa.Field, ...]:
    return tuple(getattr(cls, "measures", ()) or getattr(cls, "columns", ()))


def documented(cls: Any) -> set[str]:
    """Parameters that a class's docstring, or that of a class it extends, explains: as ``name`` or as ``name:`` in a list."""
    docs = "\n".join(inspect.cleandoc(base.__doc__ or "") for base in cls.__mro__ if base is not object)
    listed = re.findall(r"^ +([a-z_, ]+):", docs, re.MULTILINE)
    return {*re.findall(r"``([a-z_]+)``", docs), *(name for names in listed for name in names.split(", "))}


def parameters(cls: Any) -> dict[str, Any]:
    """Name and plain type of each."""
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def a_wrong_value(annotation: Any) -> Any:
    """A value of the right type that no parameter may have, as far as its type tells."""
    if typing.get_origin(annotation) in (UnionType, typing.Union):
        annotation = next(part for part in typing.get_args(annotation) if part is not type(None))
    return "nonsense" if typing.get_origin(annotation) is typing.Literal else [] if annotation is str else -(10**9)


def in_a_recipe(kind: str, name: str, values: dict[str, Any]) -> None:
    """Parse a recipe that has such a thing in its first step."""
    thing = {name: values}
    step = {
        "observer": {"observe": {"observers": [thing]}},
        "detector": {"cut": {"detector": thing}},
        "scorer": {"score": {"scorer": thing}},
        "captioner": {"caption": {"captioner": thing}},
    }[kind]
    parse_recipe({"name": "contract", "steps": [step]})


def test_every_identity_is_written_down_and_stays() -> None:
    assert {key: cls.identity for key, cls in SPECS.items()} == IDENTITIES


@pytest.mark.parametrize("key", SPECS, ids=ids(SPECS))
def test_a_spec_is_documented_and_versioned(key: tuple[str, str]) -> None:
    cls = SPECS[key]
    assert type(cls.meaning) is int
    assert cls.meaning >= 1
    assert inspect.getmodule(cls).__doc__
    assert not (cls.__doc__ or "").startswith(f"{cls.__name__}("), "has no docstring of its own"
    assert not set(parameters(cls)) - documented(cls)
    for column in columns_of(cls):
        assert re.fullmatch(r"[a-z][a-z0-9_]*", column.name)
        assert column.metadata[b"doc"]
        if not pa.types.is_string(column.type):
            assert column.metadata[b"unit"].decode() in RANGES, f"{column.name}: say in RANGES what its unit allows"


@pytest.mark.parametrize("key", SPECS, ids=ids(SPECS))
def test_a_spec_is_frozen_and_refuses_what_it_cannot_take(
    key: tuple[str, str], arguments: dict[str, dict[str, Any]]
) -> None:
    kind, name = key
    cls, valid = SPECS[key], arguments.get(name, {})
    if valid:
        make(name, cls, arguments)
    spec = cls(**valid)
    assert pickle.loads(pickle.dumps(spec)) == spec
    with pytest.raises(RecipeError, match="unknown parameter 'nonsense'"):
        in_a_recipe(kind, name, {**valid, "nonsense": 1})
    for parameter, annotation in parameters(cls).items():
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(spec, parameter, getattr(spec, parameter))
        if (*key, parameter) not in UNBOUNDED:
            with pytest.raises(RecipeError, match=parameter):
                in_a_recipe(kind, name, {**valid, parameter: a_wrong_value(annotation)})


def test_no_two_things_make_a_column_of_one_name() -> None:
    tables = {
        id(columns_of(cls)): columns_of(cls) for cls in (*OBSERVERS.values(), *SCORERS.values())
    }  # ways to ask share one
    names = [column.name for columns in tables.values() for column in columns]
    assert sorted(names) == sorted(set(names))


def flat(value: Any) -> list[Any]:
    """A column's value, or all values within one that is a list or a struct."""
    if isinstance(value, dict):
        return [inner for each in value.values() for inner in flat(each)]
    return [inner for each in value for inner in flat(each)] if isinstance(value, list | np.ndarray) else [value]


def check_ranges(columns: Sequence[pa.Field], rows: Sequence[Any]) -> None:
    """Each value has its column's type and lies where its unit says; so does each number in a list."""
    for column in columns:
        for value in (value for row in rows for value in flat(row[column.name])):
            if value is None:
                assert b"null" in column.metadata[b"doc"], f"{column.name}: say in its doc when it is null"
            elif pa.types.is_string(column.type) or (isinstance(value, str) and pa.types.is_list(column.type)):
                assert isinstance(value, str), column.name
                assert value, column.name
            else:
                low, high = RANGES[column.metadata[b"unit"].decode()]
                assert math.isfinite(value), column.name
                assert low <= value <= high, f"{column.name}={value}"


# ---- observers and detectors ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def video(small_world: Path) -> str:
    return str(sorted(small_world.glob("*.mp4"))[0])


@pytest.fixture(scope="module")
def together(video: str) -> dict[bool, Observation]:
    """What all observers see in one decode, apart for those that need every frame: they give the others more to see."""
    by_every: dict[bool, list[Any]] = {}
    for cls in (OBSERVERS[name] for name in WATCHING):
        by_every.setdefault(cls().needs.every, []).append(cls())
    return {every: observe(video, observers, EvidenceGrid()) for every, observers in by_every.items()}


@pytest.mark.parametrize("name", WATCHING)
def test_an_observer_keeps_its_contract(name: str, video: str, together: dict[bool, Observation]) -> None:
    observer = OBSERVERS[name]()
    seen = observe(video, [observer], None)
    # The first track is named like the observer; any others carry its name before their own.
    assert seen.tracks[0].name == observer.name
    assert all(track.name.startswith(f"{observer.name}_") for track in seen.tracks[1:])
    among_others = {track.name: track for track in together[observer.needs.every].tracks}
    for track in seen.tracks:
        assert (track.values.dtype, track.pts.dtype) == (np.float32, np.int64)
        assert len(track.pts) == len(track.values) > 1
        assert (np.diff(track.pts) > 0).all()
        assert set(track.pts.tolist()) <= set(seen.pts)
        assert np.isfinite(track.values[1:]).all()
        np.testing.assert_array_equal(track.pts, among_others[track.name].pts)
        np.testing.assert_array_equal(track.values, among_others[track.name].values)
    whole = Span(start=seen.pts[0], end=seen.end, time_base=seen.probe.time_base)
    tracks = {track.name: track for track in seen.tracks}
    measures = observer.reduce(tracks, whole)
    assert list(measures) == [column.name for column in observer.measures]
    check_ranges(observer.measures, [measures])
    empty = dict.fromkeys(measures)
    assert observer.reduce(tracks, Span(start=seen.end + 10, end=seen.end + 20, time_base=whole.time_base)) == empty
    assert observer.reduce({}, whole) == empty
    assert observer.lookback >= 0


@pytest.mark.parametrize("picture", ["black", "white", "noise", "flicker"])
@pytest.mark.parametrize("name", WATCHING)
def test_an_observers_extremes_lie_where_their_units_say(
    name: str, picture: str, together: dict[bool, Observation]
) -> None:
    observer, (seen, *_) = OBSERVERS[name](), together.values()
    shape = (180, 320) if observer.needs.planes == "gray" else (180, 320, 3)
    rng = np.random.default_rng(0)
    going = observer.start(seen.probe)
    for number, pts in enumerate(seen.pts[:24]):
        noise = rng.integers(0, 256, shape, np.uint8)
        level = {"black": 0, "white": 255, "noise": 0, "flicker": 255 * (number % 2)}[picture]
        going.see(Frame(pts=pts, pixels=noise if picture == "noise" else np.full(shape, level, np.uint8)))
    tracks = {track.name: track for track in going.finish()}
    span = Span(start=seen.pts[0], end=seen.pts[24], time_base=seen.probe.time_base)
    measures = observer.reduce(tracks, span)
    check_ranges([column for column in observer.measures if measures[column.name] is not None], [measures])


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_keeps_its_contract(name: str, video: str, together: dict[bool, Observation]) -> None:
    detector = DETECTORS[name]()
    by_name = {cls().name: cls() for cls in OBSERVERS.values()}
    assert detector.observers
    assert set(detector.observers) <= set(by_name)
    observers = [by_name[each] for each in detector.observers]
    (seen,) = {id(together[each.needs.every]): together[each.needs.every] for each in observers}.values()
    assert detector.cuts({track.name: track for each in observers for track in each.start(seen.probe).finish()}) == []
    cuts = detector.cuts({track.name: track for track in seen.tracks})
    assert cuts
    assert all(seen.pts[0] <= cut.start < cut.end <= seen.pts[-1] for cut in cuts)
    assert all({cut.start, cut.end} <= set(seen.pts) for cut in cuts)
    assert all(before.end <= after.start for before, after in pairwise(cuts))
    assert all(cut.strength >= 1 and cut.detector == name for cut in cuts)


# ---- scorers and captioners -----------------------------------------------------------------------------------------


pytestmark = pytest.mark.usefixtures("one_thread")


SCENES = ("a red ring", "a small blue square over a grey background", "a green cross on sand")
MOVES = ("static", "pan right", "tilt up, zoom in")
AMOUNTS = (0.05, 3.0, 9.0)


def vector(number: int) -> list[float]:
    """Return an embedding of length 1."""
    drawn = np.random.default_rng(number).normal(size=WIDTH)
    return [float(each) for each in drawn / np.linalg.norm(drawn)]


def earlier(number: int) -> dict[str, Any]:
    """What earlier steps may say of a clip: every column that there is, and which content it is of."""
    measured = [column for cls in (*OBSERVERS.values(), *SCORERS.values()) for column in columns_of(cls)]
    return {
        **{column.name: (MOVES if pa.types.is_string(column.type) else AMOUNTS)[number] for column in measured},
        **{column.name: vector(number) for column in measured if pa.types.is_list(column.type)},
        **{f"caption_{name}": SCENES[number] for name in CAPTIONERS},
        "manifest.text": SCENES[number],
        **{f"{column}_{name}": None for name in CAPTIONERS for column in ("status", "fields", "flags")},
        **{f"tokens_{name}": number + 3 for name in CAPTIONERS},
        "content_id": f"content-{number}",
        "stream": 0,
    }


@pytest.fixture(scope="module")
def clips(small_world: Path) -> list[Evidence]:
    """Three clips that differ in what they show, in the text on it and in what earlier steps say of them."""
    out = []
    for number, path in enumerate(sorted(small_world.glob("*.mp4"))[:3]):
        seen = observe(str(path), [], EvidenceGrid(fps=4, short_side=180))
        frames = []
        for frame in seen.evidence[:3]:
            picture = unjpeg(frame.jpeg).copy()
            text = "TEXT " * (number + 1)
            cv2.putText(picture, text, (8, 40), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (255, 255, 255), 2)
            frames.append(EvidenceFrame(pts=frame.pts, jpeg=jpeg(picture, 95)))
        span = Span(start=frames[0].pts, end=frames[-1].pts + 1, time_base=seen.probe.time_base)
        out.append(Evidence(clip_id=f"clip-{number}", span=span, frames=tuple(frames), columns=earlier(number)))
    return out


def broken(clip: Evidence) -> Evidence:
    return dataclasses.replace(
        clip, frames=tuple(EvidenceFrame(pts=frame.pts, jpeg=b"no JPEG") for frame in clip.frames)
    )


def all_close(rows: Sequence[dict[str, Any]], wanted: Sequence[dict[str, Any]]) -> bool:
    """Whether rows agree in the columns of ``wanted`` but for rounding, which another order of a batch may change."""
    return all(
        len(flat(row[name])) == len(flat(value))
        and all(
            one == (other if other is None or isinstance(other, str) else pytest.approx(other, rel=1e-3, abs=1e-4))
            for one, other in zip(flat(row[name]), flat(value), strict=True)
        )
        for row, values in zip(rows, wanted, strict=True)
        for name, value in values.items()
    )


@pytest.mark.parametrize("name", MODELS)
def test_a_scorer_or_captioner_keeps_its_contract(
    name: str, clips: list[Evidence], arguments: dict[str, dict[str, Any]]
) -> None:
    spec = make(name, MODELS[name], arguments)
    columns = tuple(spec.columns)
    assert columns
    captioner = name not in SCORERS and name.startswith("caption_")
    state = STATE if captioner or isinstance(spec, Question | CaptionQualityScorer) else ()
    assert not captioner or columns[: len(COLUMNS)] == COLUMNS, "a captioner's columns begin with COLUMNS"
    assert set(spec.models) <= set(parameters(type(spec)))
    assert set(spec.needs) <= set(clips[0].columns), "reads columns that some observer, scorer or captioner makes"
    assert spec.resources.cpus > 0
    assert spec.resources.memory_gb > 0
    fingerprint = spec.weights()
    assert fingerprint is None or (isinstance(fingerprint, str) and fingerprint)
    with spec.open() as score:
        empty = score([])
        table = score(clips)
        for each in (empty, table):
            assert each.schema.equals(pa.schema([*columns, *state]))
        assert (empty.num_rows, table.num_rows) == (0, 3)
        rows = table.to_pylist()
        check_ranges(columns, rows)
        assert len({str(row) for row in rows}) == 3, "the three clips differ"
        assert all_close(score(clips[::-1]).to_pylist(), rows[::-1])
        with_broken = [clips[0], broken(clips[1]), clips[2]]
        scored = score_rows(name, score, with_broken)
        if not getattr(spec, "needs_frames", True):  # reads columns alone, and no evidence
            assert [row["failure"] for row in scored] == [None] * 3
        else:
            assert [row["status"] == "failed" for row in scored] == [False, True, False]
            assert [row["failure"] is None for row in scored] == [True, False, True]
            assert scored[1]["failure"]["stage"] == name
            if not hasattr(
                spec, "chat"
            ):  # what asks a chat model says itself which clip failed: the others are answered
                with pytest.raises(SourceError):
                    score(with_broken)
        told = [{key: value for key, value in row.items() if key != "why"} for row in rows]
        assert all_close(scored[::2], told[::2])
    # A spec stays light: what it opened is not in it, so a worker opens it anew.
    elsewhere = pickle.loads(pickle.dumps(spec))
    assert elsewhere == spec
    assert elsewhere.weights() == fingerprint
    assert len(pickle.dumps(spec)) < 10_000


# ---- pages ----------------------------------------------------------------------------------------------------------


def test_the_page_of_columns_is_up_to_date() -> None:
    written = (ROOT / "docs" / "columns.md").read_text(encoding="utf-8")
    assert written == page(), "run: python -m scripts.columns > docs/columns.md"
