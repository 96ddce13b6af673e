"""The newest export of a dataset has a name that stays the same: ``exports/latest``, on a disk a link to its neighbour.

``find_export`` also takes the name in a store, which has no links, a dataset in place of an export, and an export by the name
of its step alone.
"""

from __future__ import annotations

import errno

from dailies.curation.errors import Unsafe, UsageError
from dailies.curation.tables.dataset import LATEST, MARKER, DatasetTables, tables_named
from dailies.curation.tables.storage import UNUSABLE, Folder

INDEX = "index.parquet"
NO_LINKS = frozenset(
    {errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EEXIST, errno.EINVAL}
)
"""Of an ``OSError``: a disk has no links, or something else has the name."""


def point_latest(dataset: DatasetTables, export: str) -> None:
    """Have ``exports/latest`` name this export, where the dataset lies on a disk that has links. For the one who writes."""
    folder = dataset.folder / "exports"
    if not folder.local:
        return
    for info in folder.list():
        name = folder.relative(info)
        if name.startswith(f".{LATEST}.") and name.endswith(".tmp"):  # a killed run's
            folder.delete(name)
    try:
        if folder.read_link(LATEST) != export:
            folder.write_link(LATEST, export)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise


def misled(dataset: DatasetTables) -> str | None:
    """Return what is wrong with the link ``exports/latest``, if it leads elsewhere or to no finished export, else ``None``."""
    try:
        target = (dataset.folder / "exports").read_link(LATEST)
    except Unsafe as error:
        return str(error)
    if target is None or target in dataset.exports():
        return None
    return f"names {target}, and there is no such export; the next dailies export {dataset.url} puts that right"


def find_export(url: str) -> str:
    """Return the folder of the export that ``url`` names.

    That is ``url`` itself; of a dataset, the one export that its last run made or found again; of ``DATASET/exports/latest``,
    the newest; of ``DATASET/exports/NAME``, the newest one of this step. What is nothing of the kind is returned as it is.
    Raises ``UsageError`` where there is no such export or, of a dataset, there are several, and ``Unsafe`` where ``latest`` is
    a link to anything but a neighbour.
    """
    if UNUSABLE & {*url}:  # no dataset lies there
        return url
    folder = Folder.at(url)
    parent, _, name = folder.url.rpartition("/")
    base, _, group = parent.rpartition("/")
    base = base or "/"
    if group != "exports" or not Folder.at(base).holds(MARKER):
        return _newest(DatasetTables.open(url), None, only=True) if folder.holds(MARKER) else url
    if "@" in name:
        return url
    dataset = DatasetTables.open(base)  # before looking behind the name, which in a dataset of others may be a link
    exports = dataset.folder / "exports"
    target = exports.read_link(name) if name == LATEST else None
    if target is not None and target in dataset.exports():
        return (exports / target).url
    if target is None and (exports / name).holds(INDEX):  # a copy of a dataset whose links were followed
        return url
    return _newest(dataset, None if name == LATEST else name)


def _newest(dataset: DatasetTables, name: str | None, *, only: bool = False) -> str:
    """Return the newest export, of the step ``name`` if given; ``only``: which is to be the only one of the last run."""
    names = [each for each in dataset.exports_by_age() if name in (None, _step(each))]
    if not names:
        there = ", ".join(sorted({_step(each) for each in dataset.exports()}))
        if name is not None and there:
            raise UsageError(f"{dataset.url}: has no export {name}; allowed: {there}")
        raise UsageError(f"{dataset.url}: has no export yet; dailies export {dataset.url} makes one")
    if only:
        by_table = {f"exports/{each}": each for each in names}
        for tables in reversed(dataset.runs(["tables"])["tables"].to_pylist()):
            if last := sorted({by_table[table] for table in tables_named(tables) if table in by_table}):
                if len(last) > 1:
                    allowed = ", ".join(f"{dataset.url}/exports/{_step(each)}" for each in last)
                    raise UsageError(f"{dataset.url}: its last run came to several exports; name one of {allowed}")
                break
    return (dataset.folder / "exports" / names[-1]).url


def _step(export: str) -> str:
    return export.partition("@")[0]
