"""Optional packages are listed here, with the extra of dailies that brings each."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from dailies.curation.errors import NotInstalled

EXTRAS: dict[str, str] = {
    "torch": "models",
    "torchvision": "models",
    "open_clip": "models",
    "transformers": "models",
    "safetensors": "train",
    "diffusers": "train",
    "peft": "train",
    "accelerate": "train",
    "decord": "train",
    "ray.train": "train",
    "easyocr": "easyocr",
    "s3fs": "s3",
}
"""Importable name → extra."""


def need(packages: Iterable[str], *, by: str) -> None:
    """Check that ``packages`` are installed, without importing them. ``by``: what needs them, such as "step clip".

    Raises ``NotInstalled`` naming the missing packages and the command that installs them.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        extras = ",".join(dict.fromkeys(EXTRAS[name] for name in missing if name in EXTRAS))
        install = f"dailies[{extras}]" if extras else " ".join(missing)
        raise NotInstalled(f"{by} needs {', '.join(missing)}: pip install '{install}'")


def package_folder(name: str) -> Path:
    """Return the folder of an installed package without importing it. Raises ``NotInstalled``."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise NotInstalled(f"{name} is not installed: pip install {name}")
    return Path(spec.origin).parent
