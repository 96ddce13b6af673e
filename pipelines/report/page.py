"""``ReportData`` → one page of HTML that holds all it needs: style, script, charts, and frames as data.

The page asks nothing of any other place, and its policy (CSP) lets it: scripts and styles go by their hashes, pictures are
data. Every value is text that Jinja escapes, without control characters.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shlex
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dailies.curation.addresses import public, scrub
from dailies.curation.atomic import new_file
from dailies.curation.errors import UsageError
from dailies.curation.plain_text import clean, counted, length, share, shortened
from dailies.curation.progress import Progress, silent
from dailies.curation.tables import DatasetTables, Folder
from dailies.pipelines.report import charts
from dailies.pipelines.report.data import Clip, Picture, ReportData, Score
from dailies.pipelines.report.gather import gather

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
NAME = "report"
LONGEST = 100_000  # characters of a text, such as a recipe


def write_report(
    url: str,
    out: str | os.PathLike[str] | None = None,
    *,
    selection: str | None = None,
    progress: Progress = silent,
) -> str:
    """Write a report on the dataset at ``url`` as one file of HTML, which appears whole; return its path.

    ``out``: a file ``.html``; by default ``report.html`` in the dataset's folder, or ``report-SELECTION.html`` for a
    ``selection`` that is named; of a dataset in a store, in the working directory, where it replaces no file. Raises
    ``UsageError`` for another kind of file, a folder that does not exist, and a selection that there is not.
    """
    dataset = DatasetTables.open(url)
    path = Path(out) if out is not None else default_path(dataset, selection)
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--out={path}: a report is a page; name a file that ends in .html")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--out={path}: there is no folder {path.parent}; make it, or name another")
    if out is None and not dataset.is_local and path.exists():
        raise UsageError(f"{path} is there already, maybe of another dataset; --out {path} replaces it")
    text = render(gather(url, selection=selection, progress=progress)).encode()
    if out is None and dataset.is_local:
        Folder.at(url).write(path.name, text)
    else:
        with new_file(path) as hidden:
            Path(hidden).write_bytes(text)
    return str(path)


def default_path(dataset: DatasetTables, selection: str | None) -> Path:
    """Return where a report lies if nothing else is said."""
    name = f"{NAME}.html" if selection is None else f"{NAME}-{selection}.html"
    return Path(dataset.folder.path if dataset.is_local else ".") / name


def render(data: ReportData, *, live: bool = False, playable: Collection[str] = ()) -> str:
    """Return the page. ``live``: it is served, and plays the clips whose ids are ``playable``."""
    from markupsafe import Markup

    pictured = {identity: number for number, (identity, clip) in enumerate(data.clips.items()) if clip.picture}
    sprites = "\n".join(_sprite(pictured[each], data.clips[each].picture) for each in pictured)
    style = f"{asset('report.css')}\n{sprites}\n"
    script = asset("report.js")
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            data=data,
            live=live,
            playable=frozenset(playable),
            pictured=pictured,
            policy=policy(style, script, live=live),
            style=Markup(style),
            script=Markup(script),
            sliders=Markup(_sliders(data)),
            name=dataset_name(data.dataset),
            dataset=shlex.quote(public(data.dataset)),
        )
    )


@cache
def asset(name: str) -> str:
    """Return a file beside the templates."""
    return (TEMPLATES / name).read_text(encoding="utf-8")


def policy(style: str, script: str, *, live: bool) -> str:
    """Return what the page may do, as a Content-Security-Policy: these two texts, and pictures that it holds itself."""

    def hashed(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    media = " media-src 'self';" if live else ""
    return (
        f"default-src 'none'; img-src data:; style-src {hashed(style)}; script-src {hashed(script)};{media} "
        "base-uri 'none'; form-action 'none'"
    )


def dataset_name(url: str) -> str:
    """Return the last part of where a dataset lies."""
    return public(url).rstrip("/").rpartition("/")[2] or url


@cache
def environment() -> Environment:
    """Return Jinja's environment: all values are escaped, and a name that is not there is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    env = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_plain,
    )
    env.filters |= {
        "amount": lambda number: f"{number:,}",
        "number": figure,
        "footage": length,
        "size": size,
        "pretty": lambda value: json.dumps(value, indent=2, ensure_ascii=False, default=str),
        "counted": counted,
        "quoted": shlex.quote,
        "words": lambda word: word.replace("_", " "),
    }
    env.globals |= {"share": share, "histogram": _histogram, "bar": charts.bar, "about": about, "around": around}
    return env


def _plain(value: object) -> object:
    """Jinja passes the value of every ``{{ }}`` through here."""
    from markupsafe import Markup

    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return shortened(clean(scrub(value)), LONGEST)


def figure(value: float, digits: int = 4) -> str:
    """Return a number with so many digits at most, as people write it; whole thousands keep all of theirs."""
    whole = 1000 <= abs(value) < 1e6
    text = f"{value:,.0f}" if whole else f"{value:.{digits}g}"
    return text.replace("-", "−")


def size(count: float) -> str:
    """Return a number of bytes in the unit that suits it."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def about(clip: Clip) -> str:
    """Return a line on a clip, for who cannot see its frames."""
    verdict = "" if clip.keep is None else ", kept" if clip.keep else f", dropped: {', '.join(clip.reasons)}"
    return f"{clip.source} {clip.place}{verdict}"


def _histogram(score: Score) -> Any:
    limits = [(threshold.side, threshold.value) for threshold in score.thresholds]
    limits += score.marks
    least, _, median, _, most = score.quantiles
    label = (
        f"Histogram of {score.column} over {counted(score.known, 'clip')}: from {figure(least)} to {figure(most)}, "
        f"median {figure(median)}"
    )
    return charts.histogram(score.histogram, clean(label), limits)


def _sprite(number: int, picture: Picture | None) -> str:
    """Return the rule that gives a clip's element its frames; at rest it shows the middle one."""
    assert picture is not None
    rest = picture.frames // 2 / max(1, picture.frames - 1) * 100
    data = base64.b64encode(picture.jpeg).decode()
    return (
        f".s{number}{{--n:{picture.frames};--rest:{rest:.1f}%;aspect-ratio:{picture.width}/{picture.height};"
        f"background-image:url(data:image/jpeg;base64,{data})}}"
    )


def around(setting: str) -> tuple[str, str]:
    """Return what stands in a shell before and after the value of a setting: names of columns come with the footage."""
    before, _, after = shlex.quote(f"{setting}=0").rpartition("0")
    return before, after


def _sliders(data: ReportData) -> str:
    """Return what the sliders show at each place, as JSON of numbers alone."""
    rows = [
        {
            "positions": limit.positions,
            "clips": limit.clips,
            "seconds": limit.seconds,
            "shares": limit.shares if limit.quantile else None,
            "low": score.histogram.edges[0],
            "high": score.histogram.edges[-1],
            "bins": len(score.histogram.kept),
        }
        for score in data.scores
        for limit in score.thresholds
    ]
    return json.dumps(rows, allow_nan=False)
