"""The config.json of a model's folder, in diffusers' or transformers' format."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from dailies.curation import inside
from dailies.curation.config import read_object
from dailies.curation.errors import ModelError
from dailies.curation.model_folders import refuse_asking, refuse_vast


def read_config(folder: str | PathLike[str]) -> dict[str, Any]:
    """Read ``config.json``. Raises ``ModelError`` naming the folder where there is none, or the file that is no object.

    Raises ``Damaged`` for one that asks for code.
    """
    path = Path(folder) / "config.json"
    try:
        row = read_object(inside.read_named(path), f"{path}:", ModelError)
    except FileNotFoundError:
        raise ModelError(f"{folder}: holds no model: config.json is missing") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    refuse_asking(row, path)
    refuse_vast(row, path)
    return row


def class_of(config: dict[str, Any]) -> str:
    """Return the class or model type that a config names; ``no model`` where it names none."""
    return str(config.get("_class_name") or config.get("model_type") or "no model")
