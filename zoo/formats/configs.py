"""The config.json of a model's folder, in diffusers' or transformers' format."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

from dailies.curation.errors import ModelError
from dailies.curation.model_folders import refuse_asking


def read_config(folder: str | PathLike[str]) -> dict[str, Any]:
    """Read ``config.json``. Raises ``ModelError`` naming the folder where there is none, or the file that is no object.

    Raises ``Damaged`` for one that asks for code.
    """
    path = Path(folder) / "config.json"
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{folder}: holds no model: config.json is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    if not isinstance(row, dict):
        raise ModelError(f"{path}: is not a JSON object")
    refuse_asking(row, path)
    return row


def class_of(config: dict[str, Any]) -> str:
    """Return the class or model type that a config names; ``no model`` where it names none."""
    return str(config.get("_class_name") or config.get("model_type") or "no model")
