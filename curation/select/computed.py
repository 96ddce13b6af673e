"""What an expression of a rule comes to, clip by clip, for whoever shows it: computed by DuckDB as a selection computes it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from dailies.curation.select.expressions import parse
from dailies.curation.select.facts import Value, computed_column, known_column
from dailies.curation.select.judge import MEMORY
from dailies.curation.select.source import answer


def columns_read(expression: str) -> tuple[str, ...]:
    """Return the columns that an expression reads. Raises ``ValueError`` where it cannot be understood."""
    return parse(expression).columns


def computed_values(rows: pa.Table, expression: str) -> pa.ChunkedArray:
    """Return the value of ``expression`` for each of ``rows``, in their order; what is no number is null.

    ``rows``: have the columns that it reads. Raises ``ValueError`` for columns of kinds that it cannot be computed of.
    """
    from dailies.curation.tables import confined  # DuckDB, which recipes alone have no need of

    columns = columns_read(expression)
    names = {column: f"v{number}" for number, column in enumerate(columns)}
    table = pa.table({"row": np.arange(len(rows)), **{names[column]: rows[column] for column in columns}})
    with confined(memory=MEMORY) as connection:
        connection.register("rows", table)
        types = {row[0]: row[1] for row in answer(connection, "describe select * from rows")}
        kinds = {column: Value(sql=name, type=types[name]).kind for column, name in names.items()}
        parsed = parse(expression, kinds.get, names.__getitem__)
        value = Value.computed("value", parsed.kind)
        known = [known_column(name, types[name]) for name in names.values()]
        sql = f"select {computed_column(parsed.sql, value)} from (select {', '.join(['row', *known])} from rows) order by row"
        return connection.sql(sql).to_arrow_table()["value"]
