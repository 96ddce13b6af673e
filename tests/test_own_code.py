"""What a user's own scorer or recipe raises is named as its own, with its file and line, and is tried again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dailies.curation.errors import NotInstalled, RecipeError
from dailies.curation.tables import DatasetTables, query
from dailies.pipelines.cli.curation_tables import tried_again
from dailies.pipelines.recipes.recipe import parse_recipe
from tests.conftest import Dailies
from tests.rendered_video import render

ODD = """
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from dailies.curation.errors import TooFewFrames
from dailies.curation.schema import field


@dataclass(frozen=True, kw_only=True)
class Odd:
    calls: str
    wrong: str

    columns = (field("odd", pa.int64(), "nothing", ""),)
    identity = "tests.odd"

    @contextmanager
    def open(self):
        yield self.score

    def score(self, evidence):
        with open(self.calls, "a") as file:
            file.write("x")
        wrong = Path(self.wrong).read_text()
        if wrong == "short":
            raise TooFewFrames("is too short to be odd")
        if wrong == "rows":
            return pa.table({"odd": []})
        if wrong == "text":
            return pa.table({"odd": ["a"] * len(evidence)})
        return pa.table({"odd": [1 // int(wrong)] * len(evidence)})
"""
LINE = 1 + ODD[: ODD.index("1 // int(wrong)")].count("\n")


@pytest.fixture
def odd(tmp_path: Path) -> dict[str, Any]:
    """A recipe with the scorer, one video of one shot, and how to curate it; the file ``wrong`` says what goes wrong."""
    (tmp_path / "odd.py").write_text(ODD)
    own = {"odd.py:Odd": {"calls": str(tmp_path / "calls"), "wrong": str(tmp_path / "wrong")}}
    steps = [
        {"observe": {"observers": ["change"], "evidence": {"fps": 2, "short_side": 90}}},
        {"cut": {"detector": "content", "min_seconds": 0.5}},
        {"score": {"scorer": own, "name": "odd"}},
    ]
    (tmp_path / "odd.yaml").write_text(json.dumps({"name": "odd", "steps": steps}))
    render(tmp_path / "a.mp4", count=40)
    run = (
        "curate",
        tmp_path / "a.mp4",
        "--out",
        tmp_path / "d",
        "--recipe",
        tmp_path / "odd.yaml",
        "--engine",
        "local",
    )
    return {"run": run, "wrong": tmp_path / "wrong", "calls": tmp_path / "calls", "out": tmp_path / "d"}


def failure(out: Path) -> dict[str, Any]:
    return dict(query(DatasetTables.open(out), "select odd_failure from scores_odd")["odd_failure"][0].as_py() or {})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("0", f"ZeroDivisionError: integer division or modulo by zero (odd.py:{LINE})"),
        ("rows", "ValueError: 0 rows came out for 1 clips (odd.py)"),
        ("text", "ArrowInvalid: Could not convert 'a' with type str: tried to convert to int64 (odd.py)"),
    ],
)
def test_what_an_own_scorer_does_wrong_names_its_file_and_is_tried_again_by_the_next_run(
    wrong: str, message: str, odd: dict[str, Any], dailies: Dailies
) -> None:
    """Once in a run, though its identity says that it is the same; and never again once it succeeds."""
    odd["wrong"].write_text(wrong)
    done = dailies(*odd["run"])
    assert done.returncode == 0, done.stderr
    assert failure(odd["out"]) == {"stage": "odd", "kind": "own_code", "message": message}
    text = " ".join(done.stdout.split())
    assert f"1 clip failed (1 own_code); the next run tries it again by itself; such as: {message}" in text
    assert dailies(*odd["run"]).returncode == 0
    assert odd["calls"].read_text() == "xx"
    odd["wrong"].write_text("1")
    assert "failed" not in dailies(*odd["run"]).stdout
    assert failure(odd["out"]) == {}
    dailies(*odd["run"])
    assert odd["calls"].read_text() == "xxx"


def test_a_reason_of_the_clip_is_tried_again_if_asked(odd: dict[str, Any], dailies: Dailies) -> None:
    odd["wrong"].write_text("short")
    assert "--retry-failed tries it again" in dailies(*odd["run"]).stdout
    assert failure(odd["out"])["kind"] == "too_few_frames"
    odd["wrong"].write_text("1")
    dailies(*odd["run"])
    assert failure(odd["out"])["kind"] == "too_few_frames"
    dailies(*odd["run"], "--retry-failed")
    assert failure(odd["out"]) == {}


@pytest.mark.parametrize(
    ("old", "new", "kind", "said"),
    [
        ("\nimport pyarrow", "\n1 / 0\nimport pyarrow", RecipeError, "odd.py: cannot be run: ZeroDiv.* by zero .odd.py:6."),
        ("\nimport pyarrow", "\nimport no_such\nimport pyarrow", NotInstalled, "cannot be run: .*'no_such' .odd.py:6.; ins"),
        ("def score", "def def", RecipeError, "odd.py: cannot be run: SyntaxError: .*odd.py, line "),
        ("    calls: str", "    def __post_init__(self):\n        1 / 0\n\n    calls: str", RecipeError, "odd.py:15"),
        ("    columns = (", "    @property\n    def columns(self):\n        return (1 / 0,", RecipeError, "odd.py:19"),
        ("    identity = ", "    def weights(self):\n        1 / 0\n    name = ", RecipeError, r"weights\(\): Zero.*odd.py:19"),
    ],
)  # fmt: skip
def test_an_own_scorer_that_cannot_be_made_names_its_line(
    old: str, new: str, kind: type[Exception], said: str, odd: dict[str, Any]
) -> None:
    file = odd["out"].with_name("odd.py")
    file.write_text(ODD.replace(old, new))
    recipe = json.loads(file.with_suffix(".yaml").read_text())
    with pytest.raises(kind, match=said):
        parse_recipe(recipe, folder=file.parent).tables()


def test_an_own_scorer_that_cannot_be_opened_ends_the_run_in_one_line(odd: dict[str, Any], dailies: Dailies) -> None:
    file = odd["out"].with_name("odd.py")
    file.write_text(ODD.replace("        yield self.score", "        1 / 0\n        yield self.score"))
    done = dailies(*odd["run"])
    assert done.returncode == 2
    assert f"dailies: {file}:Odd: open(): ZeroDivisionError: division by zero (odd.py:22)\n" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_own_recipe_of_training_names_its_line(tmp_path: Path, dailies: Dailies) -> None:
    (tmp_path / "own.py").write_text("def recipe():\n    return 1 / 0\n")
    done = dailies("train", tmp_path / "own.py", "--dry-run")
    assert done.returncode == 2
    said = f"recipe {tmp_path / 'own.py'}: cannot be run: ZeroDivisionError: division by zero (own.py:2)"
    assert done.stderr == f"dailies: {said}\n"


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        ({}, ""),
        ({"defect": 1}, "the next run tries it again by itself"),
        ({"defect": 2, "own_code": 1}, "the next run tries them again by itself"),
        ({"truncated": 2}, "--retry-failed tries them again"),
        ({"truncated": 2, "defect": 1}, "the next run tries 1 of them again by itself; --retry-failed tries 2 of them again"),
        ({"not_copied": 1, "refused": 4}, ""),
        ({"not_copied": 1, "hung": 1}, "--retry-failed tries 1 of them again"),
    ],
)  # fmt: skip
def test_the_table_says_which_failures_are_tried_again(kinds: dict[str, int], said: str) -> None:
    assert tried_again(kinds) == said
