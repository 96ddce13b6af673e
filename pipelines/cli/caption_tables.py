"""What ``captions compare`` prints: two captioners beside each other, for a terminal or as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.text import Text

from dailies.curation.plain_text import one_line
from dailies.pipelines.cli.tables import DASH, counted, grid, share
from dailies.pipelines.cli.terminal import say_json, stdout

if TYPE_CHECKING:
    from dailies.pipelines.caption_comparing import CaptionComparison, CaptionerFigures, CaptionPair


def print_comparison(comparison: CaptionComparison, as_json: bool) -> None:
    if as_json:
        say_json(asdict(comparison))
        return
    out, sides = stdout(), (comparison.a, comparison.b)
    table = grid()
    table.add_column("captions")
    for side in sides:
        table.add_column(side.name, justify="right")
    for label, values in _figures(sides):
        table.add_row(label, *values)
    out.print(table)
    both = f"{counted(comparison.both, 'clip')} captioned by both, {comparison.same:,} with the same text"
    if comparison.likeness is not None:
        of = "" if comparison.compared == comparison.both else f", mean over {comparison.compared:,} of them"
        both += f"; likeness {comparison.likeness:.3f} (chrF, 0 to 1{of})"
    out.print(both, soft_wrap=True)
    if comparison.ties is None:
        out.print("similarity: needs a step clip for each, see docs/captions.md", soft_wrap=True)
    for head, pairs in (
        (f"where {comparison.a.name} fits better", comparison.a_fits_better),
        (f"where {comparison.b.name} fits better", comparison.b_fits_better),
        (f"drawn by seed {comparison.seed}", comparison.samples),
    ):
        _print_pairs(head, sides, pairs)


def _figures(sides: Sequence[CaptionerFigures]) -> list[tuple[str, list[str]]]:
    rows = [("texts", [f"{side.texts:,}" for side in sides])]
    for kind in ("statuses", "flags"):
        counts: Sequence[Mapping[str, int]] = [getattr(side, kind) for side in sides]
        for name in dict.fromkeys(name for each in counts for name in each):
            rows.append(
                (f"{'status' if kind == 'statuses' else 'flag'} {name}", [f"{each.get(name, 0):,}" for each in counts])
            )
    rows += [
        ("words, mean", [_number(side.mean_length, ".1f") for side in sides]),
        ("words, median", [_number(side.median_length, "g") for side in sides]),
        ("words, longest", [_number(side.longest, ",") for side in sides]),
        ("distinct words", [f"{side.vocabulary:,}" for side in sides]),
        ("distinct in equal samples", [_number(side.type_token_ratio, ".1%") for side in sides]),
        ("nearly the same as another", [share(side.alike, side.texts) for side in sides]),
    ]
    if sides[0].wins is not None:
        rows += [
            ("CLIP similarity, mean", [_number(side.similarity, ".3f") for side in sides]),
            ("fits better", [_number(side.wins, ",") for side in sides]),
        ]
    return rows


def _number(value: float | None, form: str) -> str:
    return DASH if value is None else format(value, form)


def _print_pairs(head: str, sides: Sequence[CaptionerFigures], pairs: Sequence[CaptionPair]) -> None:
    if not pairs:
        return
    out, width = stdout(), max(len(side.name) for side in sides)
    out.print()
    out.print(Text(head, style="bold"), soft_wrap=True)
    fitted = sides[0].wins is not None
    for pair in pairs:
        out.print(Text(pair.clip_id, style="dim"), soft_wrap=True)
        told = ((pair.a, pair.similarity_a), (pair.b, pair.similarity_b))
        for side, (text, similarity) in zip(sides, told, strict=True):
            fit = f"{_number(similarity, '.3f'):<6} " if fitted else ""
            out.print(f"  {side.name:<{width}}  {fit}{one_line(text)}", soft_wrap=True)
