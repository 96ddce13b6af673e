"""Zoo: models that people list, publish and run. Nothing heavy is imported with this package.

``publish`` makes a model of a training run, ``run`` makes a video with one, ``load_pipeline`` gives the pipeline itself.
``Store`` is a zoo in a folder, ``ZooEntry`` a row of it, ``resolve`` the folder of ``zoo:NAME``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dailies.zoo import units
    from dailies.zoo.catalog import ENTRIES, resolve
    from dailies.zoo.default import DEFAULT_ZOO, ENV, default_zoo
    from dailies.zoo.entry import ZooEntry
    from dailies.zoo.generate import GeneratedVideo, run
    from dailies.zoo.load import load_pipeline
    from dailies.zoo.pipelines import PIPELINES
    from dailies.zoo.publishing import publish
    from dailies.zoo.store import Store

__all__ = [
    "DEFAULT_ZOO",
    "ENTRIES",
    "ENV",
    "PIPELINES",
    "GeneratedVideo",
    "Store",
    "ZooEntry",
    "default_zoo",
    "load_pipeline",
    "publish",
    "resolve",
    "run",
    "units",
]

if __name__ != "dailies.zoo":  # imported by its bare name, it would be a second copy of every module in it
    raise ImportError(f"{__name__} is part of dailies: import dailies.zoo")

_MODULES = {
    "DEFAULT_ZOO": "default",
    "ENTRIES": "catalog",
    "ENV": "default",
    "PIPELINES": "pipelines",
    "GeneratedVideo": "generate",
    "Store": "store",
    "ZooEntry": "entry",
    "default_zoo": "default",
    "load_pipeline": "load",
    "publish": "publishing",
    "resolve": "catalog",
    "run": "generate",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
