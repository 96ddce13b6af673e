"""dailies: raw video in; a curated, captioned dataset, a video diffusion model and a model zoo out.

::

    import dailies

    dailies.detect_cuts("film.mp4")                              # where shots meet
    result = dailies.curate("videos/", "my-dataset")             # sources, clips and selections, each loss with its reason
    dataset = dailies.Dataset("my-dataset")
    dataset.sql("select reason, count(*) from selection_main group by reason")
    dataset.frames(dataset.clips()["clip_id"][0].as_py()).pixels # (t, h, w, 3) RGB
    run = dailies.train("tiny", dataset.exports[-1], "run")
    dailies.zoo.publish("run", name="mine", to="zoo")
    dailies.zoo.run("mine", zoo="zoo", image="first.png", out="clip.mp4")

All of it is loaded when it is first used. The rooms are ``dailies.curation``, ``training``, ``zoo`` and ``pipelines``
(``docs/architecture.md``); what goes wrong is one of ``dailies.curation.errors``, below ``DailiesError``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dailies.api import Dataset, TrainReport, curate, detect_cuts, train
    from dailies.curation.errors import DailiesError, SourceError, UsageError
    from dailies.curation.progress import silent
    from dailies.pipelines.expanding import expand
    from dailies.pipelines.recipes.compare import compare_recipes
    from dailies.pipelines.recipes.preflight import check_recipe, show_recipe
    from dailies.pipelines.recipes.recipe import CurationRecipe, load_recipe
    from dailies.pipelines.recipes.steps import (
        CaptionStep,
        CutStep,
        DedupStep,
        ExportStep,
        ObserveStep,
        ScoreStep,
        SelectStep,
    )

__all__ = [
    "CaptionStep",
    "CurationRecipe",
    "CutStep",
    "DailiesError",
    "Dataset",
    "DedupStep",
    "ExportStep",
    "ObserveStep",
    "ScoreStep",
    "SelectStep",
    "SourceError",
    "TrainReport",
    "UsageError",
    "check_recipe",
    "compare_recipes",
    "curate",
    "curation",
    "detect_cuts",
    "expand",
    "load_recipe",
    "pipelines",
    "show_recipe",
    "silent",
    "train",
    "training",
    "zoo",
]

_HOMES = {
    "api": ("Dataset", "TrainReport", "curate", "detect_cuts", "train"),
    "curation.errors": ("DailiesError", "SourceError", "UsageError"),
    "curation.progress": ("silent",),
    "pipelines.expanding": ("expand",),
    "pipelines.recipes.compare": ("compare_recipes",),
    "pipelines.recipes.preflight": ("check_recipe", "show_recipe"),
    "pipelines.recipes": (
        *("CurationRecipe", "load_recipe"),
        *("CaptionStep", "CutStep", "DedupStep", "ExportStep", "ObserveStep", "ScoreStep", "SelectStep"),
    ),
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
