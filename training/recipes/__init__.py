"""The training recipes: one file each, and the table RECIPES."""

from __future__ import annotations

from training.recipes.tiny import tiny

RECIPES = {"tiny": tiny}
