"""One table of DuckDB's has all that is asked about each clip: ids, status, and the values that criteria read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from dailies.curation.errors import DatasetError, UsageError
from dailies.curation.select.expressions import Kind, quoted
from dailies.curation.select.manifest import PREFIX, typed_sql
from dailies.curation.select.rules import Criteria, Rule, columns_of, understood
from dailies.curation.select.source import ClipRows, answer

if TYPE_CHECKING:
    from dailies.curation.tables import Connection

CLIPS = "clips"
FACTS = "facts"
ID = "clip_id"
SPLIT = "split"
"""A column of the clips; where a table of scores shows one too, such as that of groups of copies, that one holds."""
IDENTITY = (ID, "source_id", SPLIT, "status")
ORDER = ("seconds", "start")  # by which caps choose, and lengths are summed
CONTENT = ("content_id", "stream", "start", "end")
"""What clips that are copies of each other share."""
READ = {*IDENTITY, *ORDER, *CONTENT, "uri", "manifest", "span_id"}

INTEGERS = {f"{sign}{size}INT" for sign in ("", "U") for size in ("TINY", "SMALL", "BIG", "HUGE", "")} | {"INTEGER"}
INTEGERS |= {"UINTEGER"}
FLOATS = {"FLOAT", "DOUBLE"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Unjudged:
    """Sources whose clips no rule over a column is asked about, since the column says nothing of them, and why."""

    why: str
    sources: pa.Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A column of ``facts``: a number is never NaN there. ``type``: DuckDB's name of it."""

    sql: str
    type: str

    @classmethod
    def computed(cls, name: str, kind: Kind) -> Value:
        """Return the column of this name that holds what an expression of this kind comes to."""
        types = {"number": "DOUBLE", "text": "VARCHAR", "bool": "BOOLEAN"}
        return cls(sql=name, type=types.get(kind or "", '"NULL"'))

    @property
    def kind(self) -> Kind:
        if self.type in INTEGERS | FLOATS or self.type.startswith("DECIMAL"):
            return "number"
        return {"VARCHAR": "text", "BOOLEAN": "bool", '"NULL"': None, "NULL": None}.get(self.type, "other")

    @property
    def number(self) -> str:
        """SQL of it as a 64-bit float."""
        if self.kind == "text":  # a manifest's, of which each may be a number, and "nan" is none
            return f"(case when {self.nan} then null else try_cast({self.sql} as double) end)"
        return f"{self.sql}::int::double" if self.kind == "bool" else f"{self.sql}::double"

    @property
    def nan(self) -> str:
        """SQL of whether a text says that there is no number, as tables of others do."""
        return f"coalesce(isnan(try_cast({self.sql} as double)), false)" if self.kind == "text" else "false"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The table ``facts``, a row per clip in no order.

    ``values``: by column, or by the text of an expression; ``apart``: by column, SQL that is true of clips which no rule
    over it is asked about; ``columns``: its others.
    """

    connection: Connection
    values: Mapping[str, Value]
    apart: Mapping[str, str]
    columns: Sequence[str]


def gather(
    connection: Connection,
    clips: ClipRows,
    scores: Sequence[ClipRows],
    criteria: Criteria,
    unjudged: Mapping[str, Unjudged],
) -> Facts:
    """Make the table ``facts``: the clips joined to what is asked of each table, and of no other column.

    Ids are joined by 128 bits of hashes, not by their own letters, which take five seconds more of ten million clips:
    two clips differ in these more surely than by the 96 bits that their ids have. Raises ``DatasetError`` where a join
    gives a clip more than one row: were two hashes alike, or had a table a clip twice.
    """
    columns, split = list(criteria.columns), f"c.{quoted(SPLIT)}"
    clips.register(connection, CLIPS, [name for name in clips.columns if name in {*READ, *columns}])
    joins, sql = [], _of_clips(clips, columns)
    for number, source in enumerate(scores):
        wanted = {name: stored for name, stored in source.columns.items() if name in columns and name not in sql}
        if SPLIT in source.columns:
            wanted[SPLIT] = source.columns[SPLIT]
            split = f"coalesce(s{number}.{quoted(wanted[SPLIT])}, {split})"
        if wanted:
            view = f"scores_{number}"
            source.register(connection, view, [ID, *wanted.values()])
            sql |= {name: f"s{number}.{quoted(stored)}" for name, stored in wanted.items() if name != SPLIT}
            joins.append(f"left join (select {_keys()}, * from {view}) s{number} using (key_1, key_2)")
    sql |= {SPLIT: split} if SPLIT in columns else {}
    sql |= typed_sql(connection, CLIPS, [name for name in columns if name.startswith(PREFIX)])
    if unknown := [name for name in columns if name not in sql]:
        raise UsageError(f"unknown column {unknown[0]!r}; there are {', '.join(sql)}")
    names = {name: f"v{number}" for number, name in enumerate(columns)}
    base = [*IDENTITY, *(name for name in ORDER if name in clips.columns)]
    picked = [f"{split if name == SPLIT else f'c.{quoted(name)}'} as {quoted(name)}" for name in base]
    picked += [f"{sql[name]} as {names[name]}" for name in columns]
    if criteria.duplicates == "drop":
        picked.append(f"hash({', '.join(f'c.{quoted(name)}' for name in CONTENT)}) as content")
    raw = f"select {', '.join(picked)} from (select {_keys()}, * from {CLIPS}) c {' '.join(joins)}"
    types = {row[0]: row[1] for row in answer(connection, f"describe {raw}")}
    values = {name: Value(sql=names[name], type=types[names[name]]) for name in columns}
    cleaned = [known_column(names[name], values[name].type) for name in columns]
    kept = [*map(quoted, base), *(["content"] if criteria.duplicates == "drop" else [])]
    facts = f"select {', '.join([*kept, *cleaned])} from ({raw})"
    facts, computed = _computed(facts, criteria.rules, values)
    apart = _apart(connection, criteria.rules, unjudged)
    flags = "".join(f", {condition} as {name}" for name, condition in apart.values())
    usable = "status is not distinct from 'ok' as usable"
    answer(connection, f"create temp table {FACTS} as select *, {usable}{flags} from ({facts})")
    _check_once(connection)
    return Facts(
        connection=connection,
        values=values | computed,
        apart={rule: name for rule, (name, _) in apart.items()},
        columns=base,
    )


def _check_once(connection: Connection) -> None:
    """Raise ``DatasetError`` where the table of facts has more rows than there are clips."""
    ((there, joined),) = answer(connection, f"select (select count(*) from {CLIPS}), (select count(*) from {FACTS})")
    if there != joined:
        raise DatasetError(
            f"clips: {there} are {joined} rows with their scores: a table of scores or duplicates has a clip twice; "
            "take the dataset from a sound copy, or curate into a new one"
        )


def _keys() -> str:
    return f"hash({ID}) as key_1, hash({ID} || '.') as key_2"


def _of_clips(clips: ClipRows, columns: Sequence[str]) -> dict[str, str]:
    return {name: f"c.{quoted(stored)}" for name, stored in clips.columns.items() if name in columns}


def known_column(name: str, kind: str) -> str:
    """Return SQL of a value that is null where it is no number."""
    return f"case when isnan({name}) then null else {name} end as {name}" if kind in FLOATS else name


def _computed(facts: str, rules: Mapping[str, Rule], values: Mapping[str, Value]) -> tuple[str, dict[str, Value]]:
    """Add a column for each expression of the rules. Returns the SQL, and the values by the expressions' texts."""
    kinds = {name: value.kind for name, value in values.items()}
    computed: dict[str, Value] = {}
    columns = []
    for name, rule in each_rule(rules):
        if rule.expression is None or rule.expression in computed:
            continue
        expression = understood(name, rule, kinds, lambda column: values[column].sql)
        value = Value.computed(f"e{len(computed)}", expression.kind)
        columns.append(computed_column(expression.sql, value))
        computed[rule.expression] = value
    return (f"select *, {', '.join(columns)} from ({facts})" if columns else facts), computed


def computed_column(sql: str, value: Value) -> str:
    """Return SQL of what an expression comes to, as ``value``."""
    if value.kind == "number":  # infinity minus infinity is none
        return f"case when isnan({sql}) then null else {sql} end as {value.sql}"
    return f"{sql} as {value.sql}"


def each_rule(rules: Mapping[str, Rule]) -> list[tuple[str, Rule]]:
    """Return rules and those nested in them, in order, that are over a column or an expression."""
    out: list[tuple[str, Rule]] = []
    for name, rule in rules.items():
        if rule.nested is None:
            out.append((name, rule))
        for group in rule.nested or ():
            out += each_rule(group)
    return out


def _apart(
    connection: Connection, rules: Mapping[str, Rule], unjudged: Mapping[str, Unjudged]
) -> dict[str, tuple[str, str]]:
    """Return by rule the name of a column of ``facts`` and SQL of it: true of clips that the rule is not asked about.

    A rule over several columns is not asked where one of them says nothing.
    """
    out: dict[str, tuple[str, str]] = {}
    tables: dict[str, str] = {}
    for name, rule in rules.items():
        columns = [column for column in dict.fromkeys(columns_of(name, rule)) if column in unjudged]
        for column in columns:
            if column not in tables:
                tables[column] = f"apart_{len(tables)}"
                sources = pa.table({"source_id": unjudged[column].sources.cast(pa.string())})
                connection.from_arrow(sources).create(tables[column])
        if columns:
            where = " or ".join(f"source_id in (select source_id from {tables[column]})" for column in columns)
            out[name] = (f"a{len(out)}", f"coalesce({where}, false)")
    return out
