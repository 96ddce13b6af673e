"""Prints every column that observers, scorers and captioners make: ``python -m scripts.columns > docs/columns.md``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

import pyarrow as pa

from dailies.curation.captioners import CAPTIONERS, COLUMNS
from dailies.curation.observers import OBSERVERS
from dailies.curation.schema import ALIKE_COLUMNS, CLIP_COLUMNS, DUPLICATE_COLUMNS
from dailies.curation.scorers import SCORERS

HEAD = """# Columns

Rules select by these columns, `dailies sql` shows them, and exports carry the measured ones. This page is written from
the code by `python -m scripts.columns > docs/columns.md`; a test holds that it is up to date.

## Of every clip

| column | unit | meaning |
|---|---|---|"""
OBSERVED = """
## By observers

They are there when the recipe's `observe` step lists the observer.

| column | unit | meaning | observer |
|---|---|---|---|"""
SCORED = """
## By scorers

They are there when the recipe has a `score` step with the scorer, and null for clips that it failed on. A `name` of the
step's own stands before them: `clip_large_clip_similarity`.

| column | unit | meaning | scorer |
|---|---|---|---|"""
GROUPED = """
## By the step dedup

They are there when the recipe has a `dedup` step, `captions_alike…` when it looks at captions; see
[duplicates.md](duplicates.md).

| column | unit | meaning |
|---|---|---|"""
CAPTIONED = """
## By captioners

They are there when the recipe has a `caption` step with the captioner; a step named `coca_large` makes
`caption_coca_large`.

| column | meaning | captioner |
|---|---|---|"""
PARAMETERS = """
Parameters and their defaults:

| | |
|---|---|"""


def page() -> str:
    """Return the page as markdown."""
    lines = [HEAD, *(f"| {_cells(column)} |" for column in CLIP_COLUMNS)]
    lines += [OBSERVED, *_measured(OBSERVERS, "measures"), PARAMETERS, *_parameters(OBSERVERS)]
    lines += [SCORED, *_measured(SCORERS, "columns"), PARAMETERS, *_parameters(SCORERS)]
    lines += [GROUPED, *(f"| {_cells(column)} |" for column in (*DUPLICATE_COLUMNS, *ALIKE_COLUMNS))]
    lines += [CAPTIONED, *_captioned()]
    lines += [PARAMETERS, *_parameters(CAPTIONERS)]
    return "\n".join(lines) + "\n"


def _measured(table: Mapping[str, Any], attribute: str) -> Iterator[str]:
    for name, cls in table.items():
        for column in getattr(cls, attribute):
            yield f"| {_cells(column)} | `{name}` |"


def _captioned() -> Iterator[str]:
    for name, cls in CAPTIONERS.items():
        yield f"| `caption_{name}` | {_sentence(cls)} | `{name}` |"
        for column in cls.columns[len(COLUMNS) :]:
            yield f"| `{column.name}_{name}` | {column.metadata[b'doc'].decode()} | `{name}` |"


def _parameters(table: Mapping[str, Any]) -> Iterator[str]:
    for name, cls in table.items():
        yield f"| `{name}` | {', '.join(_parameter(item) for item in fields(cls))} |"


def _parameter(item: Field[Any]) -> str:
    default = item.default if item.default_factory is MISSING else item.default_factory()
    if default is MISSING:
        return f"`{item.name}` (required)"
    return f"`{item.name}={f'{default:.4g}' if isinstance(default, float) else default}`"


def _cells(column: pa.Field) -> str:
    metadata = {key.decode(): value.decode().replace("|", "\\|") for key, value in column.metadata.items()}
    return f"`{column.name}` | {metadata.get('unit', '')} | {metadata['doc']}"


def _sentence(cls: Any) -> str:
    """The first sentence of a class's docstring."""
    return " ".join(cls.__doc__.split()).partition(". ")[0].removesuffix(".")


if __name__ == "__main__":
    print(page(), end="")
