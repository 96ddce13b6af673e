"""Copies of a clip, and clips that share frames with a manifest's span: what falls whatever rules say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from dailies.curation.select.expressions import quoted
from dailies.curation.select.facts import CLIPS, CONTENT, FACTS
from dailies.curation.select.source import ClipRows, answer, read_batches

if TYPE_CHECKING:
    from dailies.curation.tables import Connection

GROUP = ", ".join(map(quoted, CONTENT))


def drop_copies(
    connection: Connection,
    clips: ClipRows,
    table: str,
    readable: Callable[[str], bool] | None,
    moved: pa.Table | None,
) -> None:
    """Make ``table`` of the usable clips (``fact``: row of ``facts``) whose content and span others have too, but for one.

    The first readable one stays. A manifest's span goes before a shot of the same frames, since it has columns of its own;
    then what a manifest says decides, and only of those that say the same the source id, which follows from where the
    source lies. ``moved``: ``source_id`` and ``uri`` of sources that lie elsewhere than the clips say.
    """
    # Most contents differ: those whose 64 bits of a hash are alike are few, and are looked at whole.
    repeated = f"select content from {FACTS} where usable group by content having count(*) > 1"
    answer(connection, f"create temp table repeated as {repeated}")
    placed = "c.uri"
    if moved is not None and len(moved):
        connection.from_arrow(moved).create("moved")
        placed = "coalesce((select moved.uri from moved where moved.source_id = c.source_id), c.uri)"
    shot = "c.span_id is null" if "span_id" in clips.columns else "true"
    columns = ", ".join(f"c.{quoted(name)}" for name in CONTENT)
    alike = f"""
        select f.fact, {columns}, {placed} as uri, c.manifest::varchar as manifest, c.source_id, c.clip_id, {shot} as shot
        from (select rowid as fact, clip_id from {FACTS} where usable and content in (from repeated)) f
        join {CLIPS} c on c.clip_id = f.clip_id
        qualify count(*) over (partition by {columns}) > 1
    """
    # Copies have a number in common, the least of their facts, and a place in the order in which one of them stays.
    order = "shot, manifest is null, coalesce(manifest, ''), source_id, clip_id"
    answer(
        connection,
        f"create temp table alike as select fact, uri, min(fact) over (partition by {GROUP}) as number, "
        f"row_number() over (partition by {GROUP} order by {order}) as place from ({alike})",
    )
    answer(connection, "create temp table instead (number bigint, fact bigint)")
    if readable is not None:
        _stand_in(connection, readable)
    answer(
        connection,
        f"create temp table {table} as select alike.fact from alike left join instead using (number) "
        "where case when instead.fact is null then place > 1 else alike.fact <> instead.fact end",
    )


def _stand_in(connection: Connection, readable: Callable[[str], bool]) -> None:
    """Fill ``instead``: of copies whose first cannot be read, the first that can. Each source is asked about once."""
    asked = {uri: readable(uri) for (uri,) in answer(connection, "select distinct uri from alike where place = 1")}
    gone = [uri for uri, there in asked.items() if not there]
    if not gone:
        return
    connection.from_arrow(pa.table({"uri": pa.array(gone, pa.string())})).create("unreadable")
    stand: dict[int, int] = {}
    for batch in read_batches(
        connection,
        """
        select number, fact, uri from alike
        where number in (select number from alike where place = 1 and uri in (from unreadable))
        order by number, place
    """,
    ):
        for number, fact, uri in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            if number in stand:
                continue
            if uri not in asked:
                asked[uri] = readable(uri)
            if asked[uri]:
                stand[number] = fact
    table = {"number": pa.array([*stand], pa.int64()), "fact": pa.array([*stand.values()], pa.int64())}
    connection.from_arrow(pa.table(table)).insert_into("instead")


def drop_overlapping(connection: Connection, clips: ClipRows, table: str) -> None:
    """Make ``table`` of the usable clips that share frames with a manifest's usable span of the same source, which stays.

    Of spans the first stays, and those that begin before its end fall; shots fall beside any span.
    """
    answer(connection, f"create temp table {table} (fact bigint)")
    if "span_id" not in clips.columns:
        return
    spanned = f"select distinct source_id from {CLIPS} where span_id is not null and status = 'ok'"
    answer(connection, f"create temp table spanned as {spanned}")
    answer(
        connection,
        f"""
        create temp table beside as
        select f.fact, c.source_id, c.stream, c.start, c."end", c.clip_id, c.span_id is null as shot
        from (select rowid as fact, clip_id from {FACTS} where usable and source_id in (from spanned)) f
        join {CLIPS} c on c.clip_id = f.clip_id
    """,
    )
    for falling in _outrun(connection):
        connection.from_arrow(pa.table({"fact": pa.array(falling, pa.int64())})).insert_into(table)
    # The furthest end of all spans that begin before a shot's end says whether one of them reaches into it.
    answer(
        connection,
        f"""
        insert into {table}
        with starts as (
            select source_id, stream, start, max("end") as "end" from beside where not shot group by all
        ), reached as (
            select source_id, stream, start, max("end") over (partition by source_id, stream order by start) as reach
            from starts
        )
        select s.fact from (from beside where shot) s
        asof join reached r on s.source_id = r.source_id and s.stream = r.stream and s."end" > r.start
        where r.reach > s.start
    """,
    )


def _outrun(connection: Connection) -> Iterator[list[int]]:
    """Yield the spans that begin before the end of one that stays.

    Which stay depends on each other, which no window says; so spans that touch no other are left out by one, and the
    others are walked through in order.
    """
    statement = """
        with reached as (
            select *, max("end") over (
                partition by source_id, stream order by start, "end", clip_id
                rows between unbounded preceding and 1 preceding
            ) as reach
            from beside where not shot
        ), grouped as (
            select *, count(*) filter (where reach is null or start >= reach) over (
                partition by source_id, stream order by start, "end", clip_id
                rows between unbounded preceding and current row
            ) as number
            from reached
        ), crowded as (
            select *, count(*) over (partition by source_id, stream, number) as many from grouped
        )
        select fact, source_id, stream, number, start, "end" from crowded where many > 1
        order by source_id, stream, number, start, "end", clip_id
    """
    group, free = None, 0
    batches = list(read_batches(connection, statement))  # a connection answers one question at a time
    for batch in batches:
        falling = []
        columns = [batch.column(name).to_pylist() for name in batch.schema.names]
        for at, source, stream, number, start, end in zip(*columns, strict=True):
            if group != (source, stream, number):
                group, free = (source, stream, number), end
            elif start < free:
                falling.append(at)
            else:
                free = end
        yield falling
