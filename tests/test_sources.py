"""What a user names: files, folders, globs, manifests; mistakes are named before work starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dailies.curation.errors import UsageError
from dailies.curation.sources import list_sources


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b.mp4", "a.MOV", "sub/c.webm", "notes.md", ".hidden.mp4", ".cache/d.mp4"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path


def names(*arguments: Any) -> list[str]:
    return [Path(row["uri"]).name for row in list_sources(map(str, arguments))]


def test_a_folder_is_searched_deep_for_videos(tree: Path) -> None:
    assert names(tree) == ["a.MOV", "b.mp4", "c.webm"]


def test_a_glob(tree: Path) -> None:
    assert names(tree / "*.mp4") == ["b.mp4"]
    assert names(tree / "**" / "*.webm") == ["c.webm"]


def test_a_file_named_with_brackets_is_a_file(tree: Path) -> None:
    (tree / "take[1].mp4").write_bytes(b"")
    assert names(tree / "take[1].mp4") == ["take[1].mp4"]


def test_a_source_named_twice_comes_once(tree: Path) -> None:
    assert names(tree, tree / "b.mp4", tree / "*.mp4") == ["a.MOV", "b.mp4", "c.webm"]


def test_ids_follow_the_uri(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    (relative,) = list_sources(["b.mp4"])
    (absolute,) = list_sources([str(tree / "b.mp4")])
    assert relative == absolute


ROWS = [{"video": "b.mp4", "license": "CC-BY", "views": "12"}, {"video": "sub/c.webm", "license": "", "views": "3"}]


def write(folder: Path, kind: str) -> Path:
    path = folder / f"list.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif kind == "csv":
        path.write_text("video,license,views\n" + "".join(f"{','.join(row.values())}\n" for row in ROWS))
    else:
        path.write_text("# two videos\nb.mp4\n\nsub/c.webm\n")
    return path


@pytest.mark.parametrize("kind", ["parquet", "csv", "txt"])
def test_a_manifest_lists_sources_relative_to_itself(tree: Path, kind: str) -> None:
    assert names(write(tree, kind)) == ["b.mp4", "c.webm"]


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_manifests_other_columns_are_carried_through(tree: Path, kind: str) -> None:
    first, second = list_sources([str(write(tree, kind))])
    views = ["12", "3"] if kind == "parquet" else [12, 3]  # a file of text has numbers where all of a column are
    assert json.loads(first["manifest"]) == {"license": "CC-BY", "views": views[0]}
    assert json.loads(second["manifest"])["views"] == views[1]


def test_a_manifest_may_begin_with_a_byte_order_mark(tree: Path) -> None:
    (tree / "bom.csv").write_bytes(b"\xef\xbb\xbfpath,license\nb.mp4,CC0\n")
    assert names(tree / "bom.csv") == ["b.mp4"]


def test_a_manifest_may_name_urls(tree: Path) -> None:
    (tree / "urls.txt").write_text("s3://bucket/one.mp4\n")
    (row,) = list_sources([str(tree / "urls.txt")])
    assert row["uri"] == "s3://bucket/one.mp4"


def test_a_store_behind_fsspec_is_listed() -> None:
    import fsspec

    with fsspec.open("memory://films/one.mp4", "wb") as file:
        file.write(b"x")
    assert [row["uri"] for row in list_sources(["memory://films"])] == ["memory:///films/one.mp4"]


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("nowhere.mp4", "nowhere.mp4: no such file or folder"),
        ("empty", "empty: no video in this folder; looked for .*mp4"),
        ("*.avi", ".avi: no file matches"),
        ("bad.csv", "no path column among a, b; call one of them uri, url, path"),
        ("none.txt", "manifest .*none.txt: has no rows"),
        ("null.csv", "manifest .*null.csv: has no rows with a path"),
        ("s3://bucket/list.csv", "list.csv: a manifest must be a local file"),
        ("bad.parquet", "manifest .*bad.parquet: cannot be read"),
        ("nosuch://x/y.mp4", "nosuch://x/y.mp4: cannot be opened"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, argument: str, said: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    (tmp_path / "null.csv").write_text("path,license\n,CC-BY\n")
    (tmp_path / "none.txt").write_text("# nothing\n")
    (tmp_path / "bad.parquet").write_bytes(b"not parquet")
    named = argument if "://" in argument else str(tmp_path / argument)
    with pytest.raises(UsageError, match=said) as caught:
        list(list_sources([named]))
    assert "\n" not in str(caught.value)


def test_links_in_a_circle_end_and_a_real_folder_is_entered_once(tmp_path: Path) -> None:
    """Two links to the folder above would be walked 2^40 times."""
    (tmp_path / "films" / "sub").mkdir(parents=True)
    (tmp_path / "films" / "sub" / "a.mp4").write_bytes(b"")
    for name in ("up", "again"):
        (tmp_path / "films" / "sub" / name).symlink_to(tmp_path / "films")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.mp4").write_bytes(b"")
    (tmp_path / "films" / "linked").symlink_to(tmp_path / "elsewhere")
    assert names(tmp_path / "films") == ["b.mp4", "a.mp4"]
    (tmp_path / "films" / "sub" / "again").unlink()
    assert sorted(names(tmp_path / "films" / "**" / "*.mp4")) == ["a.mp4", "b.mp4"]
