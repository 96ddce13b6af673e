"""What a command imports is what its user waits for: which heavy libraries each may load is a table here, never a time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from dailies.pipelines.recipes.recipe import load_recipe
from tests.dataset_builder import fill, new_dataset

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {
    *("accelerate", "av", "cv2", "decord", "deltalake", "diffusers", "duckdb", "easyocr", "fsspec", "aiohttp"),
    *("huggingface_hub", "jinja2", "numpy", "omegaconf", "onnxruntime", "open_clip", "pandas", "peft", "PIL", "pyarrow"),
    *("pydantic", "rapidocr", "ray", "requests", "safetensors", "scenedetect", "scipy", "tensorboard", "tokenizers"),
    *("torch", "torchvision", "transformers", "yaml"),
}
READING = {"numpy", "pydantic", "yaml"}  # of recipes; typer takes pydantic to read options, too
RECIPE = READING | {"pyarrow", "cv2"}
