"""Recipes, phases and ``--set``: what a training run does, in frozen values that check themselves before any work.

RECIPES is the table of built-in ones, a file each; a recipe of your own is a function in a Python file. DIFFERS says where a
recipe departs from its paper. Nothing here imports torch.
"""

from __future__ import annotations

import runpy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dailies.curation.config import offered
from dailies.curation.errors import RecipeError, own_code
from dailies.training.recipes import svd as _svd
from dailies.training.recipes.finetune import finetune, lora
from dailies.training.recipes.old_names import to_new_names
from dailies.training.recipes.overrides import fields_of, override
from dailies.training.recipes.phase import MAIN, Bucket, Phase, Rule, Share
from dailies.training.recipes.recipe import (
    ENCODER_DIMS,
    EncoderDims,
    TrainingRecipe,
    UNetSpec,
    check_columns,
    check_sizes,
    columns_needed,
)
from dailies.training.recipes.tasks import TASKS, Task, TaskSpec
from dailies.training.recipes.tiny import tiny

__all__ = [
    "DIFFERS",
    "ENCODER_DIMS",
    "MAIN",
    "RECIPES",
    "TASKS",
    "Bucket",
    "EncoderDims",
    "Phase",
    "Rule",
    "Share",
    "Task",
    "TaskSpec",
    "TrainingRecipe",
    "UNetSpec",
    "check_columns",
    "check_sizes",
    "columns_needed",
    "fields_of",
    "load_recipe",
    "override",
    "spec",
    "to_new_names",
]

RECIPES: Mapping[str, Callable[[], TrainingRecipe]] = {
    "tiny": tiny,
    "svd": _svd.svd,
    "finetune": finetune,
    "lora": lora,
}
DIFFERS = {"svd": _svd.DIFFERS}


def load_recipe(name: str, sets: Sequence[str] = ()) -> TrainingRecipe:
    """Load the built-in recipe ``name``, or what FUNCTION of ``FILE.py:FUNCTION`` returns (``recipe`` by default).

    ``sets``: ``--set`` assignments that replace values (``dailies.training.recipes.overrides``).
    Raises ``RecipeError`` naming the recipes there are, the function that is missing, or the field that is wrong.
    """
    file, _, function = name.partition(":")
    if file.endswith(".py"):
        return override(_from_file(Path(file), function or "recipe"), sets)
    if name == "vae":  # of dailies train alone, whose command does not come here
        raise RecipeError(f"recipe vae: trains a VAE and has no phases; allowed: {', '.join([*RECIPES, 'FILE.py'])}")
    if name not in RECIPES:
        raise RecipeError(f"recipe {name!r}: no such training recipe{offered(name, [*RECIPES, 'vae', 'FILE.py'])}")
    return override(RECIPES[name](), sets)


def _from_file(path: Path, function: str) -> TrainingRecipe:
    if not path.is_file():
        raise RecipeError(f"recipe {path}: no such file")
    with own_code(f"recipe {path}: cannot be run", str(path)):
        make = runpy.run_path(str(path)).get(function)
        if not callable(make):
            raise RecipeError(f"recipe {path}: has no function {function!r}")
        recipe = make()
    if not isinstance(recipe, TrainingRecipe):
        raise RecipeError(f"recipe {path}: {function} returns {type(recipe).__name__}, not a TrainingRecipe")
    return recipe
