"""``exports/latest`` names the newest export, and commands take a dataset, or an export by its step, in its place."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dailies.curation import inside, schema
from dailies.curation.errors import ExportError, Unsafe, UsageError
from dailies.curation.tables import DatasetTables, find_export, misled, point_latest
from dailies.pipelines.maintenance import verify_dataset
from dailies.pipelines.train import _exports
from tests.dataset_builder import EXPORT, clips_of, export, fill
from tests.s3_server import s3_server

SECOND, OTHER = "main@22222222", "small@33333333"


def record(dataset: DatasetTables, number: int, **exports: str) -> None:
    """A run that came to these exports, by step."""
    tables = {f"export.{step}": f"exports/{name}" for step, name in exports.items()}
    row = {**schema.empty_row(schema.RUNS), "run_id": f"n{number}", "number": number, "tables": json.dumps(tables)}
    dataset.table("runs", schema.RUNS).append([row])


@pytest.fixture
def dataset(tmp_path: Path) -> DatasetTables:
    """Three exports, of which ``SECOND`` is the newest and the only one of the last run."""
    made = DatasetTables.create(tmp_path / "data")
    fill(made, ["a"])
    for name in (SECOND, OTHER):
        export(made.folder / "exports" / name, clips_of("a"))
    record(made, 5, small=OTHER)
    record(made, 6, main=SECOND)
    return made


def test_the_link_names_the_newest_export_and_is_no_export_itself(dataset: DatasetTables) -> None:
    link = Path(dataset.url, "exports", "latest")
    for name in (EXPORT, SECOND, SECOND):
        point_latest(dataset, name)
        assert os.readlink(link) == name, "relative, so that a dataset can be moved"
        assert (link / "index.parquet").is_file()
    assert dataset.exports() == sorted([EXPORT, SECOND, OTHER])
    assert not misled(dataset)
    assert [problem for problem in verify_dataset(dataset.url, deep=False) if "latest" in str(problem)] == []
    dataset.gc()
    dataset.withdraw(["a"])
    assert os.readlink(link) == SECOND
    assert [path.name for path in link.parent.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("", SECOND),
        ("exports/latest", SECOND),
        ("exports/main", SECOND),
        ("exports/small", OTHER),
        (f"exports/{EXPORT}", EXPORT),
    ],
)
@pytest.mark.parametrize("linked", [True, False])
def test_an_export_is_found_by_its_dataset_and_by_its_step(
    name: str, wanted: str, linked: bool, dataset: DatasetTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the link, and without, as in a store."""
    if linked:
        point_latest(dataset, SECOND)
    monkeypatch.chdir(Path(dataset.url).parent)
    for url in (f"data/{name}", f"{dataset.url}/{name}".rstrip("/")):
        assert Path(find_export(url)).resolve() == Path(dataset.url, "exports", wanted)
        assert _exports([f"more={url}"]) == {"more": f"{dataset.url}/exports/{wanted}"}


def test_of_several_exports_of_one_run_one_is_to_be_named(dataset: DatasetTables) -> None:
    record(dataset, 7, main=SECOND, small=OTHER)
    with pytest.raises(UsageError, match=r"several exports; name one of .*/exports/main, .*/exports/small"):
        find_export(dataset.url)
    assert find_export(f"{dataset.url}/exports/small").endswith(OTHER)


def test_an_export_that_is_not_there_is_refused_by_name(dataset: DatasetTables, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no export mian; allowed: main, small"):
        find_export(f"{dataset.url}/exports/mian")
    empty = DatasetTables.create(tmp_path / "empty")
    for name in ("", "/exports/latest"):
        with pytest.raises(UsageError, match="has no export yet; dailies export"):
            find_export(empty.url + name)
    assert find_export(f"{tmp_path}/elsewhere") == f"{tmp_path}/elsewhere"
    with pytest.raises(ExportError, match="elsewhere: no such folder; give one that dailies export made"):
        _exports([f"{tmp_path}/elsewhere"])
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(
        ExportError, match=r"elsewhere: .*holds no index\.parquet; give a folder that dailies export made"
    ):
        _exports([f"{tmp_path}/elsewhere"])


def lead(target: str) -> Callable[[Path], None]:
    return lambda exports: (exports / "latest").symlink_to(target)


def folder(exports: Path) -> None:
    (exports / "latest").mkdir()
    (exports / "latest" / "mine").write_text("mine")


@pytest.mark.parametrize("target", ["/etc", "../../elsewhere", "../../theirs", "..", "main@1/../..", "."])
def test_a_link_that_leads_elsewhere_is_never_followed(target: str, dataset: DatasetTables) -> None:
    """Nor where what lies there is a dataset, this one or another."""
    fill(DatasetTables.create(Path(dataset.url).parent / "theirs"), ["a"])
    exports = Path(dataset.url, "exports")
    (exports / "latest").symlink_to(target)
    with pytest.raises(Unsafe, match="does not lie beside it"):
        find_export(f"{exports}/latest")
    assert "does not lie beside it" in str(misled(dataset))
    assert "latest" not in dataset.exports()


def test_a_link_to_what_is_gone_is_told_and_mended(dataset: DatasetTables) -> None:
    (Path(dataset.url, "exports", "latest")).symlink_to("main@gone")
    assert find_export(f"{dataset.url}/exports/latest").endswith(SECOND)
    assert "there is no such export" in str(misled(dataset))
    point_latest(dataset, SECOND)
    assert misled(dataset) is None


def test_what_a_user_has_put_there_stays(dataset: DatasetTables) -> None:
    folder(Path(dataset.url, "exports"))
    point_latest(dataset, SECOND)
    assert Path(dataset.url, "exports", "latest", "mine").read_text() == "mine"
    assert find_export(f"{dataset.url}/exports/latest").endswith(SECOND)


def test_a_link_is_replaced_in_one_go(dataset: DatasetTables, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill before the last step leaves the link as it was, and the next call takes what it left away."""
    point_latest(dataset, EXPORT)

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(inside.os, "replace", killed)
        patch.setattr(inside.os, "unlink", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            point_latest(dataset, SECOND)
    exports = Path(dataset.url, "exports")
    assert os.readlink(exports / "latest") == EXPORT
    assert [path.name for path in exports.iterdir() if path.name.startswith(".latest")]
    point_latest(dataset, SECOND)
    assert os.readlink(exports / "latest") == SECOND
    assert not [path.name for path in exports.iterdir() if path.name.startswith(".latest")]


def test_in_a_store_the_name_is_understood_without_a_link() -> None:
    pytest.importorskip("moto.server", reason="needs moto[s3] and flask: a real S3 server")
    with s3_server("store") as url:
        dataset = DatasetTables.create(f"{url}/data")
        fill(dataset, ["a"])
        point_latest(dataset, EXPORT)
        assert find_export(f"{url}/data/exports/latest") == f"{url}/data/exports/{EXPORT}"
        assert find_export(f"{url}/data") == f"{url}/data/exports/{EXPORT}"
        assert dataset.exports() == [EXPORT]
