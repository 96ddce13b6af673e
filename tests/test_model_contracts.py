"""The contracts of the tables of training and the zoo: TASKS, RECIPES, PIPELINES and the built-in models.

The tests run over the tables themselves, so a new entry is tested without a line here, as in ``test_contracts``.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from pathlib import Path
from typing import Any

import pytest

from dailies.curation.errors import RecipeError, UsageError
from dailies.curation.observers import OBSERVERS
from dailies.curation.scorers import SCORERS
from dailies.training.recipes import RECIPES, TASKS, Bucket, Phase, Share, TaskSpec, TrainingRecipe, UNetSpec
from dailies.training.recipes.tasks import Task
from dailies.zoo.catalog import ENTRIES, resolve
from dailies.zoo.entry import MODEL_TASKS
from dailies.zoo.pipelines import BY_TASK, PIPELINES
from tests.test_contracts import columns_of, documented

ROOT = Path(__file__).resolve().parents[1]
FROM_MANIFEST = {"elevation"}  # columns that a task reads and no signal measures

# ---- training -------------------------------------------------------------------------------------------------------


def table_of_tasks() -> set[str]:
    """The tasks that docs/training.md has a row for."""
    _, _, table = (ROOT / "docs" / "training.md").read_text(encoding="utf-8").partition("| task |")
    rows = table.partition("\n\n")[0].splitlines()[2:]
    return {name.strip(" `") for row in rows for name in row.split("|")[1].split(",")}


def test_every_task_is_named_and_documented() -> None:
    assert set(TASKS) == set(typing.get_args(Task)) == table_of_tasks()


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_consistent(name: str) -> None:
    pytest.importorskip("torch")
    from dailies.training.phase_state import build

    spec = TASKS[name]
    assert spec.cross_attention == ("image" if spec.conditioning_frames else "text")
    assert spec.video or not spec.conditioning_frames
    assert spec.conditioning_frames or not spec.masked
    assert len(spec.conditioning_frames) <= 1 or spec.masked, "several frames need a mask to tell them apart"
    known = {column.name for cls in (*OBSERVERS.values(), *SCORERS.values()) for column in columns_of(cls)}
    assert set(spec.columns) <= known | FROM_MANIFEST
    size = {"steps": 1, "batch": 1, "size": (32, 24)}
    phase = Phase(name="tiny", task=name, frames=3 if spec.video else 1, **size)
    assert phase.task_spec is spec
    config = build(phase, UNetSpec(channels=(32,), attention=(True,), heads=1), 24, (6, 8)).config
    assert (config.in_channels, config.num_time_ids) == (spec.in_channels, spec.num_time_ids)
    with pytest.raises(RecipeError, match="frames"):
        Phase(name="tiny", task=name, frames=1 if spec.video else 3, **size)


@pytest.mark.parametrize("name", RECIPES)
def test_a_training_recipe_is_documented(name: str) -> None:
    recipe = RECIPES[name]()
    assert recipe.name == name
    assert RECIPES[name].__doc__
    assert f"dailies train {name}" in "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("cls", [Bucket, Share, Phase, TaskSpec, TrainingRecipe, UNetSpec])
def test_every_field_of_a_training_recipe_is_documented(cls: Any) -> None:
    assert {f.name for f in dataclasses.fields(cls)} - {"name"} <= documented(cls)


# ---- zoo ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipeline_of_the_zoo_keeps_its_contract(name: str) -> None:
    spec = PIPELINES[name]
    assert (spec.name, BY_TASK[spec.task]) == (name, spec)
    assert spec.task in MODEL_TASKS
    assert spec.task in TASKS
    task = TASKS[spec.task]
    assert (spec.input.encoder, spec.latents_in) == (task.cross_attention, task.in_channels // 4)
    assert task.num_time_ids in spec.time_ids
    assert (ROOT / "zoo" / "templates" / f"run_{name}.py.j2").is_file()
    assert set(spec.parts) >= {"vae", "unet", "scheduler"}
    assert all(spec.parts.values())
    assert spec.input.phrase
    assert spec.input.option
    for prompt, image in ((None, None), ("red", "first.png")):
        with pytest.raises(UsageError, match="makes video from"):
            spec.input.check("it", prompt=prompt, image=image)
    for package in ("torch", "diffusers"):
        pytest.importorskip(package)
    cls = spec.load_class()
    assert cls.__doc__
    assert callable(cls.from_pretrained)
    takes = set(inspect.signature(cls.__call__).parameters)
    assert set(spec.input.arguments(prompt="red", image="first.png", noise_aug=0.1)) <= takes
    assert set(spec.parts) <= set(inspect.signature(cls.__init__).parameters)


@pytest.mark.parametrize("name", ENTRIES)
def test_a_built_in_model_keeps_its_contract(name: str) -> None:
    entry, folder = ENTRIES[name], ROOT / "zoo" / "builtin" / name
    assert (entry.name, entry.built_in) == (name, True)
    assert entry.about
    assert entry.licence
    assert resolve(f"zoo:{name}") == folder
    assert (folder / "README.md").is_file()
    assert entry.pipeline is None or entry.pipeline in PIPELINES
    assert entry.bytes == sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert {path.name for path in folder.parent.iterdir()} == set(ENTRIES)
