"""Files and folders that appear whole or not at all: written under a hidden name beside the final one, then renamed.

Nobody can know the hidden name beforehand, and it is made only where nothing has it. A link that stands at the final one is
replaced, not followed.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PART = ".part-"  # how the names of unfinished files and folders begin


@contextmanager
def new_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a hidden path beside ``path``; what was written there takes its name at the end, and is removed on an error."""
    final = Path(path)
    hidden = hidden_name(final)
    os.close(os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
    try:
        yield hidden
        sync(hidden)  # else a loss of power may leave the name with an empty file
        os.replace(hidden, final)
        sync(final.parent)
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise


@contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a hidden folder beside ``path`` to fill; it takes that name at the end, and is removed on an error.

    A folder that stands at ``path`` is replaced; a kill between its removal and the renaming leaves neither.
    """
    final = Path(path)
    hidden = hidden_name(final)
    hidden.mkdir(parents=True)
    try:
        yield hidden
        for folder, _, names in os.walk(hidden):
            for name in names:
                sync(os.path.join(folder, name))
            sync(folder)
        if final.is_dir() and not final.is_symlink():
            shutil.rmtree(final)
        elif os.path.lexists(final):
            final.unlink()
        os.replace(hidden, final)
        sync(final.parent)
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        raise


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in UTF-8."""
    with new_file(path) as hidden:
        hidden.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any, *, indent: int | None = 1) -> None:
    """Write ``value`` as a JSON file."""
    write_text(path, json.dumps(value, indent=indent))


def sync(path: str | os.PathLike[str]) -> None:
    """Have the disk hold a local file or folder before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed writers left in ``folder`` itself. Only for a folder that no other process writes into."""
    for left in folder.glob(f"{PART}*"):
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        else:
            left.unlink()


def hidden_name(final: Path) -> Path:
    """Return where what is to become ``final`` may be written until it is whole: beside it, by a name that is not there."""
    return final.with_name(f"{PART}{os.getpid()}-{secrets.token_hex(4)}-{final.name}")
