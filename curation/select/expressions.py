"""Expressions over columns, as a recipe writes them: ``text_area < 0.02 and motion > 1``, or ``bytes / seconds``.

The syntax is that of SQL's scalar expressions, so what ``dailies sql`` takes after ``where`` can be copied here, as far as
it is made of columns, numbers, words in single quotes, the operators below and ``FUNCTIONS``. A recipe may be anybody's, so
no text of it goes to DuckDB: it is parsed here, and the SQL is made from what was understood.

A value that is missing makes the expression missing, unless ``is null``, ``coalesce``, ``and`` or ``or`` decide otherwise, as
in SQL. So do a division by zero, and a root or logarithm of what has none. Numbers are 64-bit floats.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn

from dailies.curation.config import offered

Kind = Literal["number", "text", "bool", "other"] | None
"""What values are; None: not known."""

MOST_CHARACTERS = 1000
MOST_DEPTH = 40
MOST_SQL = 50_000  # characters

TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
    | (?P<text>'(?:[^']|'')*')
    | (?P<name>(?:[A-Za-z_]\w*|"[^"]+")(?:\.(?:\w+|"[^"]+"))*)
    | (?P<sign><=|>=|<>|!=|==|[-+*/%<>=(),])
    )""",
    re.VERBOSE,
)
NAME_PART = re.compile(r'"([^"]+)"|(\w+)')
COMPARISONS = {sign: sign for sign in ("<", "<=", ">", ">=", "=", "<>")} | {"==": "=", "!=": "<>"}
NUMBER: Kind = "number"

FUNCTIONS: dict[str, tuple[tuple[Kind, ...], Kind, str]] = {
    "abs": ((NUMBER,), NUMBER, "abs({0})"),
    "ceil": ((NUMBER,), NUMBER, "ceil({0})"),
    "floor": ((NUMBER,), NUMBER, "floor({0})"),
    "round": ((NUMBER,), NUMBER, "round({0})"),
    "exp": ((NUMBER,), NUMBER, "exp({0})"),
    "sqrt": ((NUMBER,), NUMBER, "sqrt(case when {0} >= 0 then {0} end)"),
    "ln": ((NUMBER,), NUMBER, "ln(case when {0} > 0 then {0} end)"),
    "log10": ((NUMBER,), NUMBER, "log10(case when {0} > 0 then {0} end)"),
    "lower": (("text",), "text", "lower({0})"),
    "upper": (("text",), "text", "upper({0})"),
    "length": (("text",), NUMBER, "length({0})::double"),
    "contains": (("text", "text"), "bool", "contains({0}, {1})"),
    "starts_with": (("text", "text"), "bool", "starts_with({0}, {1})"),
    "ends_with": (("text", "text"), "bool", "ends_with({0}, {1})"),
}
"""Name → kinds of its arguments, kind of its result, and the SQL."""

OF_MANY = ("least", "greatest", "coalesce")
"""Functions of two arguments or more, all of one kind, which is that of the result."""

WORDS = {"and", "or", "not", "is", "in", "between", "like", "null", "true", "false"}


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression that was understood: the ``columns`` it reads, the ``kind`` of its values, and its ``sql``."""

    columns: tuple[str, ...]
    kind: Kind
    sql: str


def parse(
    text: str,
    kind_of: Callable[[str], Kind] = lambda column: None,
    column_sql: Callable[[str], str] | None = None,
) -> Expression:
    """Parse an expression. Raises ``ValueError`` saying what is wrong, and what is allowed.

    Args:
        kind_of: of a column's values, None where it is not known yet.
        column_sql: what stands for a column in the SQL; by default its name in quotes.
    """
    return _Parser(text, kind_of, column_sql or quoted).whole()


def quoted(name: str) -> str:
    """Return a name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a word as SQL has it."""
    return "'" + text.replace("'", "''") + "'"


def double(value: float) -> str:
    """Return a number as SQL has it, an infinite one too."""
    return f"'{float(value)!r}'::double"


@dataclass(frozen=True, slots=True)
class _Part:
    sql: str
    kind: Kind


class _Parser:
    def __init__(
        self,
        text: str,
        kind_of: Callable[[str], Kind],
        column_sql: Callable[[str], str],
    ) -> None:
        if len(text) > MOST_CHARACTERS:
            raise ValueError(f"an expression may have {MOST_CHARACTERS} characters, not {len(text)}")
        self._text, self._kind_of, self._column_sql = text, kind_of, column_sql
        self._tokens = list(_tokens(text))
        self._at = self._depth = 0
        self._columns: dict[str, None] = {}

    def whole(self) -> Expression:
        part = self._or()
        if self._at < len(self._tokens):
            self._fail(f"{self._tokens[self._at][1]!r} is not understood here")
        return Expression(tuple(self._columns), part.kind, part.sql)

    # ---- what stands next ----

    def _fail(self, why: str) -> NoReturn:
        raise ValueError(f"expression {self._text!r}: {why}")

    def _word(self) -> str:
        """Return the next token as it is compared: a sign, or a keyword in small letters."""
        if self._at == len(self._tokens):
            return ""
        kind, text = self._tokens[self._at]
        return text if kind == "sign" else text.lower() if kind == "name" and '"' not in text else ""

    def _take(self, *options: str) -> str | None:
        if (word := self._word()) in options:
            self._at += 1
            return word
        return None

    def _expect(self, word: str) -> None:
        if self._take(word) is None:
            there = self._tokens[self._at][1] if self._at < len(self._tokens) else "its end"
            self._fail(
                f"{word!r} is missing before {there!r}" if there != "its end" else f"{word!r} is missing at its end"
            )

    def _of(self, part: _Part, kind: Kind, what: str) -> None:
        if part.kind not in (kind, None):
            names = {"number": "a number", "text": "text", "bool": "true or false"}
            self._fail(
                f"{what} needs {names.get(str(kind), 'a plain value')}, and {part.sql} is {names.get(str(part.kind), 'none')}"
            )

    def _alike(self, parts: Sequence[_Part], what: str) -> Kind:
        """Return the kind that all parts have."""
        kinds = [part.kind for part in parts if part.kind is not None]
        for part in parts:
            self._of(part, kinds[0] if kinds else None, what)
            if part.kind == "other":
                self._fail(f"{part.sql} is no plain value")
        return kinds[0] if kinds else None

    # ---- the grammar, from what binds least ----

    def _or(self) -> _Part:
        self._depth += 1
        if self._depth > MOST_DEPTH:
            self._fail(f"it is nested over {MOST_DEPTH} deep")
        part = self._joined("or", self._and)
        self._depth -= 1
        return part

    def _and(self) -> _Part:
        return self._joined("and", self._not)

    def _joined(self, word: str, inner: Callable[[], _Part]) -> _Part:
        parts = [inner()]
        while self._take(word):
            parts.append(inner())
        if len(parts) == 1:
            return parts[0]
        for part in parts:
            self._of(part, "bool", word)
        return _Part(f"({f' {word} '.join(part.sql for part in parts)})", "bool")

    def _not(self) -> _Part:
        turned = False
        while self._take("not"):
            turned = not turned
        part = self._predicate()
        if not turned:
            return part
        self._of(part, "bool", "not")
        return _Part(f"(not {part.sql})", "bool")

    def _predicate(self) -> _Part:
        left = self._sum()
        if sign := self._take(*COMPARISONS):
            right = self._sum()
            self._alike([left, right], sign)
            return _Part(f"({left.sql} {COMPARISONS[sign]} {right.sql})", "bool")
        if self._take("is"):
            word = "is not" if self._take("not") else "is"
            self._expect("null")
            return _Part(f"({left.sql} {word} null)", "bool")
        no = "not " if self._take("not") else ""
        if self._take("between"):
            low = self._sum()
            self._expect("and")
            high = self._sum()
            self._alike([left, low, high], "between")
            return _Part(f"({left.sql} {no}between {low.sql} and {high.sql})", "bool")
        if self._take("in"):
            self._expect("(")
            among = self._list()
            self._alike([left, *among], "in")
            return _Part(f"({left.sql} {no}in ({', '.join(part.sql for part in among)}))", "bool")
        if self._take("like"):
            pattern = self._sum()
            self._of(left, "text", "like")
            self._of(pattern, "text", "like")
            return _Part(f"({left.sql} {no}like {pattern.sql})", "bool")
        if no:
            self._fail("after a value, not stands before in, between or like")
        return left

    def _sum(self) -> _Part:
        return self._reckoned(("+", "-"), self._product)

    def _product(self) -> _Part:
        return self._reckoned(("*", "/", "%"), self._signed)

    def _reckoned(self, signs: Sequence[str], inner: Callable[[], _Part]) -> _Part:
        left = inner()
        while sign := self._take(*signs):
            right = inner()
            for part in (left, right):
                self._of(part, "number", sign)
            below = f"nullif({right.sql}, 0)" if sign in "/%" else right.sql
            left = _Part(f"({left.sql} {sign} {below})", "number")
        return left

    def _signed(self) -> _Part:
        minus = 0
        while sign := self._take("-", "+"):
            minus += sign == "-"
        part = self._value()
        if minus % 2 == 0:
            return part
        self._of(part, "number", "-")
        return _Part(f"(-{part.sql})", "number")

    def _value(self) -> _Part:
        if self._at == len(self._tokens):
            self._fail("something is missing at its end")
        if self._take("("):
            part = self._or()
            self._expect(")")
            return part
        kind, text = self._tokens[self._at]
        self._at += 1
        if kind == "number":
            if not math.isfinite(float(text)):
                self._fail(f"{text} is too large a number")
            return _Part(f"{float(text)!r}::double", "number")
        if kind == "text":
            return _Part(literal(text[1:-1].replace("''", "'")), "text")
        if kind == "sign":
            self._fail(f"{text!r} is not understood here")
        word = text.lower()
        if word in ("true", "false"):
            return _Part(word, "bool")
        if word == "null":
            return _Part("null", None)
        if word in WORDS:
            self._fail(f"{text!r} is not understood here")
        return self._function(word) if self._take("(") else self._column(text)

    def _list(self) -> list[_Part]:
        """Return what stands in parentheses, of which the first is read already."""
        parts = [self._or()]
        while self._take(","):
            parts.append(self._or())
        self._expect(")")
        return parts

    def _function(self, name: str) -> _Part:
        parts = self._list()
        if name in OF_MANY:
            if len(parts) < 2:
                self._fail(f"{name} takes two values or more")
            return _Part(f"{name}({', '.join(part.sql for part in parts)})", self._alike(parts, name))
        if name not in FUNCTIONS:
            self._fail(f"unknown function {name!r}{offered(name, sorted([*FUNCTIONS, *OF_MANY]))}")
        takes, kind, sql = FUNCTIONS[name]
        if len(parts) != len(takes):
            self._fail(f"{name} takes {len(takes)} value{'s' * (len(takes) > 1)}, not {len(parts)}")
        for part, wanted in zip(parts, takes, strict=True):
            self._of(part, wanted, name)
        text_sql = sql.format(*(part.sql for part in parts))
        if len(text_sql) > MOST_SQL:  # a root names its argument twice
            self._fail("it is nested too deep")
        return _Part(text_sql, kind)

    def _column(self, text: str) -> _Part:
        name = ".".join(inside or plain for inside, plain in NAME_PART.findall(text))
        self._columns[name] = None
        kind = self._kind_of(name)
        sql = self._column_sql(name)
        return _Part(f"{sql}::double" if kind == "number" else sql, kind)


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    at, end = 0, len(text.rstrip())
    while at < end:
        match = TOKEN.match(text, at)
        if match is None or (match["sign"] == "-" and text[match.end() :].startswith("-")):  # as SQL has comments
            raise ValueError(f"expression {text!r}: {text[at:].strip()[:20]!r} is not understood")
        kind = match.lastgroup
        assert kind is not None
        yield kind, match[kind]
        at = match.end()
