"""Prompts that are names, files and texts: each is read once, and a record has what was read."""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from dailies.curation.captioners import EndpointCaptioner
from dailies.curation.chat import prompt_hash, prompt_names, prompt_text
from dailies.curation.errors import RecipeError
from dailies.pipelines.recipes.recipe import CurationRecipe, parse_recipe
from dailies.pipelines.recipes.specs import meaning_of, spec_data

CLIPS = [{"observe": {"observers": ["boundary"]}}, {"cut": {"detector": "boundary"}}]
SERVER = {"url": "http://localhost:1/v1", "model": "m"}
OWN = """
from dataclasses import dataclass

from dailies.curation.captioners import COLUMNS
from dailies.curation.chat import Prompt


@dataclass(frozen=True)
class Mine:
    prompt: Prompt = "describe"
    columns = COLUMNS

    def open(self):
        raise NotImplementedError
"""


def captioner(prompt: Any) -> EndpointCaptioner:
    return TypeAdapter(EndpointCaptioner).validate_python({**SERVER, "prompt": prompt})


def recipe(prompt: Any, captioner: str = "endpoint", **how: Any) -> CurationRecipe:
    values = {"prompt": prompt, **(SERVER if captioner == "endpoint" else {})}
    return parse_recipe({"name": "r", "steps": [*CLIPS, {"caption": {"captioner": {captioner: values}}}]}, **how)


@pytest.mark.parametrize("text", ["Describe.", "Say what is in notes.md", "What is it?\nSee a.txt", "no such prompt"])
def test_a_text_stays_what_it_is_however_often_it_is_checked(text: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text(text)
    for spec in (captioner(str(path)), captioner({"text": text})):
        again = pickle.loads(pickle.dumps(replace(replace(spec, model="other"), model="m")))
        assert (again, again.question(), prompt_hash(again.prompt)) == (spec, text, prompt_hash(spec.prompt))
        assert json.loads(json.dumps(meaning_of(spec)))[-1]["prompt"] == text, "tables are called as ever"


@pytest.mark.parametrize("own", [False, True])
def test_a_record_has_the_text_of_a_prompt_s_file(own: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, other = tmp_path / "recipes", tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    (folder / "q.txt").write_text("What is in a.txt?")
    (folder / "own.py").write_text(OWN)
    monkeypatch.chdir(other)
    first = recipe("q.txt", f"{folder}/own.py:Mine" if own else "endpoint", folder=folder)
    ((_, values),) = first.source["steps"][-1]["caption"]["captioner"].items()
    assert values["prompt"] == {"text": "What is in a.txt?"}
    (folder / "q.txt").unlink()
    record = json.loads(json.dumps(first.source))
    again = parse_recipe(record, recorded=True)
    assert again.tables() == first.tables() == parse_recipe(record, ["cut.min_seconds=2"]).tables()
    assert again.source == first.source
    spec = first.steps[-1].captioner
    assert prompt_text((spec.spec if own else spec).prompt) == "What is in a.txt?"
    assert parse_recipe(CurationRecipe.of("r", first.steps).source, recorded=True).tables() == first.tables()


def test_a_name_is_recorded_as_it_is_and_names_its_table_as_ever() -> None:
    by_name = recipe("describe")
    assert by_name.source["steps"][-1]["caption"]["captioner"]["endpoint"]["prompt"] == "describe"
    assert meaning_of(by_name.steps[-1].captioner)[-1]["prompt"] == "describe"
    assert "prompt" not in spec_data(captioner("describe"), {"endpoint": EndpointCaptioner})["endpoint"]


def test_no_file_is_read_out_of_a_record_nor_one_that_may_never_end(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("the words of another")
    with pytest.raises(RecipeError, match="a dataset's record reads none"):
        recipe(str(tmp_path / "secret.txt"), recorded=True)
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(RecipeError, match="is no regular file"):
        recipe(str(tmp_path / "pipe.txt"))


@pytest.mark.parametrize(
    ("prompt", "why"),
    [
        ({"text": " "}, "is empty"),
        ({"text": "describe"}, "is the name of a prompt"),
        ({"txt": "Say what you see."}, "the only key that it may have is text"),
        ("descrbe", "did you mean describe"),
        (3, "must be text"),
    ],
)
def test_what_is_no_prompt(prompt: Any, why: str) -> None:
    with pytest.raises(RecipeError, match=why):
        recipe(prompt)


def test_a_prompt_that_ships_never_changes_under_its_name() -> None:
    """Tables are named by the name; a better prompt gets a name of its own, and a line here."""
    assert {name: prompt_hash(name) for name in prompt_names()} == {
        "caption-fits": "dc875e5972ab057f",
        "describe": "0d8df372a4b4bc2c",
        "expand": "bc849d0740fc1a38",
        "merge-descriptive": "07a40ad0b66f8f3b",
        "merge-svd": "ff3d3da83206e89f",
    }
