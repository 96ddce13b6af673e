"""A zoo in a folder: one immutable folder per model, known by its ``model.json`` and its lock.

::

    ZOO/NAME/model.json            the entry
             dailies.lock.json     size and SHA-256 of every file
             README.md             the card
             model_index.json …    what diffusers reads
    ZOO/.adding-NAME-…             a model being added; the process that adds it locks the folder

A model is written into a hidden folder and renamed into place when it is whole, so that nobody sees half of one. What
a killed process left behind is removed by the next one that adds a model.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from dailies.curation import inside
from dailies.curation.config import did_you_mean
from dailies.curation.errors import Damaged, ModelError, NameTaken, NoSuchModel
from dailies.curation.locking import in_turn
from dailies.zoo.entry import ZooEntry, check_name
from dailies.zoo.formats import lock
from dailies.zoo.formats.references import BUILTIN

ENTRY = "model.json"
ADDING = ".adding-"


class Store:
    """A zoo in a local folder, which need not exist yet. Raises ``ModelError`` for any other URL."""

    def __init__(self, url: str | Path) -> None:
        text = str(url).removeprefix("file://")
        if "://" in text:
            raise ModelError(f"zoo={url}: not a local folder; a zoo can only be one so far")
        self.folder = Path(text).expanduser().absolute()
        if self.folder.exists() and not self.folder.is_dir():
            raise ModelError(f"zoo={url}: a file; give a folder")

    # ---- reading ----

    def names(self) -> list[str]:
        """Return names of the folders that hold an entry and a lock, and of links, which are said to be damaged, sorted."""
        entries = (entry for entry in inside.walk(self.folder, recursive=False) if not entry.is_file)
        return sorted(
            entry.name for entry in entries if not entry.name.startswith(".") and self._looks_whole(entry.name)
        )

    def _looks_whole(self, name: str) -> bool:
        return all(os.path.lexists(self.folder / name / file) for file in (ENTRY, lock.LOCK))

    def entries(self) -> tuple[dict[str, ZooEntry], dict[str, str]]:
        """Return the entries by name, and for those that cannot be read, why, by name."""
        good: dict[str, ZooEntry] = {}
        bad: dict[str, str] = {}
        for name in self.names():
            try:
                good[name] = self.entry(name)
            except Damaged as error:
                bad[name] = str(error)
        return good, bad

    def entry(self, name: str) -> ZooEntry:
        """Return the entry ``name``. Raises ``NoSuchModel``, or ``Damaged`` for a wrong ``model.json``."""
        self.path(name)
        try:
            entry = ZooEntry.from_json(inside.read_text(self.folder, f"{name}/{ENTRY}"))
        except (Damaged, OSError, UnicodeDecodeError) as error:
            raise Damaged(f"{name}: {error}") from error
        if entry.name != name:
            raise Damaged(f"{name}: model.json is of a model named {entry.name}")
        return entry

    def path(self, name: str) -> Path:
        """Return the folder of ``name``, its files unchecked. Raises ``NoSuchModel``, and ``Unsafe`` for a link."""
        if name not in self.names():
            have = ", ".join(self.names()) or "nothing yet"
            near = did_you_mean(name, [*self.names(), *(entry.parent.name for entry in BUILTIN.glob(f"*/{ENTRY}"))])
            raise NoSuchModel(f"no model {name!r} in {self.folder}; it holds: {have}{near}")
        return inside.inside(self.folder, name)

    def open(self, name: str, *, deep: bool = False) -> Path:
        """Return the folder of ``name``, once its files match its lock by name, size and SHA-256.

        Files that have not changed since they were last read are read again only if ``deep``.

        Raises ``NoSuchModel`` and ``Damaged``.
        """
        folder = self.path(name)
        lock.check(folder, deep=deep)
        return folder

    # ---- adding ----

    def check_free(self, name: str, built_in: Mapping[str, object] = {}) -> None:
        """Raise ``ModelError`` if ``name`` cannot be a name, ``NameTaken`` if a model has it already."""
        check_name(name)
        if name in built_in:
            raise NameTaken(f"name={name!r}: a model that ships with dailies has it; choose another name")
        if os.path.lexists(self.folder / name):
            raise NameTaken(
                f"name={name!r}: published in {self.folder} already, and models are immutable; choose another name"
            )

    @contextmanager
    def adding(self, name: str) -> Iterator[Path]:
        """Yield a hidden folder to fill; at the end of the block its lock is written and it becomes the model ``name``.

        If the block raises, nothing is left of it. Raises ``NameTaken``, also when another process was faster. This is not
        ``atomic.new_folder``, which replaces what stands there: a zoo has several writers, and its models never change.
        """
        self.check_free(name)
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._one_process():  # or another could take the new folder for a dead one before it is held
            self._sweep()
            folder = Path(tempfile.mkdtemp(prefix=f"{ADDING}{name}-", dir=self.folder))
            descriptor = _hold(folder)
        try:
            yield folder
            lock.write(folder)
            folder.chmod(0o755)  # mkdtemp made it ours alone
            with self._one_process():
                self.check_free(name)
                folder.rename(self.folder / name)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def _one_process(self) -> AbstractContextManager[None]:
        """Let one process at a time through, for the moment that the block takes."""
        return in_turn(self.folder / ".lock")

    def _sweep(self) -> None:
        """Remove what a killed process left behind: a folder on its way in that nobody holds."""
        for folder in self.folder.glob(f"{ADDING}*"):
            descriptor = _hold(folder)
            if descriptor is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(descriptor)


def _hold(folder: Path) -> int | None:
    """Lock a folder for as long as the descriptor is open; ``None`` if another process does. A kill unlocks it."""
    with suppress(FileNotFoundError, NotADirectoryError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)  # a link is none of ours
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor
    return None
