"""``dailies sql``: joins without ambiguity, manifests as columns, whole messages, and rows that suit what they go to."""

from __future__ import annotations

import io
import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dailies.curation import schema
from dailies.curation.errors import QueryError
from dailies.curation.tables import DatasetTables, connect, query, sql
from dailies.pipelines.cli import rows as printing
from tests.conftest import Dailies
from tests.dataset_builder import CAPTIONS, CLIPS, EXPORT, SCORES, SELECTION, fill

ID = "0123456789abcdef01234567"
SIMILARITY = schema.field("clip_similarity", pa.float64(), "of frame and caption", "-1 to 1")
TEXT = [schema.field("text", pa.string(), "what is seen"), schema.field("tokens", pa.int32(), "its length")]
MANIFESTS = [
    {"license": "CC0", "rating": 3, "split": "val", "License": "x", "fps": "25", "tags": ["a", "b"], "": "empty"},
    {"license": "CC-BY", "rating": 4.5, "score": "0.5", "fps": 24, "motion": "fast"},
    None,
]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> DatasetTables:
    """Two captioners, two scorers of one kind, a selection and an export, of clips of which some have a manifest."""
    dataset = DatasetTables.create(tmp_path_factory.mktemp("sql") / "dataset")
    fill(dataset, ["a", "b"])
    clips = [{"clip_id": f"m-{n}", "source_id": "m", "status": "ok"} for n in range(3)]
    told = [json.dumps(row) if row else None for row in MANIFESTS]
    dataset.table(CLIPS).append([clip | {"manifest": text} for clip, text in zip(clips, told, strict=True)])
    ids = [{"clip_id": "a-0", "source_id": "a", "status": "ok"}]
    dataset.table("captions/fuse@1", schema.scores(TEXT)).append([ids[0] | {"text": "a circle", "tokens": 2}])
    for name in ("clip", "clip_large"):
        dataset.table(f"scores/{name}@1", schema.scores([SIMILARITY])).append([ids[0] | {"clip_similarity": 0.5}])
    recipe = {"steps": [{"score": {"scorer": "clip"}}, {"score": {"scorer": {"clip": {}}, "name": "clip_large"}}]}
    dataset.table("runs").append([{"run_id": "r2", "recipe": json.dumps(recipe), "tables": "{}", "number": 1}])
    return dataset


# ---- joins ----------------------------------------------------------------------------------------------------------


def test_views_joined_by_clip_share_no_other_column(dataset: DatasetTables) -> None:
    with connect(dataset) as connection:
        listed = connection.execute("select table_name, column_name from duckdb_columns() where schema_name = 'main'")
        views: dict[str, set[str]] = {}
        for view, column in listed.fetchall():
            if "@" not in view and "/" not in view:
                views.setdefault(view, set()).add(column.lower())
    joined = {view: columns for view, columns in views.items() if "clip_id" in columns}
    assert {"clips", "manifest", "scores_motion", "scores_clip", "scores_clip_large", "captions_coca"} < set(joined)
    assert {"captions_fuse", "selection_main", "export_main"} < set(joined)
    shared = {(one, two): joined[one] & joined[two] - {"clip_id"} for one, two in combinations(sorted(joined), 2)}
    # A scorer of the builder writes ``motion``, which clips have; the recipe's checks refuse such a one.
    shared["clips", "scores_motion"].discard("motion")
    assert {pair: columns for pair, columns in shared.items() if columns} == {}


def test_a_join_of_everything_is_not_ambiguous(dataset: DatasetTables) -> None:
    statement = """
        select split, source_id, status, keep, caption_coca, caption_fuse, clip_similarity, clip_large_clip_similarity,
            exported_split, shard from clips join selection_main using (clip_id) join export_main using (clip_id)
            join captions_coca using (clip_id) join captions_fuse using (clip_id) join scores_clip using (clip_id)
            join scores_clip_large using (clip_id) join manifest using (clip_id)
    """
    (row,) = query(dataset, statement).to_pylist()
    assert (row["split"], row["source_id"], row["status"], row["exported_split"]) == ("train", "a", "ok", "train")
    assert (row["caption_coca"], row["caption_fuse"]) == ("a square", "a circle")


def test_by_its_full_name_a_table_is_as_stored(dataset: DatasetTables) -> None:
    for name, there in ((SCORES, "status"), (CAPTIONS, "text"), (SELECTION, "split"), (f"exports/{EXPORT}", "split")):
        assert there in query(dataset, f'select * from "{name}" limit 0').column_names


# ---- manifests ------------------------------------------------------------------------------------------------------


def test_manifests_are_columns_with_types(dataset: DatasetTables) -> None:
    rows = query(dataset, "select * from manifest where clip_id like 'm-%' order by clip_id")
    assert rows.schema.field("rating").type == pa.float64()
    assert rows["rating"].to_pylist() == [3.0, 4.5, None]
    assert rows["license"].to_pylist() == ["CC0", "CC-BY", None]
    assert rows["tags"].to_pylist() == [["a", "b"], None, None]
    assert rows["manifest_split"].to_pylist() == ["val", None, None], "clips have a split"
    assert rows["manifest_fps"].to_pylist() == [25.0, 24.0, None], "text beside numbers, as rules read it"
    assert rows["manifest_License"].to_pylist() == ["x", None, None], "SQL does not tell it from license"
    assert rows["manifest_motion"].to_pylist() == [None, "fast", None], "which clips have by an observer"
    assert rows["manifest_"].to_pylist() == ["empty", None, None]


def test_a_manifests_column_is_called_as_in_rules(dataset: DatasetTables) -> None:
    asked = (
        "select manifest.license, count(*) as n from clips join manifest using (clip_id) where rating > 4 group by 1"
    )
    assert query(dataset, asked).to_pylist() == [{"license": "CC-BY", "n": 1}]


def test_a_dataset_without_clips_has_no_manifests(tmp_path: Path) -> None:
    assert query(DatasetTables.create(tmp_path / "new"), "show tables").num_rows == 0


# ---- messages -------------------------------------------------------------------------------------------------------


def refused(dataset: DatasetTables, statement: str) -> list[str]:
    with pytest.raises(QueryError) as caught:
        query(dataset, statement)
    return str(caught.value).splitlines()


def test_the_whole_message_is_shown_with_its_place(dataset: DatasetTables, dailies: Dailies) -> None:
    done = dailies("sql", dataset.url, "select\n cast('abc' as int)")
    assert done.returncode == 2
    first, line, caret = done.stderr.splitlines()
    assert first == "dailies: Conversion Error: Could not convert string 'abc' to INT32"
    assert line.startswith("  LINE 2:")
    assert caret.index("^") == line.index("cast"), "under what it is about"
    assert done.stdout == ""


def test_an_unknown_view_names_those_there_are(dataset: DatasetTables) -> None:
    text = "\n".join(refused(dataset, "select * from clip"))
    assert 'Did you mean "clips"' in text
    assert "views: captions_coca, captions_fuse, clips, export_main, manifest, observations, runs, scores_clip," in text


def test_an_unknown_column_names_those_there_are_and_where_it_is(dataset: DatasetTables) -> None:
    lines = refused(dataset, "select keep from scores_clip")
    assert "columns of scores_clip: clip_id, clip_status, clip_failure, clip_failed_version, clip_similarity" in lines
    assert "keep is a column of selection_main: join selection_main using (clip_id)" in lines
    assert not any(line.startswith("columns of clips") for line in lines), "which the statement does not name"
    assert "license is a column of manifest: join manifest using (clip_id)" in refused(
        dataset, "select license from clips"
    )


def test_a_message_is_harmless_and_names_no_place_that_was_not_typed(
    dataset: DatasetTables, dailies: Dailies, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = "IO Error: cannot write /var/folders/secret-17/spill.tmp\n\x1b]0;title\x07dailies: all is well"
    real = sql._fetched

    def fails(*arguments: Any) -> Any:
        import duckdb

        real(*arguments)
        raise duckdb.IOException(told)

    monkeypatch.setattr(sql, "_fetched", fails)
    done = dailies("sql", dataset.url, "select 1")
    assert done.stderr.splitlines() == [
        "dailies: IO Error: cannot write (a place on this machine)",
        "  ]0;titledailies: all is well",
    ]
    assert (
        "/var/folders/secret-17/spill.tmp"
        in dailies("sql", dataset.url, "select '/var/folders/secret-17/spill.tmp'").stderr
    )


def test_json_and_csv_exclude_each_other_before_any_work(dailies: Dailies) -> None:
    done = dailies("sql", "nowhere", "select 1", "--json", "--csv")
    assert (done.returncode, done.stderr.splitlines()) == (2, ["dailies: --json, --csv: two formats; give one"])


@pytest.mark.parametrize("layout", ["table", "csv"])
def test_two_columns_of_one_name_are_both_shown(layout: Any, capsys: pytest.CaptureFixture[str]) -> None:
    printing.print_rows(pa.table([[1], [2]], names=["n", "n"]), layout)
    assert re.search(r"n\W+n\s[\W]*1\W+2", capsys.readouterr().out)


# ---- layout ---------------------------------------------------------------------------------------------------------


def printed(monkeypatch: pytest.MonkeyPatch, rows: pa.Table, width: int | None) -> list[str]:
    """Return the lines that a terminal of ``width`` columns, or a pipe, gets."""
    out = io.StringIO()
    monkeypatch.setattr("sys.stdout", out)
    real = printing.stdout

    def console(wide: int | None = None, *, data: bool = False) -> Any:
        made = real(wide or width, data=data)
        made._force_terminal = width is not None
        made.no_color = True
        return made

    monkeypatch.setattr(printing, "stdout", console)
    printing.print_rows(rows, "table")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())
    return [line.rstrip() for line in plain.splitlines() if line.strip()]


def table(count: int, **columns: Any) -> pa.Table:
    return pa.table({name: [value] * count for name, value in columns.items()})


CAPTION = "a small black ring and a large cyan triangle over a cloudy mauve background, nothing moves"


def test_texts_are_wrapped_and_ids_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(monkeypatch, table(2, clip_id=ID, caption=CAPTION, source_id=ID), 80)
    assert sum(line.count(ID) for line in lines) == 4
    assert max(map(len, lines)) <= 80
    words = " ".join(line.replace(ID, "") for line in lines[2:-1]).split()
    assert words == CAPTION.split() * 2, "broken at spaces alone"
    assert lines[-1] == "2 rows"


def test_a_few_wide_rows_are_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = {f"id_{n}": ID for n in range(6)}
    lines = printed(monkeypatch, table(1, **wide, uri="/videos/" + "x" * 100), 80)
    assert lines[0].startswith("row 1 of 1 ──")
    assert lines[1] == f"id_0  {ID}"
    assert lines[7] == "uri   /videos/" + "x" * 100, "whole, so that it can be copied"
    assert lines[-1] == "1 row"


def test_of_many_wide_rows_columns_are_chosen_and_the_others_named(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = table(20, clip_id=ID, source_id=ID, content_id=ID, uri="/videos/" + "x" * 60, seconds=2.5, keep=True)
    lines = printed(monkeypatch, rows, 80)
    assert lines[0].split() == ["clip_id", "source_id", "seconds", "keep"], "short ones go before ids and paths"
    assert sum(line.count(ID) for line in lines) == 40
    assert lines[-2] == "20 rows"
    assert lines[-1].startswith("too wide for this terminal, so left out: content_id, uri;")


def test_a_terminal_says_how_many_rows_it_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(monkeypatch, table(1234, n=7), 80)
    assert len(lines) == 2 + printing.MOST_ROWS + 1
    assert lines[-1] == "1,234 rows, the first 50 shown; a pipe, --json or --csv has all"


def test_a_pipe_gets_all_on_one_line_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = table(60, clip_id=ID, caption=CAPTION * 20, note="two\nlines", **{f"id_{n}": ID for n in range(9)})
    lines = printed(monkeypatch, rows, None)
    assert len(lines) == 2 + 60 + 1
    assert all(line.count(ID) == 10 and CAPTION * 20 in line and "two⏎lines" in line for line in lines[2:-1])
    assert lines[-1] == "60 rows"


def test_lists_and_structs_are_short_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {
        "pts": list(range(250)),
        "failure": {"kind": "broken", "message": None},
        "tracks": [{"name": "a", "jpeg": b"1234"}] * 3,
        "none": None,
    }
    (line,) = printed(monkeypatch, pa.Table.from_pylist([row]), None)[2:-1]
    assert "[0, 1, 2, … 250 in all]" in line
    assert "{kind: broken, message: –}" in line
    assert "[{name: a, jpeg: <4 bytes>}, … 3 in all]" in line


def test_a_long_text_says_how_long_it_is_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(monkeypatch, table(1, recipe="x" * 5000), 80)
    assert lines[1] == "recipe  " + "x" * 400 + "… 5,000 characters in all"
