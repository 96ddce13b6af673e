"""Pipelines: the thin shell of Ray and recipes around curation, training and the zoo; ``cli`` is the command line.

Commands are functions here: ``run`` (curate), ``again`` (dedup, select, export), ``overview``, ``showing``, ``report``,
``comparing``, ``caption_comparing``, ``cuts``, ``maintenance``, ``latents``, ``train``, ``train_vae``,
``train_captioner``, ``quickstart``, ``doctor``. They return frozen reports, and take a ``progress``.
"""

from importlib import import_module
from types import ModuleType

__all__ = [
    "again",
    "caption_comparing",
    "captions",
    "comparing",
    "cuts",
    "doctor",
    "engine",
    "export_work",
    "exporting",
    "footage",
    "grouping",
    "import_path",
    "installation",
    "isolate",
    "latents",
    "machine",
    "maintenance",
    "model_refs",
    "overview",
    "quickstart",
    "recipes",
    "report",
    "reports",
    "run",
    "selecting",
    "showing",
    "stages",
    "train",
    "train_captioner",
    "train_vae",
    "workers",
]

if __name__ != "dailies.pipelines":  # imported by its bare name, it would be a second copy of every module in it
    raise ImportError(f"{__name__} is part of dailies: import dailies.pipelines")


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
