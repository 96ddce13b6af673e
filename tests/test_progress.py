"""Progress: the pace of a stage by a clock of our own, the columns of its lines, and where and when they are printed."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dailies.curation.progress import Bar, progress_in_force, reporting, silent
from dailies.pipelines.cli import progress, terminal
from dailies.pipelines.cli.pace import StagePace
from dailies.pipelines.cli.progress_line import StageProgress, rate_text, stage_line
from dailies.pipelines.relay import Receiver, Sender

ROOT = Path(__file__).resolve().parents[1]


# ---- pace -----------------------------------------------------------------------------------------------------------


def estimates(seconds: list[float], sizes: list[float] | None = None, workers: int = 1) -> list[tuple[float, float]]:
    """Estimated and true time left after each unit, where there is an estimate; ``seconds``: what each unit takes."""
    sizes = sizes or [1.0] * len(seconds)
    free, ends = [0.0] * workers, []
    for number, each in enumerate(seconds):
        first = min(range(workers), key=free.__getitem__)
        free[first] += each
        ends.append((free[first], sizes[number]))
    pace, pairs = StagePace(0.0, sum(sizes)), []
    ends.sort()
    for end, size in ends:
        pace.add(end, 1, size)
        if (left := pace.left(end)) is not None:
            pairs.append((left, ends[-1][0] - end))
    return pairs


@pytest.mark.parametrize("first", [30.0, 300.0])
@pytest.mark.parametrize("workers", [1, 2, 8])
def test_a_slow_first_unit_makes_no_wild_estimate(first: float, workers: int) -> None:
    """120 units of a second, each worker's first of which loads a model. Excludes a rate since the beginning."""
    pairs = estimates([first] * workers + [1.0] * 120, workers=workers)
    assert len(pairs) > 20
    assert all(estimate <= 1.6 * true + 4 and estimate >= 0.6 * true - 4 for estimate, true in pairs), pairs[:5]


def test_units_count_by_their_size() -> None:
    """Ten films of ten minutes come after a hundred clips of one: by number, most would seem done after the clips."""
    sizes = [1.0] * 100 + [100.0] * 10
    pairs = estimates(sizes, sizes)
    assert all(abs(estimate - true) < 0.1 * true + 1 for estimate, true in pairs)
    estimate, true = pairs[90]
    assert true > 900
    assert estimate > 900


def test_nothing_is_said_before_enough_was_measured() -> None:
    pace = StagePace(0.0, 1000)
    pace.add(60.0, 1, 1)
    for number in range(2):
        pace.add(70.0 + number, 1, 1)
        assert (pace.left(71.0), pace.rate(71.0)) == (None, None)  # two units
    quick = StagePace(0.0, 1000)
    for number in range(50):
        quick.add(1.0 + number / 20, 1, 1)
        assert quick.left(4.0) is None  # in two and a half seconds
    quick.add(6.0, 1, 1)
    assert quick.left(6.0) is not None


def test_the_pace_follows_a_change_and_a_pause_does_not_throw_it() -> None:
    pace = StagePace(0.0, 1000)
    now = 0.0
    for each in [1.0] * 100 + [4.0] * 100:
        now += each
        pace.add(now, 1, 1)
    assert pace.left(now) == pytest.approx(800 * 4, rel=0.2)
    before = pace.left(now)
    now += 20
    pace.add(now, 1, 1)
    assert before is not None
    assert pace.left(now) == pytest.approx(before, rel=0.2)


def test_time_left_runs_down_while_a_unit_is_done_and_grows_when_it_hangs() -> None:
    pace = StagePace(0.0, 10)
    for now in (10.0, 20.0, 30.0, 40.0, 50.0):
        pace.add(now, 1, 1)
    assert pace.left(50.0) == pytest.approx(50)
    assert pace.left(55.0) == pytest.approx(45)
    hung = pace.left(200.0)
    assert hung is not None
    assert hung > 80


def test_what_follows_a_stage_is_counted_in_all() -> None:
    """240 steps, and then as much as 600 of them; 40 are done at 10 a second."""
    pace = StagePace(0.0, 240, after=600)
    for step in range(1, 61):
        pace.add(1 + step / 10, 1, 1)
    left, in_all = pace.left(7.0), pace.left_with_after(7.0)
    assert left == pytest.approx(18, abs=0.5)
    assert in_all == pytest.approx(78, abs=1)
    assert StagePace(0.0, 240).left_with_after(7.0) is None


@pytest.mark.parametrize(
    ("rate", "unit", "text"),
    [
        (12.34, "clips", "12.3/s"), (1234.5, "clips", "1,234/s"), (1.0, "clips", "1.0/s"), (0.5, "clips", "30.0/min"),
        (0.01, "sources", "36.0/h"), (1e-5, "sources", "0.0/h"), (230.4, "MB", "230 MB/s"), (2.34, "MB", "2.3 MB/s"),
    ],
)  # fmt: skip
def test_a_rate_is_said_by_the_time_that_suits_it(rate: float, unit: str, text: str) -> None:
    assert rate_text(rate, unit) == text


# ---- lines ----------------------------------------------------------------------------------------------------------


def stages() -> Iterator[tuple[StageProgress, float]]:
    """Stages as they come, some time after they began."""
    for name, total, unit, done, failed, note in (
        ("observe", 18, "sources", 7, 0, ""),
        ("caption_coca", 123456, "clips", 54321, 12, ""),
        ("a_scorer_with_a_long_name", 84, "clips", 80, 3, ""),
        ("image", 240, "steps", 120, 0, "loss 0.612"),
        ("hash", 45678.4, "MB", 1234.5, 0, ""),
        ("ray", None, "starting", 0, 0, ""),
        ("download", None, "openai/clip-vit-large-patch14", 0, 0, "1,234/5,678 MB of openai/clip-vit-large-patch14"),
    ):  # fmt: skip
        shown = StageProgress(stage=name, total=total, unit=unit, begun=100.0, after=600 if unit == "steps" else 0)
        for number in range(10):
            if done:
                shown.advance(101.0 + number, done / 10, failed if number == 9 else 0, note=note)
        shown.note = note
        yield shown, 110.0


@pytest.mark.parametrize("width", [15, 40, 60, 79, 80, 99, 100, 119, 200])
def test_a_live_line_is_no_wider_than_the_terminal(width: int) -> None:
    lines = [shown.live(now, width).plain for shown, now in stages()]
    assert max(map(len, lines)) <= width
    assert not any("\n" in line for line in lines)


@pytest.mark.parametrize("width", [77, 117, None])
def test_lines_are_aligned(width: int | None) -> None:
    """Counts, rates and times stand below one another, also those of a stage without a count."""
    lines = [shown.plain(now) if width is None else shown.live(now, width).plain for shown, now in stages()]
    counted = [line for line in lines if " left" in line]
    assert len(counted) == 5
    for pattern in (r"/(s|min) ", " left"):
        assert len({re.search(pattern, line).end() for line in counted}) == 1  # type: ignore[union-attr]
    (spent,) = {line.index(" 0:10") for line in lines[:-1]}
    assert all(line[spent : spent + 5] == " 0:10" for line in lines[:-1])
    assert stage_line("render", "nothing to do") == "render         nothing to do"


def test_a_line_says_what_matters_and_leaves_out_what_does_not_fit() -> None:
    (image,) = [shown for shown, _ in stages() if shown.stage == "image"]
    assert image.plain(110.0) == (
        "image               120/240 steps      12.0/s    0:10    0:10 left  1:00 in all  loss 0.612"
    )
    assert image.live(110.0, 119).plain.endswith("0:10 left  1:00 in all  loss 0.612")
    assert image.live(110.0, 77).plain.endswith("0:10 left  1:00 in all")


def test_what_an_earlier_run_did_counts_as_done_and_not_for_the_pace() -> None:
    shown = StageProgress(stage="observe", total=100, unit="sources", begun=0.0, already=900)
    for number in range(11):
        shown.advance(1.0 + number)
    line = shown.plain(11.0)
    assert "911/1000" in line
    assert "1.0/s" in line
    assert "1:29 left" in line
    shown.advance(100.0, 89)
    assert re.search(r"1000/1000 sources +1\.0/s +1:40$", shown.plain(100.0))


# ---- where and when -------------------------------------------------------------------------------------------------


def test_plain_lines_come_from_time_to_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.show_progress("score", 10_000, "clips") as bar:
        for _ in range(10_000):
            now[0] += 0.1
            bar.advance(failed=int(now[0]) == 200)
    out, err = capsys.readouterr()
    assert not out
    lines = err.splitlines()
    assert 15 < len(lines) < 70  # of 1000 s: more at first
    assert "\r" not in err
    assert "\x1b" not in err
    assert re.fullmatch(r"score +5\d/10000 clips +10\.0/s +0:05 +16:3\d left", lines[0]), lines[0]
    assert re.fullmatch(r"score +10000/10000 clips +10\.0/s +16:40 +10 failed", lines[-1]), lines[-1]


def test_a_plain_line_comes_while_nothing_is_done(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr(progress, "PLAIN_EVERY", 0.5)
    with progress.show_progress("train", 3, "steps") as bar:
        bar.advance(0, note="validating")
        time.sleep(1.3)
        assert re.fullmatch(r"train +0/3 steps +0:01 +validating\n", capsys.readouterr().err)


def test_a_stage_without_work_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    for already in (0, 4):
        with progress.show_progress("score", 0, "clips", already=already):
            pass
    with progress.show_progress("ray", None, "starting"):
        pass
    assert capsys.readouterr().err == "score          nothing to do, 4 clips done before\n"


@pytest.mark.parametrize(("seconds", "lines"), [(1.0, 0), (60.0, 1)])
@pytest.mark.parametrize("total", [3, None])
def test_an_error_soon_after_the_start_is_the_only_line(
    total: int | None, seconds: float, lines: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    for error in (ValueError, KeyboardInterrupt):

        def ended(error: type[BaseException] = error) -> None:
            with progress.show_progress("withdraw", total, "exports"):
                now[0] += seconds
                raise error

        with pytest.raises(error):
            ended()
    assert len(capsys.readouterr().err.splitlines()) == lines + 1, "who interrupts wants to know how far it is"


def in_terminal(program: str, columns: int = 80, **environment: str) -> str:
    """Return what ``program`` shows in a terminal of its own."""
    inner, outer = pty.openpty()
    variables = {**os.environ, "COLUMNS": str(columns), "LINES": "24", "TERM": "xterm-256color", **environment}
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        if name not in environment:
            variables.pop(name, None)
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, env=variables, stdout=outer, stderr=outer)
    os.close(outer)
    shown = b""
    try:
        while part := os.read(inner, 65536):
            shown += part
    except OSError:
        pass  # how Linux says that the other end is closed
    os.close(inner)
    assert process.wait() == 0, shown.decode()
    return shown.decode()


NESTED = """
import sys, time
from dailies.pipelines.cli.progress import say_of_stage, show_progress
with show_progress("observe", 4, "sources") as bar:
    with show_progress("ray", None, "starting"):
        time.sleep(1.1)
    for number in range(4):
        time.sleep(0.1)
        say_of_stage(f"image: step {number}")
        bar.advance()
"""


def left_in(shown: str) -> list[str]:
    """The lines that stay of what a terminal was sent, without colours."""
    lines: list[str] = [""] * (shown.count("\n") + 1)
    row = column = 0
    for code, move, control, text in re.findall(r"\x1b\[([?0-9;]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)", shown):
        if move == "A":
            row -= int(code or 1)
        elif move == "K":
            lines[row] = ""
        elif control:
            row, column = row + (control == "\n"), 0
        elif text:
            lines[row] = lines[row][:column].ljust(column) + text + lines[row][column + len(text) :]
            column += len(text)
    return [line.rstrip() for line in lines if line.strip()]


def test_stages_within_one_another_share_a_terminal() -> None:
    shown = in_terminal(NESTED)
    assert [line[:20].split()[0] for line in left_in(shown)] == ["ray", "image", "image", "image", "image", "observe"]
    assert "\x1b[" in shown
    assert "4/4" in left_in(shown)[-1]


def test_a_dumb_terminal_gets_plain_lines_no_wider_than_it_is() -> None:
    shown = in_terminal(NESTED, columns=40, TERM="dumb")
    assert "\x1b" not in shown
    assert "\r" not in shown.replace("\r\n", "")
    assert max(map(len, shown.splitlines())) <= 40


def test_no_colour_where_none_is_wanted() -> None:
    assert re.search(r"\x1b\[[0-9;]*3[0-9]", in_terminal(NESTED))
    assert not re.search(r"\x1b\[[0-9;]*[349][0-9]m", in_terminal(NESTED, NO_COLOR="1"))


@pytest.mark.parametrize("colour", ["", "1"])
def test_a_pipe_gets_no_control_characters(colour: str) -> None:
    environment = {**os.environ, "FORCE_COLOR": colour}
    done = subprocess.run([sys.executable, "-c", NESTED], cwd=ROOT, env=environment, capture_output=True, check=True)
    assert not done.stdout
    assert [line.split()[0] for line in done.stderr.decode().splitlines()] == ["ray", *["image"] * 4, "observe"]
    assert not {0x1B, 0x0D} & set(done.stderr)


# ---- in force -------------------------------------------------------------------------------------------------------


class Recorder:
    """A ``Progress`` that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    @contextmanager
    def __call__(self, stage: str, total: float | None, unit: str, **named: Any) -> Iterator[Bar]:
        self.told.append((stage, total, unit, named))
        yield self  # type: ignore[misc]
        self.told.append(f"{stage} ends")

    def advance(self, done: float = 1, failed: int = 0, **named: Any) -> None:
        self.told.append((done, failed, named))


def test_what_lies_deep_reports_to_what_is_in_force() -> None:
    recorder = Recorder()
    assert progress_in_force() is silent
    with reporting(recorder):
        assert progress_in_force() is recorder
    assert progress_in_force() is silent


def test_a_workers_progress_is_reported_here() -> None:
    """Also of one that died: what it had open is closed."""
    recorder, written = Recorder(), list[str]()
    send = Sender(written.append)
    with send("image", 240, "steps", already=3, size=240, after=600) as bar:
        for _ in range(1000):
            bar.advance(note="loss 1")
    assert len(written) == 3, "not a line for each step"
    receiver = Receiver(recorder)
    assert not receiver.take("image: step 3")
    assert all(map(receiver.take, written))
    assert recorder.told == [
        ("image", 240, "steps", {"already": 3, "size": 240, "after": 600}),
        (1000, 0, {"note": "loss 1"}),
        "image ends",
    ]
    receiver = Receiver(recorder)
    receiver.take(written[0])
    receiver.close()
    assert recorder.told[-1] == "image ends"


def test_a_download_is_reported_and_a_model_that_is_here_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As the hub's library does it: bars of a class of ours, from threads, whose total grows with each file."""
    import huggingface_hub

    from dailies.curation.downloads import download_snapshot

    files = [3_000_000, 5_000_000]

    def snapshot(repository: str, *, tqdm_class: type[Any], **_: Any) -> str:
        transfer = tqdm_class(desc="Downloading bytes", total=0, initial=0, unit="B", unit_scale=True)
        written = tqdm_class(desc="Reconstructing (incomplete total...)", total=0, initial=0, unit="B", unit_scale=True)
        for size in files:
            written.total = (written.total or 0) + size
            transfer.total = (transfer.total or 0) + size

        def fetch(size: int) -> None:
            for _ in range(10):
                written.update(size // 10)
                transfer.update(size // 10)

        threads = [threading.Thread(target=fetch, args=(size,)) for size in files]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        written.set_description("Reconstruction complete")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    recorder = Recorder()
    with reporting(recorder):
        assert download_snapshot("someone/model", wanted=["*.json"]) == tmp_path
        assert recorder.told[0][:3] == ("download", None, "someone/model")
        assert recorder.told[-2] == (0, 0, {"note": "8/8 MB of someone/model"})
        assert recorder.told[-1] == "download ends"
        files.clear()
        recorder.told.clear()
        download_snapshot("someone/model", wanted=["*.json"])
    assert not recorder.told


def test_weights_of_open_clip_are_fetched_where_people_look(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And not by workers, whose output nobody sees; a folder, and a hub's model, are here already."""
    open_clip = pytest.importorskip("open_clip")
    from dailies.curation import openclip

    fetched: list[Any] = []
    monkeypatch.setattr(open_clip, "download_pretrained", fetched.append)
    recorder = Recorder()
    with reporting(recorder):
        openclip.fetch("ViT-B-32:openai")
        assert recorder.told == [("download", None, "ViT-B-32:openai", {}), "download ends"]
        openclip.fetch(str(tmp_path))
        openclip.fetch("hf-hub:someone/model")
    assert len(fetched) == 1


def test_sources_count_by_their_bytes_and_unknown_ones_as_the_mean(tmp_path: Path) -> None:
    from dailies.pipelines.units import file_sizes

    for name, size in {"a": 1000, "b": 3000}.items():
        (tmp_path / name).write_bytes(bytes(size))
    places = {name: str(tmp_path / name) for name in "ab"}
    unknown = {"url": "https://host/c.mp4", "gone": str(tmp_path / "gone")}
    assert file_sizes(places | unknown) == {"a": 1000, "b": 3000, "url": 2000, "gone": 2000}
    assert file_sizes(unknown) == {"url": 1, "gone": 1}


def test_hashing_counts_megabytes_where_there_are_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dailies.zoo.formats import hashes, lock

    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_bytes(bytes(6_000_000))
    (folder / "config").write_bytes(b"{}")
    recorder = Recorder()
    with reporting(recorder):
        lock.write(folder)
        assert not recorder.told
        monkeypatch.setattr(hashes, "LARGE", 5)
        assert lock.verify(folder) == []
    (name, total, unit, _), *steps, _ = recorder.told
    assert (name, unit) == ("hash", "MB")
    assert total == pytest.approx(6.0, abs=0.01)
    assert sum(done for done, _, _ in steps) == pytest.approx(total)


def test_rendering_reports_each_video_by_its_frames(tmp_path: Path) -> None:
    from dailies.curation import world

    recorder = Recorder()
    with reporting(recorder):
        world.render_world(tmp_path, seed=1, videos=2, shots=1, shot_frames=(4, 6), size=(64, 48))
    (stage, total, _, named), *videos, _ = recorder.told
    assert (stage, total) == ("render", 2)
    assert sum(video[2]["size"] for video in videos) == named["size"]
    assert len(videos) == 2


def test_sampling_steps_are_counted_however_a_pipeline_counts_them() -> None:
    from dailies.zoo.generate import _SamplingBar

    recorder = Recorder()
    bar: Any = _SamplingBar(recorder)  # type: ignore[arg-type]
    assert list(bar(iter("abc"))) == ["a", "b", "c"]
    with bar(total=2) as updated:
        updated.update()
        updated.update()
    assert sum(done for done, _, _ in recorder.told) == 5


def test_deep_verification_counts_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    from dailies.curation.errors import Unreadable
    from dailies.curation.tables.integrity import _counted

    def check(video: bytes) -> int:
        if not video:
            raise Unreadable("no video")
        return len(video)

    recorder = Recorder()
    counted = _counted(check, recorder)  # type: ignore[arg-type]
    assert counted(b"abc") == 3
    with pytest.raises(Unreadable):
        counted(b"")
    assert len(recorder.told) == 2


def test_json_leaves_stdout_and_stderr_to_programs(tmp_path: Path, dailies: Callable[..., Any]) -> None:
    from dailies.curation import world

    video = world.encode(world.write_script(3, shots=1, shot_frames=(60, 70), still=0.0), tmp_path / "a.mp4")
    options = ("--set", "observe.evidence.short_side=96", "--engine", "local", "--out", tmp_path / "dataset")
    done = dailies("curate", video, *options)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^observe +1/1 sources ", done.stderr, re.MULTILINE)
    assert "observe" not in done.stdout
    assert re.search(r"usable, \d+\.\d s of video", done.stdout)
    again = dailies("curate", video, *options, "--json")
    assert json.loads(again.stdout)["sources"]["ok"] == 1
    assert not again.stderr


def test_a_console_that_is_closed_is_no_copy_of_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file is closed after each stage, and stderr must not be."""
    console = terminal.stderr()
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    own = progress._own(console)
    progress._release(own)
    assert not sys.stderr.closed
