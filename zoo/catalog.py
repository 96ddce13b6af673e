"""The models that ship with dailies, and ``zoo:NAME`` as a way to name a model.

A built-in lies in ``zoo/builtin/NAME`` with a card (README.md) and an entry (``model.json``), like a published model.
To add one, add its folder. Parameters and bytes are counted from the headers of its safetensors files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from dailies.curation.config import offered
from dailies.curation.errors import Damaged, ModelError, NoSuchModel
from dailies.zoo.entry import ZooEntry
from dailies.zoo.formats import safetensors_info
from dailies.zoo.formats.references import BUILTIN, SCHEME
from dailies.zoo.store import ENTRY, Store


def built_ins(root: Path = BUILTIN) -> dict[str, ZooEntry]:
    """Return the entries of the models under ``root``, by name."""
    return {path.parent.name: _entry(path.parent) for path in sorted(root.glob(f"*/{ENTRY}"))}


def _entry(folder: Path) -> ZooEntry:
    entry = ZooEntry.from_json((folder / ENTRY).read_text(encoding="utf-8"))
    try:
        parameters, size = safetensors_info.size(folder)
    except Damaged:
        return entry  # `verify` and the loader say what is wrong; a list must not fail for it
    return replace(entry, parameters=parameters or None, bytes=size or None)


ENTRIES: Mapping[str, ZooEntry] = built_ins()
"""One row per built-in model."""


def resolve(reference: str, zoo: str | Path | None = None) -> Path:
    """Return the folder of ``zoo:NAME``: a built-in, or a model in ``zoo`` if there is one, its sizes checked.

    Raises ``ModelError`` for anything else, ``NoSuchModel`` with the names there are.
    """
    if not reference.startswith(SCHEME):
        raise ModelError(f"model={reference!r}: not a zoo model; write {SCHEME}NAME")
    name = reference.removeprefix(SCHEME)
    if name in ENTRIES:
        return BUILTIN / name
    store = Store(zoo) if zoo is not None else None
    names = store.names() if store is not None else []
    if store is not None and name in names:
        return store.open(name)
    raise NoSuchModel(f"no model {name!r}{offered(name, [*ENTRIES, *names], label='there are')}")
