"""One line of progress, in columns: stage, count, rate, time spent, time left; with a bar between in a terminal."""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.text import Text

from dailies.curation.progress import time_spent
from dailies.pipelines.cli.pace import StagePace

STAGE = 14  # columns of a stage's name
COUNT, UNIT, RATE, SPENT, LEFT = 12, 8, 8, 7, 12  # columns
DOING = COUNT + UNIT + RATE + 2  # columns of what is being done, where nothing is counted
BROKEN_TOLD = 5.0  # seconds from which on a stage that an error ends has a last line: before, the error says enough
ROOMY = 100  # columns of a terminal, from which on units are named beside a bar
BAR, SHORT_BAR = 24, 6  # columns


def stage_line(stage: str, text: str) -> str:
    """Return a line about a stage, in the columns of its progress."""
    return f"{_cut(stage, STAGE)} {text}"


@dataclass(kw_only=True)
class StageProgress:
    """How far a stage is. ``total``, ``already``, ``size``, ``after`` as ``curation.progress.Progress`` takes them."""

    stage: str
    total: float | None
    unit: str
    begun: float
    already: float = 0
    size: float | None = None
    after: float = 0
    done: float = 0
    failed: int = 0
    note: str = ""
    broken: bool = False
    pace: StagePace = field(init=False)

    def __post_init__(self) -> None:
        whole = self.size if self.size is not None else self.total or 0
        self.pace = StagePace(self.begun, whole, self.after)

    def advance(
        self, now: float, done: float = 1, failed: int = 0, *, size: float | None = None, note: str | None = None
    ) -> None:
        """Count what was done by ``now``."""
        self.done += done
        self.failed += failed
        self.note = self.note if note is None else note
        if done:
            self.pace.add(now, done, done if size is None or self.size is None else size)

    def end(self) -> None:
        """Forget what was going on last, of a stage that is counted."""
        self.note = self.note if self.total is None else ""

    def is_told(self, now: float) -> bool:
        """Return whether a last line is worth it: of what is not counted, or an error ended, only where it took some time."""
        spent = now - self.begun
        return spent >= BROKEN_TOLD if self.broken else self.total is not None or spent >= 1

    def plain(self, now: float) -> str:
        """Return the line without a bar."""
        if self.total is None:
            return self._untimed(now, DOING)
        return self._joined(now, [self._stage(), self._count().rjust(COUNT), f"{self.unit:<{UNIT}}"], width=None)

    def live(self, now: float, width: int, *, unicode: bool = True) -> Text:
        """Return the line with a bar, of at most ``width`` columns."""
        roomy = width >= ROOMY
        bar = BAR if roomy else SHORT_BAR
        if self.total is None:
            doing = DOING + bar + 1 if roomy else DOING + bar - UNIT
            line = Text(self._untimed(now, doing, most=doing), no_wrap=True)
            line.truncate(width)
            return line
        count = [self._count().rjust(COUNT), *([f"{self.unit:<{UNIT}}"] if roomy else [])]
        rest = self._joined(now, count, width=max(0, width - STAGE - bar - 2))
        full = round(bar * min(1.0, (self.already + self.done) / max(self.already + self.total, 1)))
        done, rest_of_bar = "━─" if unicode else "- "  # which differ without colours too
        line = Text(f"{self._stage()} ", no_wrap=True)
        line.append(done * full, style="cyan").append(rest_of_bar * (bar - full), style="bright_black")
        line.append(f" {rest}").truncate(width)
        return line

    def _untimed(self, now: float, columns: int, *, most: int | None = None) -> str:
        """Return the line of a stage without a count, whose text takes that many ``columns``, and no more than ``most``."""
        doing = self.note or self.unit
        doing = doing if most is None else _cut(doing, most)
        return f"{self._stage()} {doing:<{columns}} {time_spent(now - self.begun):>{SPENT}}"

    def _stage(self) -> str:
        return _cut(self.stage, STAGE)

    def _count(self) -> str:
        assert self.total is not None
        return f"{_short(self.already + self.done)}/{_short(self.already + self.total)}"

    def _joined(self, now: float, parts: list[str], *, width: int | None) -> str:
        """Join ``parts`` and what follows them; of the last words, only those that fit into ``width``."""
        assert self.total is not None
        is_whole = self.done >= self.total
        rate = self.done / max(now - self.begun, 1e-3) if is_whole else self.pace.rate(now)
        left = None if is_whole else self.pace.left(now)
        parts = [
            *parts,
            ("" if rate is None else rate_text(rate, self.unit)).rjust(RATE),
            time_spent(now - self.begun).rjust(SPENT),
            ("" if left is None else f"{time_spent(left)} left").rjust(LEFT),
        ]
        line = " ".join(parts)
        in_all = None if left is None else self.pace.left_with_after(now)
        remarks = [
            f"{self.failed:,} failed" if self.failed else "",
            "" if in_all is None else f"{time_spent(in_all)} in all",
            self.note,
        ]
        for remark in filter(None, remarks):
            if width is None or len(line) + 2 + len(remark) <= width:
                line += f"  {remark}"
        line = line.rstrip()
        return line if width is None else line[:width]


def rate_text(rate: float, unit: str) -> str:
    """Return a rate per second, minute or hour, so that it has figures before its point; of megabytes per second."""
    if unit == "MB":
        return f"{rate:,.0f} MB/s" if rate >= 10 else f"{rate:.1f} MB/s"
    for seconds, name in ((1, "s"), (60, "min"), (3600, "h")):
        if rate * seconds >= 1 or name == "h":
            break
    per = rate * seconds
    return f"{per:,.0f}/{name}" if per >= 100 else f"{per:.1f}/{name}"


def _short(count: float) -> str:
    if count < 1e5:
        return f"{count:.0f}"
    return f"{count / 1e3:.0f}k" if count < 1e6 else f"{count / 1e6:.2f}M"


def _cut(text: str, width: int) -> str:
    """Return ``text`` in exactly ``width`` columns, or as it is where it is wider by none."""
    return text.ljust(width) if len(text) <= width else f"{text[: width - 1]}…"
