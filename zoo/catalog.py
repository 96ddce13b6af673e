"""The models that ship with dailies, and ``zoo:NAME`` → a folder.

A built-in lies in ``zoo/builtin/NAME`` with a card (README.md) whose front matter may give ``license``, ``task`` and
``pipeline_tag``; its first sentence says what it is. Weights are safetensors, counted from their headers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from dailies.curation.errors import Damaged, ModelError, NoSuchModel
from dailies.zoo.entry import TASKS, ZooEntry
from dailies.zoo.formats import safetensors_info as weights
from dailies.zoo.formats.references import BUILTIN, SCHEME
from dailies.zoo.store import ENTRY, Store

CARD = "README.md"


def built_ins(root: Path = BUILTIN) -> dict[str, ZooEntry]:
    """The entries of the folders under ``root`` that have a card, by name."""
    if not root.is_dir():
        return {}
    folders = [path for path in sorted(root.iterdir()) if (path / CARD).is_file()]
    return {path.name: _entry(path) for path in folders}


def _entry(folder: Path) -> ZooEntry:
    front, about = read_card((folder / CARD).read_text(encoding="utf-8"))
    try:
        parameters, size = weights.size(folder)
    except Damaged:
        parameters, size = 0, 0  # ``verify`` and the loader say what is wrong; a list must not fail for it
    if (folder / ENTRY).is_file():
        return ZooEntry.from_json((folder / ENTRY).read_text())
    task = front.get("task", front.get("pipeline_tag", "component"))
    return ZooEntry(
        name=folder.name,
        task=task if task in TASKS else "component",  # type: ignore[arg-type]
        licence=front.get("license"),
        parameters=parameters or None,
        bytes=size or None,
        about=about,
        built_in=True,
    )


def read_card(text: str) -> tuple[dict[str, str], str]:
    """(front matter's plain ``key: value`` lines, the first sentence of the first paragraph)."""
    front: dict[str, str] = {}
    found = re.match(r"---\n(.*?)\n---\n", text, re.S)
    if found:
        pairs = (line.partition(":") for line in found[1].splitlines() if re.match(r"\w+:", line))
        front = {key: value.strip().strip("\"'") for key, _, value in pairs}
        text = text[found.end() :]
    for block in text.split("\n\n"):
        prose = " ".join(block.split())
        if prose and not prose.startswith(("#", "!", "|", "```", "- ")):
            return front, re.split(r"(?<=[.!?]) ", prose, maxsplit=1)[0]
    return front, ""


ENTRIES: Mapping[str, ZooEntry] = built_ins()
"""One row per built-in model."""


def resolve(reference: str, zoo: str | Path | None = None) -> Path:
    """``zoo:NAME`` → the folder of a built-in, or of a model in ``zoo`` if one is given, its sizes checked.

    Raises ``ModelError`` for what is no reference, ``NoSuchModel`` with the names there are.
    """
    if not reference.startswith(SCHEME):
        raise ModelError(f"{reference!r}: a model is named {SCHEME}NAME")
    name = reference.removeprefix(SCHEME)
    if name in ENTRIES:
        return BUILTIN / name
    store = Store(zoo) if zoo is not None else None
    names = store.names() if store is not None else []
    if store is not None and name in names:
        return store.open(name)
    have = ", ".join([*ENTRIES, *names]) or "nothing yet"
    raise NoSuchModel(f"no model {name!r}; there are: {have}")
