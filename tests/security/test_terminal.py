"""Names and captions that others made are shown without what a terminal or a spreadsheet would act on."""

from __future__ import annotations

import ast
import csv
import io
import json
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pytest

from dailies.curation.errors import UsageError
from dailies.pipelines.cli import terminal
from dailies.pipelines.cli.progress import _LiveDisplay, show_progress
from dailies.pipelines.cli.progress_line import StageProgress
from dailies.pipelines.cli.rows import print_rows
from dailies.pipelines.cli.tables import grid
from tests.conftest import Dailies

ROOT = Path(__file__).resolve().parents[2]
CLIPBOARD, TITLE, ERASE = "\x1b]52;c;cm0gLXJm\x07", "\x1b]0;you are root\x07", "\x9b2J"
TURNED = "\u202efdp.exe\u2066"
EVIL = f"a{CLIPBOARD}b{TITLE}c{ERASE}d{TURNED}e\rf\x7f\x08g"
SHOWN = "a]52;c;cm0gLXJmb]0;you are rootc2Jdfdp.exeefg"


def test_what_a_terminal_would_act_on_is_taken_out_and_lines_stay() -> None:
    assert terminal.clean(EVIL) == SHOWN
    assert terminal.clean("a\tb\nc é 漢 🎬") == "a\tb\nc é 漢 🎬"
    assert terminal.clean("lone \udcff") == "lone ?"


def test_tables_keep_their_own_colours_and_lose_those_of_data(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    console = terminal.stdout(width=120)
    monkeypatch.setattr(console, "file", out)
    console._force_terminal = True
    table = grid(EVIL)
    table.add_column("name", style="red")
    table.add_row(EVIL)
    console.print(table)
    console.print(EVIL)
    assert out.getvalue().count(SHOWN) == 3
    assert not {"\x07", "\x9b", "\r", "\x08", "\u202e"} & set(out.getvalue())
    assert "\x1b]" not in out.getvalue()


@pytest.mark.parametrize("layout", ["table", "--csv", "--json"])
def test_rows_of_a_query_are_shown_harmless(tmp_path: Path, dailies: Dailies, layout: str) -> None:
    from dailies.curation.tables import DatasetTables

    dataset = DatasetTables.create(str(tmp_path / "dataset")).url
    text = EVIL.replace("'", "''")
    ask = f"select '{text}' as name, '=HYPERLINK(\"http://x\")' as formula, -1 as number, '-1+1' as sum"
    done = dailies("sql", dataset, ask, *([] if layout == "table" else [layout]))
    assert done.returncode == 0, done.stderr
    assert not {"\x1b", "\x07", "\x9b", "\r", "\x08", "\x7f", "\u202e"} & set(done.stdout)
    if layout == "--json":
        assert json.loads(done.stdout)[0]["name"] == EVIL, "escaped, and nothing of it lost"
    if layout == "--csv":
        (row,) = csv.DictReader(io.StringIO(done.stdout))
        assert row == {"name": SHOWN, "formula": '\'=HYPERLINK("http://x")', "number": "-1", "sum": "'-1+1"}


MARKUP = "[link=http://evil]here[/link] [red]x[/nope]"


@pytest.mark.parametrize("name", [MARKUP, "[/nope]", "[bold]"])
def test_no_name_is_markup(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither in a cell nor as a column's name, as any table of others may have."""
    print_rows(pa.table({name: [name]}), "table")
    assert "".join(capsys.readouterr().out.split()).count("".join(name.split())) == 2
    terminal.stderr().print(name)
    assert name in capsys.readouterr().err
    with show_progress("observe", 0, name, already=3) as bar:
        bar.advance()
    assert name in capsys.readouterr().err


def test_a_live_line_takes_no_name_for_a_format(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    console = terminal.stderr()
    monkeypatch.setattr(console, "file", out)
    console._force_terminal = True
    console.width = 200
    display = _LiveDisplay(console)
    for total, unit in ((3, f"{TITLE}[/nope]"), (None, "{task.speed} [link=x]")):
        shown = StageProgress(stage="[red]x[/nope]", total=total, unit=unit, begun=0.0)
        display.open(shown)
        display.close(shown)
    assert "[red]x[/nope" in out.getvalue()
    assert "0;you are root[/nope]" in out.getvalue()
    assert "{task.speed} [link=x]" in out.getvalue()
    assert "\x07" not in out.getvalue()


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_what_programs_read_is_json(number: float, capsys: pytest.CaptureFixture[str]) -> None:
    """Whose readers, but Python's, refuse NaN."""

    def refuse(word: str) -> None:
        raise AssertionError(word)

    terminal.say_json({"a": number, "b": [number, 1.5], "c": ({"d": number},)})
    said = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert said == {"a": None, "b": [None, 1.5], "c": [{"d": None}]}


@pytest.mark.parametrize("layout", ["table", "json", "csv"])
def test_a_time_that_python_has_not_is_one_line(layout: Literal["table", "json", "csv"]) -> None:
    for rows in (pa.array([2**62], pa.timestamp("us")), pa.array([2**31 - 1], pa.date32())):
        with pytest.raises(UsageError, match="cannot be shown"):
            print_rows(pa.table({"when": rows}), layout)


def test_an_error_names_a_file_harmlessly(tmp_path: Path, dailies: Dailies) -> None:
    done = dailies("curate", tmp_path / f"no{CLIPBOARD}.mp4", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "no such file" in done.stderr
    assert "\x1b" not in done.stderr


def test_nothing_is_printed_past_it() -> None:
    """``print`` and rich's own console are called in ``terminal`` alone, or to measure into a string."""
    wrong = []
    for path in sorted((ROOT / "pipelines").rglob("*.py")):
        if path == ROOT / "pipelines" / "cli" / "terminal.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            into_a_string = node.func.id == "Console" and any(word.arg == "file" for word in node.keywords)
            if node.func.id in ("print", "Console") and not into_a_string:
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert wrong == []
