"""Folders of models in transformers' format: how all that runs one gets it, checks it, tells it from others and loads it.

A folder is looked through (``dailies.curation.model_folders``) before transformers sees it. Only safetensors are read; while a
model is loaded nothing is fetched, and no code runs but transformers' own. transformers is imported by ``loading`` alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from dailies.curation import inside
from dailies.curation.config import read_object
from dailies.curation.downloads import HUB_ID, hub_folder, quiet_loading
from dailies.curation.errors import Damaged, UsageError, first_line
from dailies.curation.litter import without_litter

CONFIG = "config.json"
PICTURES = ("preprocessor_config.json", "processor_config.json")
VOCABULARIES = ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model")
SETTINGS = (
    *(CONFIG, *PICTURES, *VOCABULARIES, "merges.txt"),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
)
"""Files that change what a model of pictures and words says, besides its weights."""

SAFE: Mapping[str, bool] = {"local_files_only": True, "trust_remote_code": False}
"""What each ``from_pretrained`` gets."""

_COMMIT = re.compile(r"[0-9a-f]{40}")


def folder_of(
    name: str,
    *,
    wanted: Sequence[str],
    named: str | None = None,
    revision: str | None = None,
    folders: Sequence[str] = (),
) -> Path:
    """Return the folder that ``name`` stands for; of a hub's repository what is ``wanted`` is fetched, if it is not here.

    ``named``: the parameter, as errors say it. ``revision``: of the hub's repository; ``folders``: what of its folders is
    wanted. Raises ``UsageError``.
    """
    named = named or f"model={name!r}"
    folder = Path(name)
    if folder.is_dir():
        return folder
    if not HUB_ID.fullmatch(name):
        raise UsageError(f"{named}: no such folder; give one, or a hub id ORG/NAME")
    return hub_folder(
        name, named=named, wanted=wanted, because="no such folder, and ", revision=revision, folders=folders
    )


def commit_of(folder: Path) -> str | None:
    """Return the commit of a hub's repository, where ``folder`` is what was fetched of it."""
    return folder.name if folder.parent.name == "snapshots" and _COMMIT.fullmatch(folder.name) else None


def config_of(folder: Path, named: str | None = None) -> Mapping[str, Any]:
    """Return a folder's ``config.json``. Raises ``Damaged``, or ``UsageError`` where there is none."""
    path = folder / CONFIG
    try:
        return read_object(inside.read_named(path), str(path), Damaged)
    except OSError as error:
        named = named or f"model={str(folder)!r}"
        raise UsageError(
            f"{named}: {CONFIG} cannot be read: {error.strerror}; give a folder of transformers"
        ) from error


def fingerprint(folder: Path, settings: Sequence[str] = SETTINGS) -> str:
    """Return the sha256 of all that changes what the model in ``folder`` says: its weights, and files called ``settings``.

    A name in ``settings`` may lead into a folder of it.
    """
    hasher = hashlib.sha256()
    deeper = sorted(name for name in settings if "/" in name)
    for path in (*without_litter(folder, "*"), *(folder / name for name in deeper if (folder / name).is_file())):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".safetensors" or name in settings:
            status = path.stat()
            hasher.update(name.encode() + b"\0" + _sha256(path, status.st_size, status.st_mtime_ns))
    return hasher.hexdigest()


@lru_cache(maxsize=256)
def _sha256(path: Path, size: int, changed: int) -> bytes:
    """Hash a file once for as long as it stays: one of gigabytes takes seconds."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


@contextmanager
def loading(named: str) -> Iterator[None]:
    """Let what transformers raises for a folder be a ``UsageError`` that names it, and keep it from drawing and reporting."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    try:
        with quiet_loading("transformers"):
            yield
    except (OSError, RuntimeError, ValueError, LookupError, TypeError, StrictDataclassError, SafetensorError) as error:
        raise UsageError(f"{named}: cannot be loaded: {first_line(error)}") from error


def load_whole(load: Callable[..., Any], folder: Path, **options: Any) -> Any:
    """Return the model that ``load``, a class's ``from_pretrained``, reads. Raises ``Damaged`` where tensors are missing."""
    asked = {"use_safetensors": True, "output_loading_info": True, **SAFE, **options}
    model, report = load(str(folder), **asked)
    if missing := sorted(map(str, report.get("missing_keys", ()))):
        raise Damaged(f"{folder}: {len(missing)} of its tensors are missing, {missing[0]} first; get it whole")
    return model
