"""``dailies select``, with and without ``--preview``, and ``dailies diff``: numbers against a clip-by-clip count."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

import dailies as door
from dailies.curation.errors import DatasetError
from dailies.curation.select import ClipRows, Criteria, Rule, judging
from dailies.curation.tables import DatasetTables, sql
from dailies.pipelines.recipes.recipe import parse_recipe
from dailies.pipelines.run_rows import record_run
from dailies.pipelines.selecting import select_step
from tests.conftest import Dailies
from tests.report_dataset import STEPS, Truth, build
from tests.s3_server import s3_server
from tests.test_select import clips as plain_clips

STRICT = {
    "select": {
        "name": "strict",
        "rules": {
            "seconds": {"min": 4},
            "lively": {"any": [{"motion": {"min": 1, "nulls": "drop"}}, {"luma": {"min": 200}}]},
        },
    }
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    """Two selections of 160 clips: ``main``, and ``strict``, which asks other columns."""
    truth = build(tmp_path_factory.mktemp("selected") / "dataset", 160)
    dataset, recipe = DatasetTables.open(truth.path), parse_recipe({"name": "reported", "steps": [*STEPS, STRICT]})
    record_run(dataset, recipe)
    select_step(dataset, recipe, recipe.steps[-1])
    return truth


@pytest.fixture
def path(built: Truth, tmp_path: Path) -> Path:
    """A dataset of the test's own."""
    return Path(shutil.copytree(built.path, tmp_path / "dataset", symlinks=True))


def copies(truth: Truth) -> set[int]:
    """Of clips of one content and start that stays of which the manifest, and then the source id, comes first."""
    rows = DatasetTables.open(truth.path).table(truth.recipe.clips).read(["clip_id", "source_id", "manifest"])
    by_clip = {row["clip_id"]: (row["manifest"], row["source_id"]) for row in rows.to_pylist()}
    groups: dict[tuple[int, int], list[int]] = {}
    for n, status in enumerate(truth.status):
        if status == "ok":
            groups.setdefault((n // 4 - int(truth.copies[n]), n % 4), []).append(n)
    return {n for group in groups.values() for n in sorted(group, key=lambda n: by_clip[truth.ids[n]])[1:]}


def why_main(truth: Truth) -> list[list[str]]:
    """The reasons of each clip, asked one by one."""
    motion, luma, text = (values.astype(np.float32).astype(float) for values in (truth.motion, truth.luma, truth.text))
    usable = sorted(float(value) for value, status in zip(luma, truth.status, strict=True) if status == "ok")
    bright = usable[int(np.ceil(0.9 * len(usable))) - 1]
    out, again = [], copies(truth)
    for n, status in enumerate(truth.status):
        if status != "ok":
            out.append([str(status)])
            continue
        asked = {
            "duplicate": n in again,
            "motion_missing": np.isnan(motion[n]),
            "motion_low": motion[n] < 0.5,
            "luma_high": luma[n] > bright,
            "text_area_missing": np.isnan(text[n]),
            "text_area_high": text[n] > 0.07,
            "manifest_license_missing": not truth.cc[n] and n % 7 == 0,
            "manifest_license_other": not truth.cc[n] and n % 7 != 0,
        }
        out.append([reason for reason, falls in asked.items() if falls])
    return out


def why_strict(truth: Truth) -> list[list[str]]:
    out, again = [], copies(truth)
    for n, status in enumerate(truth.status):
        lively = float(truth.motion[n]) >= 1 or float(truth.luma[n]) >= 200
        asked = {"duplicate": n in again, "seconds_low": truth.seconds[n] < 4, "lively_unmet": not lively}
        out.append([reason for reason, falls in asked.items() if falls] if status == "ok" else [str(status)])
    return out


def held(truth: Truth, which: list[int]) -> dict[str, Any]:
    return {"clips": len(which), "seconds": pytest.approx(float(truth.seconds[which].sum()))}


def as_json(result: Any) -> Any:
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


# ---- diff ------------------------------------------------------------------------------------------------------------


def test_diff_counts_what_each_keeps_and_why_the_other_does_not(built: Truth, dailies: Dailies) -> None:
    a, b = why_main(built), why_strict(built)
    parts: dict[str, list[int]] = {"both": [], "only_a": [], "only_b": [], "neither": []}
    for n, (one, other) in enumerate(zip(a, b, strict=True)):
        parts["neither" if one and other else "only_b" if one else "only_a" if other else "both"].append(n)
    told = as_json(dailies("diff", built.path, "main", "strict", "--json"))
    assert {name: told[name] for name in parts} == {name: held(built, which) for name, which in parts.items()}
    assert min(map(len, parts.values())) > 3, "there must be some of each"
    for drops, part, why in (("b_drops", "only_a", b), ("a_drops", "only_b", a)):
        first = Counter(why[n][0] for n in parts[part])
        assert {reason: each["clips"] for reason, each in told[drops].items()} == first
        counts = [each["clips"] for each in told[drops].values()]
        assert counts == sorted(counts, reverse=True)
    assert told["splits"] == {"train": {name: held(built, parts[name]) for name in ("both", "only_a", "only_b")}}

    other = as_json(dailies("diff", built.path, "strict", "main", "--json"))
    assert (other["only_a"]["clips"], [*other["b_drops"]]) == (told["only_b"]["clips"], [*told["a_drops"]])
    same = as_json(dailies("diff", built.path, "main", "main", "--json"))
    assert same["only_a"]["clips"] == same["only_b"]["clips"] == 0
    assert not same["a_drops"]


def test_diff_of_clips_that_one_selection_does_not_have(built: Truth, path: Path, dailies: Dailies) -> None:
    """They were cut or curated after it was made. Excludes a join of those alone that both have."""
    a, b = why_main(built), why_strict(built)
    lost = [n for n, why in enumerate(a) if not why][:5]
    kept = sum(not b[n] for n in lost)
    table = DatasetTables.open(path).table("selections/strict")
    table.delete(filter=pads.field("clip_id").isin([built.ids[n] for n in lost]))
    told = as_json(dailies("diff", path, "main", "strict", "--json"))
    assert told["b_drops"]["not judged"]["clips"] == 5
    assert told["both"]["clips"] == sum(not one and not other for one, other in zip(a, b, strict=True)) - kept
    assert sum(told[part]["clips"] for part in ("both", "only_a", "only_b", "neither")) == len(built.ids)
    other = as_json(dailies("diff", path, "strict", "main", "--json"))
    assert other["a_drops"]["not judged"]["clips"] == 5


def test_diff_names_the_selections_that_there_are(path: Path, dailies: Dailies) -> None:
    failed = dailies("diff", path, "main", "stricter")
    assert failed.returncode
    assert "stricter: no selection of" in failed.stderr
    assert "did you mean strict?" in failed.stderr


@pytest.mark.parametrize("columns", ["80", "120"])
def test_tables_fit_the_terminal(columns: str, built: Truth, dailies: Dailies, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    for arguments in (("diff", built.path, "main", "strict"), ("select", built.path, "--preview", "--name", "strict")):
        lines = dailies(*arguments).stdout.splitlines()
        assert max(map(len, lines)) <= int(columns), lines
        assert not any("…" in line for line in lines)


# ---- select --preview ------------------------------------------------------------------------------------------------


def test_a_preview_counts_what_falls_and_writes_nothing(path: Path, built: Truth, dailies: Dailies) -> None:
    dataset = DatasetTables.open(path)
    before = {name: dataset.table(name).version() for name in dataset.tables()}
    why = why_main(built)
    told = as_json(dailies("select", path, "--preview", "--json"))
    assert {name: dataset.table(name).version() for name in dataset.tables()} == before
    kept = [n for n, reasons in enumerate(why) if not reasons]
    assert (told["name"], told["clips"], told["kept"]) == ("main", 160, len(kept))
    assert told["kept_seconds"] == pytest.approx(built.seconds[kept].sum())
    falls = Counter(reason for reasons in why for reason in reasons)
    alone = Counter(reasons[0] for reasons in why if len(reasons) == 1)
    assert {each["reason"]: (each["clips"], each["alone"]) for each in told["reasons"]} == {
        reason: (count, alone[reason]) for reason, count in falls.items()
    }
    motion = next(each for each in told["limits"] if each["rule"] == "motion")
    ok = built.status == "ok"
    known = np.sort(built.motion[ok & ~np.isnan(built.motion)].astype(np.float32)).astype(float)
    assert motion["keeps"] == np.mean(known >= 0.5)
    # A limit is told by what it keeps: no clip more could fall, and the share still be kept.
    assert motion["at"]["0.75"] == known[len(known) // 4]

    looser = as_json(dailies("select", path, "--preview", "--json", "--set", "main.rules.motion.min=0"))
    without = sum({*reasons} <= {"motion_low"} for reasons in why)
    assert looser["kept"] == without == told["kept"] + alone["motion_low"]


# ---- select --set ----------------------------------------------------------------------------------------------------


def verdicts(path: Path, name: str = "main") -> dict[str, list[str]]:
    rows = DatasetTables.open(path).table(f"selections/{name}").read()
    assert rows["clip_id"].to_pylist() == sorted(rows["clip_id"].to_pylist())
    return {row["clip_id"]: row["reasons"] for row in rows.to_pylist()}


def test_caps_are_set_by_one_number_or_key_by_key(path: Path, built: Truth, dailies: Dailies) -> None:
    why = why_main(built)
    sources: dict[int, list[int]] = {}
    for n, reasons in enumerate(why):
        if not reasons:
            sources.setdefault(n // 4, []).append(n)
    assert dailies("select", path, "--set", "main.at_most.source_id=2").returncode == 0
    found = verdicts(path)
    for mine in sources.values():  # by start, in which they were made
        assert [found[built.ids[n]] for n in mine] == [[], [], ["source_id_cap"], ["source_id_cap"]][: len(mine)]
    assert any(len(mine) > 2 for mine in sources.values())

    told = as_json(dailies("select", path, "--json", "--set", "main.at_most.source_id={count: 1, keep: -seconds}"))
    found = verdicts(path)
    for mine in sources.values():
        assert min(mine, key=lambda n: built.seconds[n]) in [n for n in mine if not found[built.ids[n]]]
    assert told["kept"] == len(sources) == sum(not reasons for reasons in found.values())


def test_selecting_again_asks_in_the_order_of_the_recipe(path: Path, dailies: Dailies) -> None:
    """The first reason, and what caps leave, follow from it. Excludes a recipe that is recorded sorted by name."""
    before = verdicts(path)
    assert dailies("select", path).returncode == 0
    assert verdicts(path) == before
    assert ["motion_low", "luma_high"] in before.values()
    for order in ("{stream: 50, source_id: 1}", "{source_id: 1, stream: 50}"):
        told = as_json(dailies("select", path, "--json", "--set", f"main.at_most={order}"))
        assert as_json(dailies("select", path, "--json"))["kept"] == told["kept"]


def test_samples_and_balance_are_set_too(path: Path, built: Truth, dailies: Dailies) -> None:
    left = sum(not reasons for reasons in why_main(built))
    told = as_json(dailies("select", path, "--json", "--set", "main.sample.clips=7"))
    assert (told["kept"], told["reasons"]["sample"]) == (7, left - 7)
    first = {clip for clip, reasons in verdicts(path).items() if not reasons}
    as_json(dailies("select", path, "--json"))  # the last run's recipe has the sample
    assert {clip for clip, reasons in verdicts(path).items() if not reasons} == first
    as_json(dailies("select", path, "--json", "--set", "main.sample.seed=2"))
    assert {clip for clip, reasons in verdicts(path).items() if not reasons} != first

    told = as_json(
        dailies("select", path, "--json", "--set", "main.sample=null", "--set", "main.balance.column=frames")
    )
    assert told["kept"] == left, "no clip has a value"
    cameras = Counter(n % 3 for n, reasons in enumerate(why_main(built)) if not reasons)
    told = as_json(dailies("select", path, "--json", "--set", "main.balance.column=motion_camera"))
    median = sorted(cameras.values())[1]
    assert told["kept"] == sum(min(median, count) for count in cameras.values())
    assert told["limits"]["balance"] == {"column": "motion_camera", "median": median, "count": median}


def test_what_cannot_be_set_is_one_line(path: Path, dailies: Dailies) -> None:
    for text, said in (
        ("main.at_most.source_id=0", "source_id"),
        ("main.at_most.sorce_id=1", "did you mean source_id"),
        ("main.sample.clips=many", "sample.clips"),
        ("main.sample.sed=1", "did you mean seed"),
    ):
        failed = dailies("select", path, "--set", text)
        assert failed.returncode
        assert said in failed.stderr, failed.stderr
        assert len(failed.stderr.strip().splitlines()) < 4


# ---- tables as they come ---------------------------------------------------------------------------------------------


def test_verdicts_of_several_parts_are_read_back_in_order(
    path: Path, dailies: Dailies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dailies.curation.select.judge.PART_ROWS", 16)
    monkeypatch.setattr("dailies.curation.select.source.BATCH_ROWS", 16)
    assert dailies("select", path).returncode == 0
    assert len(DatasetTables.open(path).table("selections/main").files()) > 3
    assert len(verdicts(path)) == 160  # which looks at the order


def test_a_part_without_the_column_has_no_values(tmp_path: Path) -> None:
    """Parts that were written before it was added; and where all were, its type is known still."""
    table = plain_clips(motion=[0.0, 1.0, 2.0, 3.0], seconds=[1.0] * 4)
    for old, wanted in ((2, ["motion_missing"] * 2 + [None] * 2), (4, ["motion_missing"] * 4)):
        folder = tmp_path / str(old)
        folder.mkdir()
        pq.write_table(table.slice(0, old).drop_columns("motion"), folder / "a.parquet")
        pq.write_table(table.slice(old), folder / "b.parquet")
        rows = pads.dataset(folder, schema=table.schema, format="parquet")
        with judging(ClipRows(rows=rows), Criteria(rules={"motion": Rule(min=1, nulls="drop")})) as judged:
            assert pa.concat_tables(judged.verdicts())["reason"].to_pylist() == wanted


def test_a_copy_is_read_where_it_lies_now() -> None:
    """The second of three can be read where it was, the third where it is: the first that is there stays."""
    table = plain_clips(content_id=["k"] * 3)
    moved = pa.table({"source_id": ["s01", "s02"], "uri": ["/gone.mp4", "/here.mp4"]})
    for there, kept in ((("/films/01.mp4", "/here.mp4"), 2), (("/films/02.mp4", "/films/00.mp4"), 0)):
        asked = ClipRows(rows=table), Criteria()
        with judging(*asked, readable=lambda uri, there=there: uri in there, moved=moved) as judged:  # type: ignore[misc]
            found = pa.concat_tables(judged.verdicts())["keep"].to_pylist()
        assert found == [n == kept for n in range(3)]


def test_a_clip_with_two_rows_of_scores_is_told() -> None:
    scores = pa.table({"clip_id": ["c00", "c01", "c01"], "beauty": [1.0, 2.0, 3.0]})
    rule = Criteria(rules={"beauty": Rule(min=0)})
    with (
        pytest.raises(
            DatasetError, match=r"clips: 2 are 3 rows with their scores: .* has a clip twice; take the dataset"
        ),
        judging(ClipRows(rows=plain_clips(x=[0, 0])), rule, scores=[ClipRows(rows=scores)]),
    ):
        pass


def test_a_damaged_part_is_one_line(path: Path, dailies: Dailies) -> None:
    table = next(name for name in DatasetTables.open(path).tables() if name.startswith("scores/text"))
    (part,) = (path / table).glob("*.parquet")
    whole = part.read_bytes()
    for broken in (b"no parquet", whole[: len(whole) // 2], whole[:50] + b"\0" * 200 + whole[250:], None):
        part.unlink()
        if broken is not None:
            part.write_bytes(broken)
        failed = dailies("select", path)
        assert failed.returncode == 1
        assert part.name in failed.stderr
        assert "Traceback" not in failed.stderr


def test_what_is_too_large_for_memory_and_disk_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "SPILL_LEAST", 1 << 20)
    count = 60_000
    ids = [f"{n:024x}" for n in range(count)]
    table = plain_clips(
        clip_id=ids, seconds=[1.0] * count, manifest=['{"a": "' + "x" * 300 + f'{n}"}}' for n in range(count)]
    )
    rule = Criteria(rules={"manifest.a": Rule(one_of=("y",), nulls="drop")})
    with (
        pytest.raises(
            DatasetError, match=r"the rows come to over 0\.0 GB in memory and .* GB in .*; ask fewer columns"
        ),
        judging(ClipRows(rows=table), rule, memory=16 << 20) as judged,
    ):
        list(judged.verdicts())


def test_a_full_disk_says_what_to_do(tmp_path: Path) -> None:
    """As large as a file may be in a process of its own stands for a disk."""
    code = f"""
import resource, sys, tempfile
tempfile.tempdir = {str(tmp_path)!r}
from dailies.curation.errors import DatasetError
from dailies.curation.tables import confined
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    with confined(memory=64 << 20) as connection:
        connection.execute("create temp table t as select md5(i::varchar) as a from range(4000000) r(i)")
except DatasetError as error:
    sys.exit(str(error))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert re.match(
        rf"{re.escape(str(tmp_path))}.*: does not hold what .*; give that disk room, or set TMPDIR", ran.stderr
    )
    assert not list(tmp_path.iterdir()), "what was written is gone"


# ---- an object store -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    pytest.importorskip(
        "moto.server", reason="needs moto[s3] and flask: the S3 server that datasets are tested against"
    )
    with s3_server("videos") as url:
        yield url


def test_selections_of_a_dataset_in_an_object_store(bucket: str, dailies: Dailies) -> None:
    url: Any = f"{bucket}/dataset"
    truth = build(url, 60)
    why = why_main(truth)
    dataset = door.Dataset(url)
    assert dataset.select().kept == sum(not reasons for reasons in why)
    assert dataset.preview(overrides=["main.sample.clips=3"]).previewed.kept == 3
    told = as_json(dailies("diff", url, "main", "main", "--json"))
    assert told["both"]["clips"] == sum(not reasons for reasons in why)
