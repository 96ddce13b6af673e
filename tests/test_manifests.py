"""Manifests: each row is read for what it says, and a wrong one is named before any work."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dailies.curation.errors import SourceError, UsageError
from dailies.curation.sources import list_sources
from dailies.curation.table_files import read_rows
from dailies.curation.video import cell_url, content_id


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / name).write_bytes(name.encode() * 3)
    return tmp_path


def written(folder: Path, content: str | list[dict[str, Any]], name: str = "list.csv") -> str:
    if isinstance(content, str):
        (folder / name).write_text(content)
    else:
        name = "list.parquet"
        pq.write_table(pa.Table.from_pylist(content), folder / name, row_group_size=2)
    return str(folder / name)


def columns(*arguments: str, **options: Any) -> list[tuple[str, Any]]:
    """File and manifest of each source."""
    rows = list_sources(arguments, **options)
    return [(Path(row["uri"]).name, row["manifest"] and json.loads(row["manifest"])) for row in rows]


# ---- types ----------------------------------------------------------------------------------------------------------


def test_a_column_of_numbers_is_numbers_and_an_empty_cell_is_null(folder: Path) -> None:
    """One word, wherever it stands, makes a column text; so do zeros in front, which names have."""
    text = "path,score,views,code,late\na.mp4,0.9,12,007,1\nb.mp4,,3,010,2\nc.mp4,1e-3,,,x\n"
    assert columns(written(folder, text)) == [
        ("a.mp4", {"score": 0.9, "views": 12, "code": "007", "late": "1"}),
        ("b.mp4", {"score": None, "views": 3, "code": "010", "late": "2"}),
        ("c.mp4", {"score": 0.001, "views": None, "code": None, "late": "x"}),
    ]
    assert isinstance(columns(str(folder / "list.csv"))[0][1]["views"], int)


def test_ids_with_more_digits_than_a_number_holds_stay_apart(folder: Path) -> None:
    text = "path,id\na.mp4,7234567890123456789\nb.mp4,7234567890123456790\nc.mp4,12\n"
    assert [row["id"] for _, row in columns(written(folder, text))] == [
        "7234567890123456789",
        "7234567890123456790",
        "12",
    ]


def test_not_a_number_is_a_null_in_json(folder: Path) -> None:
    (row, _) = list_sources([written(folder, [{"path": "a.mp4", "x": float("nan")}, {"path": "b.mp4", "x": 1.0}])])
    assert row["manifest"] == '{"x": null}'


def test_tabs_and_json_lines_are_read(folder: Path) -> None:
    assert columns(written(folder, "path\ttext\na.mp4\tone, two\n", "list.tsv")) == [("a.mp4", {"text": "one, two"})]
    text = '{"video": "a.mp4", "score": 1}\n\n{"video": "b.mp4", "tags": ["x"]}\n'
    assert columns(written(folder, text, "list.jsonl")) == [("a.mp4", {"score": 1}), ("b.mp4", {"tags": ["x"]})]


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps({"path": f"{name}.mp4", **row}) + "\n" for name, row in zip("abc", rows, strict=False))


@pytest.mark.parametrize(
    ("cells", "read"),
    [
        ((1, 2.5, None), (1.0, 2.5, None)),
        ((None, 2, 1), (None, 2, 1)),
        ((1, 2.5, "x"), ("1", "2.5", "x")),
        (("x", None, 3), ("x", None, "3")),
        (("007", 7, None), ("007", "7", None)),
        ((1, 2**63, 2**64), ("1", str(2**63), str(2**64))),
        ((2**63 - 1, -(2**63), 0), (2**63 - 1, -(2**63), 0)),
        ((True, None, False), (True, None, False)),
        (([1, None], [], [2.5]), ([1.0, None], [], [2.5])),
        (({"a": 1}, {"a": "x"}, {}), ({"a": "1"}, {"a": "x"}, {})),
        (({"a": [{"b": 1}]}, None, {"a": [{"b": 0.5}]}), ({"a": [{"b": 1.0}]}, None, {"a": [{"b": 0.5}]})),
    ],
)  # fmt: skip
def test_a_column_of_json_lines_has_one_type(folder: Path, cells: tuple[Any, ...], read: tuple[Any, ...]) -> None:
    """Whichever row comes first."""
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        rows = columns(written(folder, lines(*({"x": cells[number]} for number in order)), "list.jsonl"))
        found = [row["x"] for _, row in rows]
        assert repr(found) == repr([read[number] for number in order])  # 1 == 1.0, and True == 1


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (1, True, r"x=true: is true or false, where row 1 \(line 1\) has a whole number"),
        ("x", False, r"x=false: is true or false, where row 1 \(line 1\) has text"),
        ([1], "x", r'x="x": is text, where row 1 \(line 1\) has a list'),
        ({"a": 1}, 2.5, r"x=2.5: is a number, where row 1 \(line 1\) has an object"),
        ({"a": [1]}, {"a": [{"b": 1}]}, r'x.a\[\]={"b": 1}: is an object, where row 1 \(line 1\) has a whole number'),
    ],
)
def test_a_cell_of_json_lines_that_no_type_takes_in_is_named(folder: Path, first: Any, second: Any, said: str) -> None:
    """The row without one in between is passed over."""
    manifest = written(folder, lines({"x": first}, {}, {"x": second}), "list.jsonl")
    with pytest.raises(
        UsageError, match=rf"^manifest .*list.jsonl: row 3 \(line 3\): {said}; give all of them one type"
    ):
        list(list_sources([manifest]))


def test_a_long_cell_is_read(folder: Path) -> None:
    assert columns(written(folder, f'path,text\na.mp4,"{"y" * 200_000}"\n'))[0][1]["text"] == "y" * 200_000


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        ("path,text\na.mp4,x\nb.mp4,a ball, left, on grass\n", "l.csv", r"row 2 \(line 3\): has 4 cells.*header has 2"),
        ('path,text\na.mp4,"x\ny"\nb.mp4,"z\n', "l.csv", r"row 2 \(line 4\): unexpected end of data; check its double"),
        ("path,a,a\na.mp4,1,2\n", "l.csv", "two columns are named 'a'"),
        ('{"path": "a.mp4"}\n{"path"\n', "l.jsonl", r"row 2 \(line 2\): is not JSON"),
        ('{"path": "a.mp4", "x": 1, "x": 2}\n', "l.jsonl", r"row 1 \(line 1\): 'x' stands twice in an object"),
        ('{"path": "a.mp4"}\n["b.mp4"]\n', "l.jsonl", r"row 2 \(line 2\): is no object"),
        ("path,split\na.mp4,val\nb.mp4,holdout\n", "l.csv", r"row 2 \(line 3\): split=holdout: no such split.*dev"),
        ("path,start,end\na.mp4,0,1\na.mp4,2,1\n", "l.csv", r"row 2 \(line 3\): end=1: must be after start=2"),
        ("path,start,end\na.mp4,1,1\n", "l.csv", r"row 1 \(line 2\): end=1: must be after start=1"),
        ("path,start,end\na.mp4,-1,1\n", "l.csv", r"row 1 \(line 2\): start=-1: before the video begins"),
        ("path,start,end\na.mp4,nan,1\n", "l.csv", r"row 1 \(line 2\): start=nan: is no time"),
        ("path,start,end\na.mp4,0,inf\n", "l.csv", r"row 1 \(line 2\): end=inf: is no time"),
        ("path,start,end\na.mp4,soon,1\n", "l.csv", r"row 1 \(line 2\): start='soon': is no time; write seconds"),
        ("path,start,end\na.mp4,1,\n", "l.csv", r"row 1 \(line 2\): end: is empty; a span needs start and end"),
        ("path,text\na.mp4,x\nb.mp4,y\na.mp4,z\n", "l.csv", r"row 3 \(line 4\): names a.mp4 again, it as a whole.*row 1"),
        ("path,start,end,text\na.mp4,0,1,x\na.mp4,0,1,y\n", "l.csv", r"row 2 \(line 3\): names a.mp4 again, the same span"),
    ],
)  # fmt: skip
def test_a_wrong_row_is_named(folder: Path, text: str, name: str, said: str) -> None:
    with pytest.raises(UsageError, match=rf"^manifest .*{name}: {said}") as caught:
        list(list_sources([written(folder, text, name)]))
    assert "\n" not in str(caught.value)


def test_decimals_of_parquet_are_numbers(folder: Path) -> None:
    rows = [
        {"path": "a.mp4", "rating": Decimal("3.50"), "views": Decimal(7)},
        {"path": "b.mp4", "rating": None, "views": Decimal(10)},
    ]
    assert repr([row for _, row in columns(written(folder, rows))]) == repr(
        [{"rating": 3.5, "views": 7}, {"rating": None, "views": 10}]
    )


def test_two_columns_of_one_name_are_refused_in_parquet_too(folder: Path) -> None:
    table = pa.table([pa.array(["a.mp4"]), pa.array([1]), pa.array([2])], names=["path", "x", "x"])
    pq.write_table(table, folder / "list.parquet")
    with pytest.raises(UsageError, match=r"list\.parquet: two columns are named 'x'; rename one"):
        list(list_sources([str(folder / "list.parquet")]))


# ---- which column ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("url", "path"), ("path", "url")])
def test_the_file_is_taken_and_not_the_page_that_it_came_from(
    folder: Path, names: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    values = {"url": "https://example.org/watch?v=aaaa", "path": "a.mp4"}
    manifest = written(folder, [{name: values[name] for name in names}])
    assert columns(manifest) == [("a.mp4", {"url": values["url"]})]
    assert "videos are taken from column 'path', not from url; --column chooses" in caplog.text


def test_of_two_columns_that_name_videos_the_first_known_is_taken_or_the_one_asked_for(folder: Path) -> None:
    manifest = written(folder, "path,uri,clean\na.mp4,b.mp4,c.mp4\n")
    assert columns(manifest)[0][0] == "b.mp4"
    assert columns(manifest, column="path")[0][0] == "a.mp4"
    assert columns(manifest, column="clean")[0] == ("c.mp4", {"path": "a.mp4", "uri": "b.mp4"})
    with pytest.raises(UsageError, match=r"--column=clena: no such column.*did you mean clean\?"):
        columns(manifest, column="clena")


# ---- spans ----------------------------------------------------------------------------------------------------------


def test_rows_of_one_video_are_its_spans_and_each_has_its_own_columns(folder: Path) -> None:
    text = "path,start,end,text\na.mp4,1.5,0:00:03.25,two\nb.mp4,,,whole\na.mp4,0,1.5,one\na.mp4,1:00,01:01:00,far\n"
    a, b = list_sources([written(folder, text)])
    assert a["spans"] == [
        {"start": 0.0, "end": 1.5, "manifest": '{"text": "one"}'},
        {"start": 1.5, "end": 3.25, "manifest": '{"text": "two"}'},
        {"start": 60.0, "end": 3660.0, "manifest": '{"text": "far"}'},
    ]
    assert (a["whole"], a["manifest"]) == (False, None)
    assert (b["whole"], b["manifest"], b["spans"]) == (True, '{"text": "whole"}', [])


def test_a_video_may_be_named_as_a_whole_and_by_spans(folder: Path) -> None:
    manifest = written(folder, "path,start,end,text\na.mp4,0,1,one\na.mp4,,,all\n")
    (a,) = list_sources([manifest])
    assert (a["whole"], a["manifest"], len(a["spans"])) == (True, '{"text": "all"}', 1)
    (a, *_) = list_sources([manifest, str(folder)])
    assert (a["whole"], a["manifest"]) == (True, '{"text": "all"}')  # a folder takes no columns away


def test_columns_count_wherever_a_video_was_named_before(folder: Path) -> None:
    manifest = written(folder, "path,text\na.mp4,x\na.mp4,x\n")
    assert columns(str(folder / "a.mp4"), manifest, manifest) == [("a.mp4", {"text": "x"})]


def test_a_start_alone_is_a_column_like_any_other(folder: Path) -> None:
    assert columns(written(folder, "path,start\na.mp4,5\n")) == [("a.mp4", {"start": 5})]


# ---- videos in cells ------------------------------------------------------------------------------------------------


def test_hugging_faces_paths_are_files(folder: Path) -> None:
    assert columns(written(folder, [{"video": {"bytes": None, "path": "a.mp4"}, "text": "x"}])) == [
        ("a.mp4", {"text": "x"})
    ]


def test_hugging_faces_bytes_are_sources_that_any_process_can_open(folder: Path) -> None:
    """Groups of two rows with bytes in all, none and some: each row is told apart, and read in whatever order."""
    data = [b"one", b"two two", None, None, None, b"six", b"seven"]
    rows = [
        {"video": {"bytes": value, "path": "a.mp4" if n == 2 else "b.mp4" if value is None else f"{n}.mp4"}, "n": n}
        for n, value in enumerate(data)
        if n not in (3,)
    ]
    manifest = written(folder, rows[:2] + rows[2:3] + rows[4:])
    listed = {json.loads(row["manifest"])["n"]: row for row in list_sources([manifest])}
    assert [Path(listed[2]["uri"]).name] == ["a.mp4"]
    assert json.loads(listed[0]["manifest"]) == {"n": 0, "video": "0.mp4"}
    cells = {n: listed[n]["uri"] for n in (0, 1, 5, 6)}
    assert cells[6] == cell_url(manifest, "video", 4)
    for n in (6, 0, 5, 1, 1, 0, 6):
        (folder / "same").write_bytes(data[n] or b"")
        assert content_id(cells[n]) == content_id(str(folder / "same"))


def test_bytes_without_a_struct_are_sources_too_and_a_null_is_none(folder: Path) -> None:
    manifest = written(folder, [{"Video": b"x", "n": 1}, {"Video": None, "n": 2}, {"Video": b"y", "n": 3}])
    assert [json.loads(row["manifest"])["n"] for row in list_sources([manifest])] == [1, 3]


@pytest.mark.parametrize(
    ("column", "row", "said"),
    [("video", 9, "has 2 rows, and no row 9"), ("video", 1, "row 1 .* is null"), ("film", 0, "has no column 'film'")],
)
def test_a_cell_that_is_not_there_is_unreadable(folder: Path, column: str, row: int, said: str) -> None:
    manifest = written(folder, [{"video": b"x"}, {"video": None}])
    with pytest.raises(SourceError, match=said):
        content_id(cell_url(manifest, column, row))


def test_reading_a_manifest_reads_no_videos(folder: Path) -> None:
    """The length that stands before the bytes is spoilt, which whoever reads them trips over."""
    blob = bytes(range(256)) * 400
    path = folder / "list.parquet"
    pq.write_table(
        pa.table({"text": ["x"], "video": [{"bytes": blob, "path": "v.mp4"}]}),
        path,
        compression="none",
        use_dictionary=False,
    )
    raw = path.read_bytes()
    at = raw.index(blob[:64])
    path.write_bytes(raw[: at - 4] + b"\xff" * 4 + raw[at:])
    assert [row.values["text"] for row in read_rows(path)] == ["x"]
    with pytest.raises(SourceError):
        content_id(cell_url(str(path), "video", 0))
