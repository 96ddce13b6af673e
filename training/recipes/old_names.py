"""Names that a recipe's fields had before: runs, ``--set`` and fingerprints made with them stay valid."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

RECIPE = {"net": "unet", "begins": "init_from"}
"""Old name → today's, of a recipe's fields."""
UNET = {"time_ids": "time_id_width"}
"""The same of ``TrainingRecipe.unet``."""


def to_new_names(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe as a dict, its fields by today's names. Fields that have these already stay."""
    return _renamed(row, RECIPE, UNET)


def to_old_names(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inverse: what fingerprints are taken of."""
    recipe, unet = ({new: old for old, new in names.items()} for names in (RECIPE, UNET))
    return _renamed(row, recipe, unet)


def _renamed(row: Mapping[str, Any], recipe: Mapping[str, str], unet: Mapping[str, str]) -> dict[str, Any]:
    out = {recipe.get(name, name): value for name, value in row.items()}
    for name in ("unet", "net"):
        if isinstance(out.get(name), Mapping):
            out[name] = {unet.get(key, key): value for key, value in out[name].items()}
    return out


def today(keys: tuple[str, ...], text: str) -> tuple[str, ...]:
    """Return the path of the assignment ``text`` by today's names; logs a line that says the new one."""
    new = (RECIPE.get(keys[0], keys[0]), *keys[1:])
    if new[0] == "unet" and len(new) == 2:
        new = (new[0], UNET.get(new[1], new[1]))
    if new != keys:
        logging.getLogger(__name__).warning("--set %s: the field is called %s now", text, ".".join(new))
    return new
