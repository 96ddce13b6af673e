"""Files that desktops leave in the folders that people open: they are no part of a model, whatever their names end in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

NAMES = frozenset(
    {".ds_store", ".apdisk", ".localized", "icon\r", "thumbs.db", "ehthumbs.db", "desktop.ini", ".directory"}
)
FOLDERS = frozenset({"__macosx", ".appledouble", ".spotlight-v100", ".fseventsd", ".trashes"})
DOUBLE = "._"  # macOS keeps a file's attributes so on disks that have none, with the file's own suffix


def is_litter(path: str | Path) -> bool:
    """Return whether a desktop left this file, or the folder that it lies in; ``path`` is relative to the model's folder."""
    *parents, name = Path(path).parts or ("",)
    names = NAMES | FOLDERS
    return name.lower() in names or name.startswith(DOUBLE) or any(parent.lower() in FOLDERS for parent in parents)


def without_litter(folder: Path, pattern: str) -> Iterator[Path]:
    """Yield what ``pattern`` finds under ``folder``, in order, without the litter."""
    return (path for path in sorted(folder.glob(pattern)) if not is_litter(path.relative_to(folder)))
