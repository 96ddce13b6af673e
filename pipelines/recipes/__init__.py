"""Recipes of curation: their steps, read from YAML or given as objects, and checked as a whole before any work.

The YAML files beside this one are the built-in recipes.
"""

from dailies.pipelines.recipes.caption_makers import caption_makers
from dailies.pipelines.recipes.obstacles import obstacles, packages_of
from dailies.pipelines.recipes.overrides import step_of
from dailies.pipelines.recipes.own import OwnSpec
from dailies.pipelines.recipes.recipe import CurationRecipe, load_recipe, parse_recipe, recipe_names
from dailies.pipelines.recipes.specs import built_in_models, fetch_models, resolved
from dailies.pipelines.recipes.steps import (
    Annotation,
    CaptionStep,
    CutStep,
    DedupStep,
    ExportStep,
    ObserveStep,
    ScoreStep,
    SelectStep,
    caption_name,
    kind_of_step,
    plain_columns,
)

__all__ = [
    "Annotation",
    "CaptionStep",
    "CurationRecipe",
    "CutStep",
    "DedupStep",
    "ExportStep",
    "ObserveStep",
    "OwnSpec",
    "ScoreStep",
    "SelectStep",
    "built_in_models",
    "caption_makers",
    "caption_name",
    "compare",
    "costs",
    "describe",
    "fetch_models",
    "kind_of_step",
    "load_recipe",
    "obstacles",
    "packages_of",
    "parse_recipe",
    "plain_columns",
    "preflight",
    "recipe_names",
    "resolved",
    "step_of",
    "weights",
]
