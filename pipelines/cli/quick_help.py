"""Typer's help imports rich's Markdown and tracebacks, and behind them two parsers, which take a third of the time that
``--help`` does; our help has neither in it. So what typer finds of them becomes the real thing only when it is used."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

UNUSED = {"rich.markdown": "Markdown", "rich.traceback": "Traceback"}


def prepare_help(arguments: Sequence[str]) -> None:
    """Load typer's help without what it does not use, where ``arguments`` ask for help."""
    if arguments and not {"--help", "-h"} & set(arguments):
        return
    absent = [name for name in UNUSED if name not in sys.modules]
    for name in absent:
        module = ModuleType(name)
        setattr(module, UNUSED[name], _Later(UNUSED[name], (), {"__module__": name}))
        sys.modules[name] = module
    try:
        import_module("typer.rich_utils")
    finally:
        for name in absent:
            del sys.modules[name]  # whoever imports it from now on gets the real one


class _Later(type):
    """A class that stands for the one of its name in its module, and imports that when it is called or asked for more."""

    def __call__(cls, *args: Any, **options: Any) -> Any:
        return getattr(import_module(cls.__module__), cls.__name__)(*args, **options)

    def __getattr__(cls, name: str) -> Any:
        return getattr(getattr(import_module(cls.__module__), cls.__name__), name)
