"""Cards: README.md for people, with a front matter that hubs read, rendered from a Jinja template in this package.

The front matter is written and read by ``huggingface_hub``'s card classes. Values reach Markdown through the filters
``code``, ``cell`` and ``inline``, so that no name or rule can break out of its place.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from huggingface_hub import CardData


def render(template: Path, data: CardData, /, **values: Any) -> str:
    """Return the text of a card: the front matter of ``data``, then ``template`` filled with ``values``; it may include
    others of its folder.

    A name in the template that ``values`` lacks is an error of ``jinja2``, not an empty place.
    """
    from huggingface_hub import RepoCard
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    # `RepoCard.from_template` leaves undefined names empty and allows no filters of one's own.
    environment = Environment(
        loader=FileSystemLoader(template.parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # this is Markdown
    )
    environment.filters |= {"code": code, "cell": cell, "inline": inline, "json": to_json}
    body = environment.get_template(template.name).render(**values)
    return str(RepoCard(f"---\n{data.to_yaml()}\n---\n\n{body}"))


def inline(value: object) -> str:
    """Return ``value`` as plain text on one line: what Markdown would take for markup or HTML is escaped."""
    return re.sub(r"([\\`*_\[\]<>#|])", r"\\\1", " ".join(str(value).split()))


def code(value: object, absent: str = "(not stated)") -> str:
    """Return ``value`` as a code span on one line, with as many backticks as it takes; ``absent`` for ``None``."""
    if value is None or value == "":
        return absent
    text = " ".join(str(value).split())
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{text}{space}{fence}"


def cell(value: object) -> str:
    """Markdown that is one cell of a table."""
    return " ".join(str(value).split()).replace("|", "\\|")


def to_json(value: object) -> str:
    """Return JSON with sorted keys on one line."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
