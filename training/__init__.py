"""Training: staged video diffusion on exported shards. A room is loaded when it is named, and nothing before.

::

    recipes    what a run does, checked before any work        data        exports into batches
    models     networks and their files                        loop        train(recipe, …): reads from top to bottom
    diffusion  objectives, conditions, sampling, encoders      vae         the temporal VAE as another task of that loop
    captioner  a captioner as one more task
"""

from importlib import import_module
from types import ModuleType

__all__ = [
    "captioner",
    "checkpoint",
    "data",
    "devices",
    "diffusion",
    "distributed",
    "ema",
    "loop",
    "memory",
    "models",
    "plan",
    "recipes",
    "run_log",
    "samples",
    "task",
    "task_record",
    "vae",
]

if __name__ != "dailies.training":  # imported by its bare name, it would be a second copy of every module in it
    raise ImportError(f"{__name__} is part of dailies: import dailies.training")


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
