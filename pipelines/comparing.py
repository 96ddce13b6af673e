"""Two selections of one dataset beside each other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from dailies.curation import schema
from dailies.curation.config import offered
from dailies.curation.errors import UsageError
from dailies.curation.tables import DatasetTables, connect
from dailies.pipelines.reports import Held, SelectionDiff

NOT_JUDGED = "not judged"


def compare_selections(url: str, a: str, b: str) -> SelectionDiff:
    """Compare the selections ``a`` and ``b`` of the dataset at ``url``. Raises ``UsageError`` for one that there is not."""
    dataset = DatasetTables.open(url)
    there = [table.removeprefix("selections/") for table in dataset.tables() if table.startswith("selections/")]
    for name in (a, b):
        if name not in there:
            raise UsageError(f"{name}: no selection of {dataset.url}{offered(name, there) or '; it has none yet'}")
    parts: dict[str, Held] = defaultdict(Held)
    drops: dict[str, dict[str, Held]] = {"only_a": defaultdict(Held), "only_b": defaultdict(Held)}
    splits: dict[str, dict[str, Held]] = defaultdict(lambda: {name: Held() for name in ("both", "only_a", "only_b")})
    clips = _clips_tables(dataset, a, b)
    with connect(dataset, manifest=False, only=[f"selections/{a}", f"selections/{b}", *clips]) as connection:
        rows = connection.execute(_statement(a, b, clips)).fetchall()
    for part, split, reason, clips, seconds in rows:
        some = Held(clips=clips, seconds=seconds)
        parts[part] += some
        if part in drops:
            drops[part][reason or NOT_JUDGED] += some
        if part != "neither":
            splits[split or "none"][part] += some
    order = {name: number for number, name in enumerate(schema.SPLITS)}
    return SelectionDiff(
        a=a,
        b=b,
        both=parts["both"],
        only_a=parts["only_a"],
        only_b=parts["only_b"],
        neither=parts["neither"],
        b_drops=_most_first(drops["only_a"]),
        a_drops=_most_first(drops["only_b"]),
        splits=dict(sorted(splits.items(), key=lambda item: order.get(item[0], len(order)))),
    )


def _clips_tables(dataset: DatasetTables, a: str, b: str) -> list[str]:
    """Return the tables of clips that these selections are of."""
    read: dict[str, None] = {}
    for name in (a, b):
        tables = dataset.table(f"selections/{name}").properties().get("tables")
        read |= dict.fromkeys(tables if isinstance(tables, dict) else {})
    there = dataset.tables()
    return [name for name in read if name.startswith("clips/") and name in there]


def _statement(a: str, b: str, clips: Sequence[str]) -> str:
    """Return SQL of how many clips, and seconds, there are by part, split and the reason of the one that drops them."""
    lengths = " union ".join(f'select clip_id, seconds from "{name}"' for name in clips) or "select '', 0.0 where false"
    return f"""
        select
            case when x.keep and y.keep then 'both' when x.keep then 'only_a' when y.keep then 'only_b' else 'neither' end,
            coalesce(x.split, y.split),
            case when x.keep then y.reason when y.keep then x.reason end,
            count(*),
            coalesce(sum(l.seconds), 0.0)
        from "selections/{a}" x
        full join "selections/{b}" y using (clip_id)
        left join ({lengths}) l (clip_id, seconds) using (clip_id)
        group by all
    """


def _most_first(drops: dict[str, Held]) -> dict[str, Held]:
    return dict(sorted(drops.items(), key=lambda item: (-item[1].clips, item[0])))
