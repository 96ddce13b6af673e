"""Folders that Python may import from: never the working directory, in which a video's neighbour may be called numpy.py."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import dailies


def safe_path(path: Sequence[str]) -> list[str]:
    """Return the folders of ``sys.path`` but for the working directory, unless dailies itself lies there."""
    here, ours = os.getcwd(), str(Path(dailies.__file__).resolve().parents[1])
    there = [os.path.abspath(entry) for entry in path if os.path.exists(entry or ".")]
    return [entry for entry in there if os.path.realpath(entry) == ours or not os.path.samefile(entry, here)]


def named_path(variable: str) -> str:
    """Return a ``PYTHONPATH`` without its empty and relative entries, which stand for the working directory."""
    return os.pathsep.join(entry for entry in variable.split(os.pathsep) if os.path.isabs(entry))
