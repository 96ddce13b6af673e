"""Charts as inline SVG. Colours are classes of the page's style sheet, so that they follow its light and dark.

A chart stretches to the width of its place, so that no text stands in it: labels are beside it, in the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dailies.pipelines.report.data import Histogram

if TYPE_CHECKING:
    from markupsafe import Markup

HEIGHT = 100  # of a histogram's bars, in its own units
LEAST = 1.5  # height of a bar that is not empty


def _svg(body: str, box: str, label: str, kind: str) -> Markup:
    from markupsafe import Markup, escape

    role = Markup('role="img" aria-label="{}"').format(label) if label else Markup('aria-hidden="true"')
    return Markup(f'<svg class="{kind}" viewBox="{box}" preserveAspectRatio="none" {escape(role)}>{body}</svg>')


def histogram(chart: Histogram, label: str, limits: Sequence[tuple[str, float]] = ()) -> Markup:
    """Return the bars of a histogram: kept at the bottom, above them what was dropped.

    ``limits``: side and value; of one off the chart the line is dashed, at that end of it.
    """
    bins = len(chart.kept)
    stacks = list(zip(chart.kept, chart.by_rule, chart.by_others, strict=True))
    most = max((sum(stack) for stack in stacks), default=0) or 1
    body = []
    for number, stack in enumerate(stacks):
        top = float(HEIGHT)
        for kind, count in zip(("kept", "rule", "other"), stack, strict=True):
            if count:
                tall = max(LEAST, count / most * HEIGHT)
                top -= tall
                body.append(
                    f'<rect class="{kind}" x="{number + 0.06:.2f}" width="0.88" y="{max(0.0, top):.2f}" '
                    f'height="{tall:.2f}"/>'
                )
    low, high = chart.edges[0], chart.edges[-1]
    for side, value in limits:
        at = min(max(0.0, (value - low) / (high - low)), 1.0) * bins
        off = "" if low <= value <= high else " off"
        body.append(f'<line class="limit{off}" data-side="{side}" x1="{at:.3f}" x2="{at:.3f}" y1="0" y2="{HEIGHT}"/>')
    return _svg("".join(body), f"0 0 {bins} {HEIGHT}", label, "histogram")


def bar(parts: Sequence[tuple[str, float]], whole: float) -> Markup:
    """Return one bar of a table, whose numbers stand beside it: (class, length) after each other, of ``whole``."""
    at, body = 0.0, []
    for kind, part in parts:
        wide = part / whole * 100 if whole else 0.0
        body.append(f'<rect class="{kind}" x="{at:.2f}" width="{wide:.2f}" height="8"/>')
        at += wide
    return _svg("".join(body), "0 0 100 8", "", "bar")
