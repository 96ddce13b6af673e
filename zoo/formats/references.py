"""Built-in models have a name that outlives an installation: ``zoo:NAME``, wherever the package lies."""

from __future__ import annotations

from pathlib import Path

SCHEME = "zoo:"
BUILTIN = Path(__file__).resolve().parents[1] / "builtin"


def as_reference(path: str | Path) -> str:
    """Return ``zoo:NAME`` for a built-in model's folder, the resolved path for any other folder.

    A path that ends in ``zoo/builtin/NAME`` is a built-in's too: runs used to hold the place where the package lay then.
    """
    text = str(path)
    if text.startswith(SCHEME):
        return text
    folder = Path(text).resolve()
    ours = folder.parent == BUILTIN or folder.parts[-3:-1] == ("zoo", "builtin")
    return f"{SCHEME}{folder.name}" if ours and (BUILTIN / folder.name).is_dir() else str(folder)


def as_folder(reference: str | Path, relative_to: str | Path = ".") -> Path:
    """Return the folder behind what ``as_reference`` returned; other paths may be relative to ``relative_to``."""
    text = str(reference)
    name = as_reference(Path(relative_to) / text) if not text.startswith(SCHEME) else text
    return BUILTIN / name.removeprefix(SCHEME) if name.startswith(SCHEME) else Path(relative_to) / text
