"""What an extra is needed for is said before any work: by every command and recipe, with the packages hidden."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml

from dailies.curation import packages
from dailies.curation.errors import NotInstalled
from dailies.curation.packages import COPYLEFT, EXTRAS, install_line, need, package_folder
from dailies.curation.scorers import SafetyScorer
from tests.conftest import Dailies

ROOT = Path(__file__).resolve().parents[1]
OPTIONAL = {name for brought in EXTRAS.values() for name in brought}
OWN = "from dailies.training.recipes.finetune import lora as recipe"


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is found of what only extras bring."""
    find = importlib.util.find_spec
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name in OPTIONAL else find(name))


@pytest.mark.usefixtures("core")
@pytest.mark.parametrize(
    ("arguments", "who", "extra"),
    [
        (["quickstart", "--out", "{tmp}/made"], "quickstart", "models,train"),
        (["curate", "{world}", "--out", "{tmp}/made", "--recipe", "captioned"], "step caption_coca", "models"),
        (["curate", "{world}", "--out", "{tmp}/made", "--recipe", "{tmp}/clip.yaml"], "step clip", "models"),
        (["curate", "{world}", "--out", "{tmp}/made", "--recipe", "{tmp}/raft.yaml"], "step raft", "models"),
        (["curate", "s3://bucket/a.mp4", "--out", "{tmp}/made"], "s3://bucket/a.mp4", "s3"),
        (["curate", "{tmp}/list.csv", "--out", "{tmp}/made"], "s3://bucket/b.mp4", "s3"),
        (["cuts", "s3://bucket/a.mp4"], "s3://bucket/a.mp4", "s3"),
        (["export", "{tmp}/export", "--latents", "tiny", "--out", "{tmp}/made"], "export --latents", "train"),
        (["train", "tiny", "--dry-run"], "training tiny", "train"),
        (["train", "tiny", "--data", "{tmp}/export", "--out", "{tmp}/made"], "training tiny", "train"),
        (["train", "tiny", "--data", "{tmp}/e", "--out", "{tmp}/made", "--workers", "2"], "training tiny", "train"),
        (["train", "{tmp}/own.py", "--data", "{tmp}/e", "--out", "{tmp}/made"], "training lora", "train"),
        (["train", "vae", "--from", "zoo:vae-world", "--data", "{tmp}/e", "--out", "{tmp}/made"], "training vae", "train"),
        (["train", "vae", "--from", "zoo:vae-world", "--dry-run"], "training vae", "train"),
        (["zoo", "publish", "{tmp}/run", "--as", "x", "--to", "{tmp}/made"], "zoo publish", "train"),
        (["zoo", "run", "any", "--prompt", "x", "--zoo", "{tmp}", "--out", "{tmp}/made"], "zoo run", "train"),
    ],
)  # fmt: skip
def test_a_command_says_which_extra_it_needs_before_it_makes_anything(
    arguments: list[str], who: str, extra: str, tmp_path: Path, small_world: Path, dailies: Dailies
) -> None:
    steps: list[dict[str, Any]] = [
        {"observe": {"observers": ["change", "motion"], "evidence": {"fps": 2, "short_side": 90}}},
        {"cut": {"detector": "content", "min_seconds": 0.5}},
        {"caption": {"captioner": "motion"}},
    ]
    own = {
        "clip": {"model": "zoo:coca-world", "caption": "caption_motion"},
        "raft": {"model": str(tmp_path / "raft.pth")},
    }
    for name, parameters in own.items():
        recipe = {"name": "own", "steps": [*steps, {"score": {"scorer": {name: parameters}}}]}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
    (tmp_path / "raft.pth").write_bytes(b"weights")
    (tmp_path / "list.csv").write_text("url\ns3://bucket/b.mp4\n")
    (tmp_path / "own.py").write_text(OWN)
    done = dailies(*(text.format(tmp=tmp_path, world=small_world) for text in arguments))
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(rf"dailies: {re.escape(who)} needs .*: pip install 'dailies\[{extra}\]'\n", done.stderr)
    assert not done.stdout
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("recipe", ["tiny", "svd", "lora"])
@pytest.mark.parametrize("reader", ["pyav", "decord"])
def test_a_training_recipe_says_which_of_its_own_packages_is_missing(
    recipe: str, reader: str, tmp_path: Path, dailies: Dailies, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adapters need peft, and the reader decord needs decord, where all else is there."""
    find = importlib.util.find_spec
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name in ("peft", "decord") else find(name))
    done = dailies("train", recipe, "--set", f"reader={reader}", "--data", tmp_path, "--out", tmp_path / "made")
    assert done.returncode == 2
    if reader == "decord":
        assert "decord is not installed; use pyav, or pip install 'dailies[train]'" in done.stderr
    elif recipe == "tiny":
        assert "peft" not in done.stderr
    else:
        assert done.stderr == f"dailies: training {recipe} needs peft: pip install 'dailies[train]'\n"
    assert not (tmp_path / "made").exists()


def test_as_few_extras_are_named_as_bring_all() -> None:
    """Excludes the first extra of each package, which would name models and train for what train brings alone."""
    assert install_line(["torch", "diffusers", "transformers"]) == "pip install 'dailies[train]'"
    assert install_line(["torch", "torchvision"]) == "pip install 'dailies[models]'"
    assert install_line(["diffusers", "open_clip", "torch"]) == "pip install 'dailies[models,train]'"
    assert install_line(["gcsfs"]) == "pip install gcsfs"
    assert install_line(["s3fs", "gcsfs"]) == "pip install 'dailies[s3]' gcsfs"
    with pytest.raises(NotInstalled, match=r"^x needs nothing\.at_all: pip install nothing\.at_all$"):
        need(["re", "nothing.at_all"], by="x")


@pytest.mark.usefixtures("core")
def test_what_is_under_another_kind_of_licence_is_asked_for_by_name_and_says_so() -> None:
    """Of what ``safety`` needs, nothing is; what brings faces is under the AGPL, and the message that names it says it."""
    assert "nudenet" not in SafetyScorer().requires
    for spec, said in ((SafetyScorer(), ""), (SafetyScorer(faces="nudenet"), " (licence: AGPL-3.0)")):
        with pytest.raises(NotInstalled) as error:
            need(spec.requires, by="step safety")
        assert str(error.value).startswith(f"step safety needs {', '.join(spec.requires)}{said}: pip install")
    with pytest.raises(NotInstalled, match=r"nudenet \(licence: AGPL-3.0\) is not installed: pip .*dailies\[faces\]"):
        package_folder("nudenet")


def test_extras_are_those_of_the_distribution() -> None:
    """Every requirement of an extra is in the table, and nothing else is."""
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    distributions = packages_distributions() | {"tensorboard": ["tensorboard"], "decord": ["decord"], "s3fs": ["s3fs"]}
    assert {*EXTRAS, "dev", "all"} == set(extras)
    # What the extra llm brings is compiled where it is installed.
    assert set(EXTRAS) - {*COPYLEFT, "llm"} == set(re.findall(r"[a-z0-9]+", extras["all"][0].removeprefix("dailies")))
    for extra, modules in EXTRAS.items():
        required = {re.split(r"[<>=;\[ ]", line)[0].lower().replace("_", "-") for line in extras[extra]}
        brought = {distributions[module.split(".")[0]][0].lower().replace("_", "-") for module in modules}
        assert required == brought
