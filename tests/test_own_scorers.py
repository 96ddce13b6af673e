"""Own scorers and captioners: as FILE.py:CLASS in a recipe and as objects, through a curation of rendered videos."""

from __future__ import annotations

import importlib
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dailies.curation import world
from dailies.curation.errors import RecipeError
from dailies.curation.tables import DatasetTables
from dailies.pipelines.again import select_again
from dailies.pipelines.recipes.own import OwnSpec
from dailies.pipelines.recipes.recipe import CurationRecipe, load_recipe, parse_recipe
from dailies.pipelines.recipes.steps import CaptionStep, CutStep, ObserveStep, ScoreStep, SelectStep
from dailies.pipelines.run import curate
from dailies.pipelines.selecting import last_recipe

BRIGHT = """
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from dailies.curation import video
from dailies.curation.schema import field


@dataclass(frozen=True, kw_only=True)
class BrightScorer:
    gain: float = 1.0

    columns: ClassVar = (field("bright", pa.float64(), "mean of the first evidence frame", "0 to 255"),)

    @contextmanager
    def open(self):
        def score(evidence):
            values = [self.gain * float(video.unjpeg(clip.frames[0].jpeg).mean()) for clip in evidence]
            return pa.table({"bright": values}, schema=pa.schema(self.columns))

        yield score


class Words:
    from dailies.curation.captioners import COLUMNS as columns

    needs = ("bright",)
    identity = "tests.words"

    @contextmanager
    def open(self):
        from dailies.curation.captioners import Caption, caption_table

        yield lambda evidence: caption_table(
            [Caption(text=f"bright {clip.columns['bright']:.0f}", tokens=2, model="words") for clip in evidence]
        )
"""
HEAD: list[dict[str, Any]] = [
    {"observe": {"observers": ["change"], "evidence": {"fps": 2, "short_side": 90}}},
    {"cut": {"detector": "content", "min_seconds": 0.5}},
]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    world.render_world(folder, seed=3, videos=1, shots=(2, 2), shot_frames=(30, 40))
    return folder


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "bright_file.py"
    path.write_text(BRIGHT)
    return path


@pytest.fixture
def module(file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The file as a script beside it imports it."""
    monkeypatch.syspath_prepend(file.parent)
    yield importlib.import_module(file.stem)
    sys.modules.pop(file.stem, None)


def recipe(scorer: Any, *more: dict[str, Any]) -> dict[str, Any]:
    return {"name": "own", "steps": [*HEAD, {"score": {"scorer": scorer}}, *more]}


def versions(dataset: DatasetTables) -> dict[str, int | None]:
    return {name: dataset.table(name).version() for name in dataset.tables() if name[:3] not in ("run", "sel")}


def test_a_file_beside_the_recipe_scores_captions_selects_and_resumes(videos: Path, file: Path, tmp_path: Path) -> None:
    import yaml

    steps = [
        {"caption": {"captioner": "bright_file.py:Words"}},
        {"score": {"scorer": {"bright_file.py:BrightScorer": {"gain": 2.0}}, "name": "double"}},
        {"select": {"rules": {"double_bright": {"min": 0}, "caption_words": {"one_of": ["no"]}}}},
    ]
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(recipe("bright_file.py:BrightScorer", *steps)))
    own = load_recipe(str(tmp_path / "own.yaml"))
    out = tmp_path / "dataset"
    summary = curate([str(videos)], str(out), own, engine="local")
    dataset = DatasetTables.open(out)
    bright, double, words = (
        dataset.table(own.tables()[name]).read() for name in ("bright_scorer", "double", "caption_words")
    )
    assert own.tables()["bright_scorer"].startswith("scores/bright_scorer@")
    assert len(bright) > 0
    assert set(bright["status"].to_pylist()) == {"ok"}
    doubled = dict(zip(double["clip_id"].to_pylist(), double["bright"].to_pylist(), strict=True))
    said = dict(zip(words["clip_id"].to_pylist(), words["text"].to_pylist(), strict=True))
    for row in bright.to_pylist():
        assert doubled[row["clip_id"]] == pytest.approx(2 * row["bright"])
        assert said[row["clip_id"]] == f"bright {row['bright']:.0f}"
    assert summary.selections[0].name == "main"

    before = versions(dataset)
    curate([str(videos)], str(out), load_recipe(str(tmp_path / "own.yaml")), engine="local")
    assert versions(dataset) == before
    assert last_recipe(dataset, []).tables() == own.tables()  # the record names the whole path
    select_again(str(out), "main", ["main.rules.double_bright.min=1"])

    file.write_text(BRIGHT.replace("self.gain * ", "1 + self.gain * "))
    changed = load_recipe(str(tmp_path / "own.yaml")).tables()
    assert changed["cut"] == own.tables()["cut"]
    assert changed["bright_scorer"] != own.tables()["bright_scorer"]
    curate([str(videos)], str(out), load_recipe(str(tmp_path / "own.yaml")), engine="local")
    brighter = dataset.table(changed["bright_scorer"]).read().sort_by("clip_id")["bright"].to_pylist()
    assert brighter == pytest.approx([value + 1 for value in bright.sort_by("clip_id")["bright"].to_pylist()])


def test_an_object_is_the_same_as_its_file(videos: Path, file: Path, module: Any, tmp_path: Path) -> None:
    own = CurationRecipe.of(
        "own",
        [
            ObserveStep(observers=["change"], evidence={"fps": 2, "short_side": 90}),
            CutStep(detector="content", min_seconds=0.5),
            ScoreStep(scorer=module.BrightScorer(gain=3.0)),
            CaptionStep(captioner=module.Words()),
            SelectStep(rules={"bright": {"min": 0}}),
        ],
    )
    named = parse_recipe(
        recipe(
            {f"{file}:BrightScorer": {"gain": 3.0}}, {"caption": {"captioner": f"{file}:Words"}}, own.source["steps"][4]
        )
    )
    assert own.tables() == named.tables()
    out = tmp_path / "dataset"
    curate([str(videos)], str(out), own, engine="local")
    before = versions(DatasetTables.open(out))
    assert own.tables()["bright_scorer"] in before
    curate([str(videos)], str(out), own, engine="local")
    curate([str(videos)], str(out), named, engine="local")
    assert versions(DatasetTables.open(out)) == before


def test_a_worker_makes_it_from_the_text_that_travels_with_it(file: Path, module: Any) -> None:
    packed = pickle.dumps(ScoreStep(scorer=module.BrightScorer(gain=3.0)).scorer)
    file.unlink()
    sys.modules.pop(file.stem)
    sys.path.remove(str(file.parent))
    spec = pickle.loads(packed)
    assert isinstance(spec, OwnSpec)
    assert (spec.spec.gain, spec.columns[0].name) == (3.0, "bright")


def test_an_object_of_no_file_is_read_again_by_the_process_that_it_was_handed_to(module: Any) -> None:
    local = type("Local", (), {"columns": module.BrightScorer.columns, "open": module.BrightScorer.open})
    steps = [ObserveStep(observers=["change"]), CutStep(detector="content"), ScoreStep(scorer=local())]
    own = CurationRecipe.of("own", steps)
    assert parse_recipe(own.source).tables() == own.tables()
    assert own.steps[2].name == "local"
    with pytest.raises(RecipeError, match=r"unknown scorer 'other.Local'; allowed: .*text, FILE.py:CLASS"):
        parse_recipe(recipe("other.Local"))


@pytest.mark.parametrize(
    ("scorer", "said"),
    [
        ("none.py:BrightScorer", r"none.py:BrightScorer: no such file; it is looked for in "),
        ("bright_file.py:BrigthScorer", r"no such class in the file \(did you mean BrightScorer\?\)"),
        (
            {"bright_file.py:BrightScorer": {"gian": 1}},
            r"unknown parameter 'gian' of .*allowed: gain \(did you mean gain",
        ),
        ({"bright_file.py:BrightScorer": {"gain": "much"}}, r"gain='much': .*number"),
        ("bright_file.py:contextmanager", "no such class"),
        ("bright_file.py:ClassVar", "no such class|has no columns"),
    ],
)
def test_what_is_no_scorer_is_refused_before_work(scorer: Any, said: str, file: Path) -> None:
    with pytest.raises(RecipeError, match=said):
        parse_recipe(recipe(scorer), folder=file.parent)


def test_clashing_columns_and_captioners_without_text_are_refused(file: Path) -> None:
    other = {"score": {"scorer": "bright_file.py:BrightScorer", "name": "bright"}}
    assert parse_recipe(recipe("bright_file.py:BrightScorer", other), folder=file.parent).tables()
    file.with_name("same.py").write_text(BRIGHT.replace("BrightScorer", "Other"))
    with pytest.raises(
        RecipeError, match="step other: column 'bright' is there already; give the step a name: of its own"
    ):
        parse_recipe(recipe("bright_file.py:BrightScorer", {"score": {"scorer": "same.py:Other"}}), folder=file.parent)
    with pytest.raises(RecipeError, match="has no column 'text'"):
        parse_recipe(
            {"name": "x", "steps": [*HEAD, {"caption": {"captioner": "bright_file.py:BrightScorer"}}]},
            folder=file.parent,
        )
