"""Reading ``config.json``, which lies in the folder of every model of diffusers and transformers."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

from dailies.curation.errors import ModelError

CONFIG = "config.json"


def read_config(folder: str | PathLike[str]) -> dict[str, Any]:
    """Return the object in ``config.json`` of a model's folder. Raises ``ModelError`` naming the folder."""
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise ModelError(f"{folder}: {CONFIG} is missing; give the folder of one model of diffusers or transformers")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}: {CONFIG} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{folder}: {CONFIG} holds no JSON object")
    return config
