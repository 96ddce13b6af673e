"""Cards: README.md for people, with a front matter that hubs read, rendered from a Jinja template in this package.

The front matter is written and read by ``huggingface_hub``'s card classes. What comes from data is text: every value in
a template is escaped as ``inline`` does unless a filter has made ``Markdown`` of it, so that no name, rule or caption can
break out of its place. In a block of code, where nothing can be escaped, values pass ``literal`` or ``shell``.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from dailies.curation.plain_text import one_line

if TYPE_CHECKING:
    from huggingface_hub import CardData


class Markdown(str):
    """Text that is Markdown already, and is not escaped again."""

    __slots__ = ()


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
        autoescape=False,  # which is for HTML; this is Markdown
        finalize=_escaped,
    )
    environment.filters |= FILTERS
    body = environment.get_template(template.name).render(**values)
    for name, value in vars(data).items():
        setattr(data, name, _cleaned(value))
    return str(RepoCard(f"---\n{data.to_yaml()}\n---\n\n{body}"))


def _cleaned(value: Any) -> Any:
    """Return what front matter holds with all its text on one line and without control characters."""
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, dict):
        return {one_line(name): _cleaned(inner) for name, inner in value.items()}
    return [_cleaned(inner) for inner in value] if isinstance(value, list) else value


def _escaped(value: object) -> object:
    """Jinja passes the value of every ``{{ }}`` through here."""
    from jinja2 import Undefined

    return value if isinstance(value, int | float | Undefined) else inline(value)


def inline(value: object) -> Markdown:
    """Return ``value`` as plain text on one line: what Markdown would take for markup or HTML is escaped."""
    if isinstance(value, Markdown):
        return value
    # Inside a word, "_" marks nothing: names of columns stay readable.
    text = re.sub(r"([\\`*~\[\]<>#|$]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", one_line(value))
    return Markdown(
        re.sub(r"^(\d+)?([-+.)])(?=[-\s]|$)|^(==)", r"\1\\\2\3", text)
    )  # a list, a rule, a heading's underline


def code(value: object, absent: str = "(not stated)") -> Markdown:
    """Return ``value`` as a code span on one line, with as many backticks as it takes; ``absent`` for ``None``."""
    if value is None or value == "":
        return Markdown(absent)
    text = one_line(value)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return Markdown(f"{fence}{space}{text}{space}{fence}")


def cell(value: object) -> Markdown:
    """Markdown that is one cell of a table."""
    text = value if isinstance(value, Markdown) else inline(value)
    return Markdown(re.sub(r"(?<!\\)\|", r"\\|", " ".join(text.split())))


def to_json(value: object) -> str:
    """Return JSON with sorted keys on one line."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def literal(value: object) -> Markdown:
    """Return ``value`` as a string or number of Python inside a block of code, which no backticks end."""
    return Markdown(json.dumps(one_line(value) if isinstance(value, str) else value).replace("`", "\\u0060"))


def shell(value: object) -> Markdown:
    """Return ``value`` as one word of a shell command inside a block of code, which no backticks end."""
    return Markdown(shlex.quote(one_line(value).replace("`", "")))


def link(value: object) -> Markdown:
    """Return the path of a file beside the card as the target of a link."""
    return Markdown(quote(one_line(value)))


FILTERS = {
    "code": code,
    "cell": cell,
    "inline": inline,
    "json": to_json,
    "literal": literal,
    "shell": shell,
    "link": link,
    "markdown": Markdown,
}
