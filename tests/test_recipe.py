"""Recipes are checked as a whole before work: one line that names the thing and what is allowed."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from dailies.curation.errors import RecipeError
from dailies.pipelines.recipe import load_recipe, parse_recipe, recipe_names
from dailies.pipelines.steps import CutStep, ObserveStep, ScoreStep, SelectStep

PLAIN: dict[str, Any] = {
    "name": "plain",
    "steps": [
        {"observe": {"observers": ["change", "motion"]}},
        {"cut": {"detector": "content"}},
        {"score": {"scorer": "text"}},
        {"select": {"rules": {"motion": {"min": 1, "nulls": "drop"}}}},
        {"export": {}},
    ],
}


def changed(index: int, body: Any) -> dict[str, Any]:
    data = copy.deepcopy(PLAIN)
    kind = next(iter(data["steps"][index]))
    data["steps"][index][kind] = body
    return data


@pytest.mark.parametrize("name", recipe_names())
def test_every_built_in_recipe_holds_together(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    tables = list(recipe.tables().values())
    assert len(set(tables)) == len(tables)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (changed(0, {"observers": ["chnge"]}), "unknown observer 'chnge'; allowed: borders, boundary, .*did you mean change"),
        (changed(0, {"observers": [{"change": {"fsp": 2}}]}), "unknown parameter 'fsp' of observer change; allowed: fps"),
        (changed(0, {"observers": ["change", "change"]}), "observer 'change' is listed twice"),
        (changed(0, {"observers": ["change"], "evidnce": {}}), "unknown key 'evidnce' in step observe; allowed: "),
        (changed(0, {"observers": ["motion"]}), "detector needs track 'change'; the observers give motion"),
        (changed(1, {"detector": "magic"}), "unknown detector 'magic'; allowed: boundary, content"),
        (changed(1, {"detector": "content", "min_seconds": 5, "max_seconds": 2}), "max_seconds 2 is below min_seconds 5"),
        (changed(1, {"detector": "content", "min_seconds": 0.1}), "min_seconds 0.1 is below the 1 s between evidence"),
        (changed(1, {"detector": "content", "min_seconds": "long"}), "min_seconds='long': .*number"),
        (changed(2, {"scorer": "txt"}), "unknown scorer 'txt'; allowed: clip, raft, text"),
        (changed(3, {"rules": {"motoin": {"min": 1}}}), "unknown column 'motoin'; allowed: .*did you mean motion"),
        (changed(3, {"rules": {"motion": {}}}), "a rule needs min, max"),
        (changed(4, {"select": "other"}), "no earlier selection 'other'; allowed: main"),
        (changed(0, {"observers": [3]}), "observer: expected a name, or one name with its parameters, not 3"),
        (changed(0, {"observers": [{"change": {"fps": 2}, "luma": {}}]}), "one name with its parameters"),
        (changed(0, {"observers": [{"change": 2}]}), "the parameters of observer change are a mapping, not 2"),
        (changed(0, {"observers": [{"change": {"fps": 0}}]}), "fps must be between 0 and 1000 frames per second, not 0"),
        (changed(0, {"observers": ["change"], "evidence": {"fps": 0}}), "fps must be between 0 and 1000"),
        (changed(1, 5), "the keys of step cut are a mapping, not 5"),
        (changed(1, {"detector": "content", "max_seconds": float("inf")}), "max_seconds=inf: .*finite"),
        (changed(3, {"rules": {"uri": {"min": 3}}}), "column uri is string, not a number; use one_of"),
        ({"name": "x", "steps": [{"shuffle": {}}]}, "unknown step 'shuffle'; allowed: observe, cut, score, caption"),
        ({"name": "x", "steps": PLAIN["steps"][1:]}, "first two steps must be observe and cut"),
        ({"name": "x"}, "expected a mapping with name and steps"),
        (PLAIN | {"extra": 1}, "unknown key 'extra'; allowed: name, steps"),
        ({"name": "x", "steps": [*PLAIN["steps"], {"score": {"scorer": "text"}}]}, "two steps are named 'text'"),
        (
            {"name": "x", "steps": [*PLAIN["steps"][:2], {"select": {"rules": {"text_area": {"max": 1}}}}, PLAIN["steps"][2]]},
            "unknown column 'text_area'",
        ),
    ],
)  # fmt: skip
def test_a_recipe_that_cannot_be_is_refused_in_one_line(data: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said) as caught:
        parse_recipe(data)
    assert "\n" not in str(caught.value)


def test_an_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(
        RecipeError, match=r"no recipe 'quikstart'; allowed: captioned, default, quickstart, svd.*did you mean quick"
    ):
        load_recipe("quikstart")


def test_a_file_that_is_not_yaml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("steps: [")
    with pytest.raises(RecipeError, match="is not YAML"):
        load_recipe(str(tmp_path / "r.yaml"))


def test_overrides_reach_every_step() -> None:
    recipe = parse_recipe(
        PLAIN,
        ["observe.evidence.fps=2", "cut.min_seconds=0.5", "text.side=320", "main.rules.motion.min=3", "export.crf=23"],
    )
    assert recipe.one(ObserveStep).evidence.fps == 2
    assert recipe.one(CutStep).min_seconds == 0.5
    assert recipe.one(ScoreStep).scorer.side == 320
    assert recipe.one(SelectStep).rules["motion"].min == 3
    assert recipe.steps[-1].crf == 23
    assert recipe.source["steps"][1]["cut"]["min_seconds"] == 0.5


def test_an_override_leaves_the_callers_data_alone() -> None:
    before = copy.deepcopy(PLAIN)
    parse_recipe(PLAIN, ["cut.min_seconds=3"])
    assert before == PLAIN


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("cut.min_second=1", "unknown key 'min_second' in step cut; allowed: .*did you mean min_seconds"),
        ("scr.x=1", "no step named 'scr'; allowed: observe, cut, text, main, export"),
        ("cut", "expected NAME.key=value"),
        ("cut.min_seconds", "expected NAME.key=value"),
        ("cut.min_seconds=[1", "--set cut.min_seconds=.1 is not YAML"),
        ("cut.detector.content.threshhold=3", "unknown parameter 'threshhold' of detector content; allowed: threshold"),
        ("text.sdie=3", "unknown parameter 'sdie' of scorer text; allowed: side"),
    ],
)
def test_a_wrong_override_is_refused(override: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        parse_recipe(PLAIN, [override])


def tables(*overrides: str) -> dict[str, str]:
    return parse_recipe(PLAIN, overrides).tables()


def test_a_table_changes_its_name_with_what_its_values_mean_and_with_nothing_else() -> None:
    base = tables()
    thresholds = tables("main.rules.motion.min=5", "export.crf=30")
    assert thresholds == base
    cut = tables("cut.min_seconds=3")
    assert cut["observe"] == base["observe"]
    assert cut["cut"] != base["cut"]
    assert cut["text"] != base["text"]
    scored = tables("text.side=320")
    assert (scored["cut"], scored["text"] != base["text"]) == (base["cut"], True)
    assert tables("observe.evidence.fps=2")["observe"] != base["observe"]
    assert tables("observe.stall_seconds=5") == base
