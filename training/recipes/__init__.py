"""The training recipes: one file each, and the table RECIPES. A recipe of your own is a Python file's function.

``DIFFERS``: where a recipe departs from its paper.
"""

from __future__ import annotations

import runpy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dailies.curation.errors import RecipeError
from dailies.training.recipes import svd as _svd
from dailies.training.recipes.finetune import finetune, lora
from dailies.training.recipes.overrides import override
from dailies.training.recipes.recipe import Recipe
from dailies.training.recipes.tiny import tiny

RECIPES: Mapping[str, Callable[[], Recipe]] = {"tiny": tiny, "svd": _svd.svd, "finetune": finetune, "lora": lora}
DIFFERS = {"svd": _svd.DIFFERS}


def load_recipe(name: str, sets: Sequence[str] = ()) -> Recipe:
    """The recipe called ``name``, or what the function ``recipe`` (or FUNCTION in ``FILE.py:FUNCTION``) of a Python
    file returns, with ``sets`` (``FIELD=VALUE``, ``PHASE.FIELD=VALUE``) put in.

    Raises ``RecipeError`` naming the recipes there are, the function that is missing, or the field that is wrong.
    """
    file, _, function = name.partition(":")
    if file.endswith(".py"):
        return override(_from_file(Path(file), function or "recipe"), sets)
    if name not in RECIPES:
        raise RecipeError(f"recipe: one of {', '.join(RECIPES)} or a FILE.py expected, not {name!r}")
    return override(RECIPES[name](), sets)


def _from_file(path: Path, function: str) -> Recipe:
    if not path.is_file():
        raise RecipeError(f"recipe: no file {path}")
    made = runpy.run_path(str(path)).get(function)
    if not callable(made):
        raise RecipeError(f"recipe: {path} has no function {function!r}")
    recipe = made()
    if not isinstance(recipe, Recipe):
        raise RecipeError(f"recipe: {function} of {path} returns {type(recipe).__name__}, a Recipe expected")
    return recipe
