"""What commands print: lengths, shares, counts and paths, and the figures of plans."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from dailies.curation.progress import time_spent
from dailies.pipelines.cli import plan_tables, tables


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (tables.share(1, 3), "33%"), (tables.share(0, 5), "0%"), (tables.share(0, 0), "–"),
        (tables.counted(0, "row"), "0 rows"), (tables.counted(1, "row"), "1 row"), (tables.counted(1200, "row"), "1,200 rows"),
        (tables.length(0.04), "0.0 s"), (tables.length(119.9), "119.9 s"), (tables.length(120), "2.0 min"),
        (tables.footage(90), "90.0 s of video"),
        (tables.length(7199), "120.0 min"), (tables.length(7200), "2.0 h"), (tables.length(9000), "2.5 h"),
        (tables.tail("a" * 60), "a" * 60), (tables.tail("b" + "a" * 60), "…" + "a" * 59), (tables.tail("abcdef", 3), "…ef"),
        (plan_tables._power(3e-5), "3e-5"), (plan_tables._power(1.25e-4), "1.25e-4"), (plan_tables._power(1.0), "1e0"),
        (plan_tables._number(0), "0"), (plan_tables._number(0.0099), "< 0.01"), (plan_tables._number(0.01), "0.01"),
        (plan_tables._number(1.2345), "1.23"), (plan_tables._number(99.94), "99.9"), (plan_tables._number(100), "100"),
        (plan_tables._number(123.4), "123"), (plan_tables._number(1234.5), "1,234"),
        (time_spent(0), "0:00"), (time_spent(59.6), "1:00"), (time_spent(61), "1:01"),
        (time_spent(3599), "59:59"), (time_spent(3661), "1:01:01"),
    ],
)  # fmt: skip
def test_figures_read_in_the_unit_that_suits_them(said: str, text: str) -> None:
    assert said == text


def test_the_unit_is_the_largest_that_the_most_fills() -> None:
    """Just below a unit the next smaller one is said: 999 G, not 0.999 T; below them all, the smallest."""
    assert [plan_tables._unit(most) for most in (1e18, 0.999e18, 1e12, 0.999e12, 5.0)] == [
        ("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("G", 1e9)
    ]  # fmt: skip


def test_costs_are_of_each_phase_and_in_all() -> None:
    """The sum stands in the last row: excludes the largest phase's, and a phase's weights in another's column."""
    phases = [
        SimpleNamespace(
            name=name, parameters=10e6, temporal=4e6, trained=6.5e6, forward_tflop=0.5, tflop=1.5, eflop=eflop,
            gpu_hours=hours, gigabytes=20.0,
        )
        for name, eflop, hours in (("image", 0.001, 10.0), ("video", 0.003, 30.5))
    ]  # fmt: skip
    out = io.StringIO()
    Console(file=out, width=200).print(plan_tables._costs(SimpleNamespace(phases=phases)))  # type: ignore[arg-type]
    lines = [line.split() for line in out.getvalue().splitlines()]
    assert ["image", "10.0", "4.0", "6.5", "0.5", "1.5", "1", "10", "20"] in lines
    assert ["video", "10.0", "4.0", "6.5", "0.5", "1.5", "3", "30.5", "20"] in lines
    assert ["total", "4", "40.5"] in lines


def test_a_path_is_said_in_the_shorter_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a")
    assert tables.near(str(tmp_path / "a" / "b")) == "b"
    assert tables.near("/x") == "/x"  # from here it would be ../../…/x
    assert tables.near("s3://bucket/a") == "s3://bucket/a"
