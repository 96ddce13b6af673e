"""Publishing a staging folder, on a disk and on an object store, which cannot rename one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from dailies.curation.tables import Folder

FILES = ("data/a.parquet", "data/b.parquet", "cuts/0.parquet", "index/a.parquet", "README.md", "index.parquet")
PUBLISHED = ["README.md", "data/a.parquet", "data/b.parquet", "index.parquet"]


def staged(root: Path, *, local: bool) -> tuple[Folder, Folder]:
    """A staging folder with a file that a killed run was writing, and where it goes."""
    staging, final = (dataclasses.replace(Folder.at(root / name), local=local) for name in (".staging-x", "x"))
    for name in (*FILES, "data/.a.parquet.7.tmp"):
        path = Path(staging.file(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    if not local:  # in a store, a file needs no folder
        (root / "x" / "data").mkdir(parents=True)
    return staging, final


def publish(staging: Folder, final: Folder) -> None:
    staging.publish(final, without=("cuts", "index"), last=("README.md", "index.parquet"))


@pytest.mark.parametrize("local", [True, False], ids=["disk", "object store"])
def test_all_but_intermediate_results_is_published(tmp_path: Path, local: bool) -> None:
    publish(*staged(tmp_path, local=local))
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    files = [path for path in (tmp_path / "x").rglob("*") if path.is_file()]
    assert sorted(path.relative_to(tmp_path / "x").as_posix() for path in files) == PUBLISHED
    assert all(path.read_text() == path.relative_to(tmp_path / "x").as_posix() for path in files)


@pytest.mark.parametrize("moves", range(len(PUBLISHED)))
def test_on_an_object_store_the_index_is_the_last_file_and_a_killed_move_is_repeated(
    moves: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging, final = staged(tmp_path, local=False)
    moved: list[str] = []

    class Killed(BaseException):
        pass

    class Store:
        """A file system that dies after ``moves`` files."""

        def __getattr__(self, name: str) -> object:
            return getattr(staging.fs, name)

        def move(self, source: str, target: str) -> None:
            if len(moved) == moves:
                raise Killed
            moved.append(target)
            staging.fs.move(source, target)

    with pytest.raises(Killed):
        publish(dataclasses.replace(staging, fs=Store()), final)
    assert not final.holds("index.parquet")
    assert (staging / "cuts").holds("0.parquet")  # so that the run that goes on computes nothing again
    publish(staging, final)
    assert sorted(info.path[len(final.path) + 1 :] for info in final.list(recursive=True) if info.is_file) == PUBLISHED
