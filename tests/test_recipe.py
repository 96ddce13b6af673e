"""Recipes are checked as a whole before work: one line that names the thing and what is allowed."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from dailies.curation.captioners import CocaCaptioner, SummaryCaptioner, VideoCaptioner
from dailies.curation.detectors.content import ContentDetector
from dailies.curation.errors import RecipeError
from dailies.curation.observers.motion import MotionObserver
from dailies.curation.scorers import AestheticScorer, AskScorer, ClipScorer, RaftScorer, TextScorer
from dailies.curation.select import Rule
from dailies.pipelines.recipes.recipe import CurationRecipe, load_recipe, parse_recipe, recipe_names, resolved
from dailies.pipelines.recipes.steps import CutStep, ExportStep, ObserveStep, ScoreStep, SelectStep

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


@pytest.fixture(autouse=True)
def weights_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of weights that a built-in recipe names, and that people fetch themselves, count as here."""
    for spec in (AestheticScorer, AskScorer, RaftScorer, SummaryCaptioner, VideoCaptioner):
        monkeypatch.setattr(spec, "weights", lambda self: "sha256")


@pytest.mark.parametrize("name", recipe_names())
def test_every_built_in_recipe_is_in_the_docs(name: str) -> None:
    page = (Path(__file__).resolve().parents[1] / "docs/recipes.md").read_text(encoding="utf-8")
    _, _, names = page.partition("Built-in recipes:")
    assert f"`{name}`" in names.partition("\n\n")[0]


@pytest.mark.parametrize("name", recipe_names())
def test_every_built_in_recipe_holds_together(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    tables = list(recipe.tables().values())
    assert len(set(tables)) == len(tables)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (changed(0, {"observers": ["chnge"]}), "unknown observer 'chnge'; allowed: artifacts, borders, .*did you mean change"),
        (changed(0, {"observers": [{"change": {"fsp": 2}}]}), "unknown parameter 'fsp' of observer change; allowed: fps"),
        (changed(0, {"observers": ["change", "change"]}), "'change' is listed twice; leave one out"),
        (changed(0, {"observers": ["change"], "evidnce": {}}), "unknown key 'evidnce' in step observe; allowed: "),
        (changed(0, {"observers": ["motion"]}), "detector needs the observer 'change'; step observe lists motion"),
        (changed(1, {"detector": "magic"}), "unknown detector 'magic'; allowed: boundary, .*content"),
        (changed(1, {"detector": "content", "min_seconds": 5, "max_seconds": 2}), "max_seconds=2: must not be below min_sec"),
        (changed(1, {"detector": "content", "min_seconds": 0.1}), "min_seconds=0.1: below the 1 s between evidence"),
        (changed(1, {"detector": "content", "min_seconds": "long"}), "min_seconds='long': .*number"),
        (changed(2, {"scorer": "txt"}), "unknown scorer 'txt' .did you mean text"),
        (changed(3, {"rules": {"motoin": {"min": 1}}}), "unknown column 'motoin' .did you mean motion"),
        (changed(3, {"rules": {"motion": {}}}), "a rule needs min, max"),
        (changed(4, {"select": "other"}), "no earlier selection 'other'; allowed: main"),
        (changed(0, {"observers": [3]}), "observer=3: not a name, nor one name with its parameters"),
        (changed(0, {"observers": [{"change": {"fps": 2}, "luma": {}}]}), "one name with its parameters"),
        (changed(0, {"observers": [{"change": 2}]}), "observer change=2: its parameters must be a mapping"),
        (changed(0, {"observers": [{"change": {"fps": 0}}]}), "observer change: fps=0: must be above 0"),
        (changed(0, {"observers": ["change"], "evidence": {"fps": 0}}), "evidence.fps=0: must be above 0"),
        (changed(1, 5), "step cut=5: its keys must be a mapping"),
        (changed(1, {"detector": "content", "max_seconds": float("inf")}), "max_seconds=inf: .*infinity"),
        (changed(3, {"rules": {"uri": {"min": 3}}}), "column 'uri' is text; this rule needs numbers .use one_of"),
        ({"name": "x", "steps": [{"shuffle": {}}]}, "unknown step 'shuffle'; allowed: observe, cut, score, caption"),
        ({"name": "x", "steps": PLAIN["steps"][1:]}, "first two steps must be observe and cut"),
        ({"name": "x"}, "not a mapping with name and steps"),
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
        RecipeError, match=r"no recipe 'quikstart'; allowed: captioned, cosmos, cpu, .*did you mean quick"
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
    assert recipe.step(ObserveStep).evidence.fps == 2
    assert recipe.step(CutStep).min_seconds == 0.5
    assert recipe.step(ScoreStep).scorer.side == 320
    assert recipe.step(SelectStep).rules["motion"].min == 3
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
        ("cut", "must have the form NAME.KEY=VALUE"),
        ("cut.min_seconds", "must have the form NAME.KEY=VALUE"),
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


# ---- names of tables, which outlive names of code -------------------------------------------------------------------


def test_a_renamed_parameter_is_read_by_both_names_with_one_note_and_names_the_same_table() -> None:
    former, current = (load_recipe("captioned", [f"caption_coca.{key}=12"]) for key in ("limit", "max_tokens"))
    assert former.tables() == current.tables()
    assert former.tables()["caption_coca"] == "captions/coca@772a9597"  # as it was called when ``limit`` was its name
    assert former.notes == ("captioner coca: limit is called max_tokens now",)
    assert current.notes == ()
    with pytest.raises(RecipeError, match="are the same parameter; leave limit out"):
        load_recipe("captioned", ["caption_coca.limit=12", "caption_coca.max_tokens=12"])


# ---- --set on columns with dots -------------------------------------------------------------------------------------


def test_rules_for_columns_with_dots_can_be_set() -> None:
    recipe = parse_recipe(
        PLAIN,
        [
            "main.rules.manifest.rating.min=3",
            "main.rules.manifest.rating.nulls=drop",
            "main.rules.manifest.license={one_of: [cc0], nulls: keep}",
            "main.rules.manifest.min.max=1",
        ],
    )
    rules = recipe.step(SelectStep).rules
    assert (rules["manifest.rating"].min, rules["manifest.rating"].nulls) == (3, "drop")
    assert (rules["manifest.license"].one_of, rules["manifest.min"].max) == (("cc0",), 1)
    assert rules["motion"].min == 1
    with pytest.raises(RecipeError, match=r"unknown key 'mn' in a rule; allowed: min, .*did you mean min"):
        parse_recipe(PLAIN, ["main.rules.manifest.rating.mn=3"])


# ---- two of one kind ------------------------------------------------------------------------------------------------


def with_steps(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"name": "x", "steps": [*PLAIN["steps"][:3], *steps]}


def test_two_of_one_kind_stand_side_by_side_under_names_of_their_own() -> None:
    data = with_steps(
        {"score": {"scorer": {"text": {"side": 320}}, "name": "small"}},
        {"caption": {"captioner": "motion"}},
        {"caption": {"captioner": {"motion": {"fast": 8}}, "name": "swift"}},
        {
            "select": {
                "rules": {"small_text_area": {"max": 1}, "caption_swift": {"one_of": ["a"]}, "text_area": {"max": 1}}
            }
        },
    )
    recipe = parse_recipe(data, ["small.side=256", "caption_swift.fast=9"])
    tables = recipe.tables()
    assert [name.partition("@")[0] for name in tables.values()][2:6] == [
        "scores/text",
        "scores/small",
        "captions/motion",
        "captions/swift",
    ]
    assert tables["text"] == parse_recipe(PLAIN).tables()["text"]
    small, swift = recipe.steps[3], recipe.steps[5]
    assert (small.scorer.side, swift.captioner.fast) == (256, 9)
    assert small.shown["text_boxes"].name == "small_text_boxes"
    boxes = next(column for column in small.scorer.columns if column.name == "text_boxes")
    assert small.shown["text_boxes"].metadata == boxes.metadata
    for step, said in (
        ({"score": {"scorer": "text"}}, "two steps are named 'text'; give one a name: of its own"),
        ({"score": {"scorer": "text", "name": "Big Text"}}, "name='Big Text'"),
    ):
        with pytest.raises(RecipeError, match=said):
            parse_recipe(with_steps(step))


# ---- steps as objects -----------------------------------------------------------------------------------------------


def test_steps_as_objects_make_the_recipe_that_yaml_makes() -> None:
    of_objects = CurationRecipe.of(
        "plain",
        [
            ObserveStep(observers=["change", MotionObserver()]),
            CutStep(detector=ContentDetector()),
            ScoreStep(scorer=TextScorer()),
            SelectStep(rules={"motion": Rule(min=1, nulls="drop")}),
            ExportStep(),
        ],
    )
    of_yaml = parse_recipe(PLAIN)
    assert of_objects == of_yaml
    assert load_recipe(of_objects) is of_objects
    assert load_recipe(of_objects, ["text.side=320"]).step(ScoreStep).scorer.side == 320
    changed = CurationRecipe.of(
        "y",
        [
            ObserveStep(observers=["change", MotionObserver(fps=4.0)]),
            CutStep(detector=ContentDetector(), min_seconds=3),
        ],
    )
    assert changed.source["steps"] == [
        {"observe": {"observers": ["change", {"motion": {"fps": 4.0}}]}},
        {"cut": {"detector": "content", "min_seconds": 3.0}},
    ]
    assert parse_recipe(changed.source) == changed


def test_steps_as_objects_are_checked_as_a_whole() -> None:
    steps = [ObserveStep(observers=["motion"]), CutStep(detector="content")]
    with pytest.raises(RecipeError, match="its detector needs the observer 'change'"):
        CurationRecipe.of("x", steps)
    with pytest.raises(RecipeError, match="first two steps must be observe and cut"):
        CurationRecipe.of("x", steps[1:])


def test_specs_say_what_they_need_and_which_models_they_name() -> None:
    assert CocaCaptioner.requires == ClipScorer.requires == ("open_clip", "torch", "transformers")
    for spec in (CocaCaptioner(), ClipScorer()):
        assert resolved(spec).model.endswith("coca-world")
        assert Path(resolved(spec).model).is_dir()
    text = TextScorer()
    assert resolved(text) is text
    assert resolved(ClipScorer(model="ViT-B-32")).model == "ViT-B-32"


def test_an_observers_weights_name_its_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other weights in the package that brings them are other observations; an observer without them keeps its name."""
    from dailies.curation.observers import speech

    def observed(observer: Any) -> str:
        return parse_recipe(changed(0, {"observers": ["change", "motion", observer]})).observations

    names = []
    for weights in ("a" * 64, "b" * 64):
        monkeypatch.setattr(speech, "weights", lambda weights=weights: weights)
        names.append((observed({"sound": {"speech": True}}), observed("sound"), observed("luma")))
    (spoken, sound, luma), (other, same, still) = names
    assert spoken != other
    assert (sound, luma) == (same, still)
