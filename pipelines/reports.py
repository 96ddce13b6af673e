"""Reports say what a run of curation did: plain values that commands print and Python callers read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dailies.curation.clips import CLIP_STATUSES
from dailies.curation.duplicates import KINDS
from dailies.curation.errors import RETRIED
from dailies.curation.select import Previewed
from dailies.curation.tables import Table


def kinds_of(failures: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return how many failures there are of each kind, the most frequent first."""
    return dict(Counter(failure["kind"] for failure in failures).most_common())


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceReport:
    """The sources named in a run: ``given``, of which ``ok`` are usable and hold ``seconds`` of video.

    ``packets_broken``: packets of usable sources that the decoder passed over. ``failures``: (uri, kind, message).
    ``changed``: uris whose content differed from the last run's; ``moved``: uris of sources that lay elsewhere then;
    ``withdrawn``: uris that were left out since they were withdrawn, which ``given`` does not count.
    """

    given: int
    ok: int
    seconds: float
    packets_broken: int
    failures: tuple[tuple[str, str, str], ...]
    changed: tuple[str, ...]
    moved: tuple[str, ...] = ()
    withdrawn: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        observations: Table,
        uris: Mapping[str, str],
        changed: Sequence[str],
        *,
        moved: Sequence[str] = (),
        withdrawn: Sequence[str] = (),
    ) -> SourceReport:
        """Return how the sources of this run fared, from the observations. ``uris``: where each lies, by id."""
        ids = pa.array(list(uris), pa.string())
        rows = observations.read(["source_id", "segment", "status", "seconds", "packets_broken"])
        broken = rows.filter(pc.equal(rows["status"], "failed"))["source_id"].combine_chunks()  # a segment is enough
        ok = rows.filter(
            pc.and_not(pc.is_in(rows["source_id"], value_set=ids), pc.is_in(rows["source_id"], value_set=broken))
        )
        failed = observations.read(["source_id", "failure"], equals={"status": "failed"})
        failed = failed.filter(pc.is_in(failed["source_id"], value_set=ids)).to_pylist()
        return cls(
            given=len(uris),
            ok=len(ok.filter(pc.equal(ok["segment"], 0))),
            seconds=pc.sum(ok["seconds"]).as_py() or 0.0,
            packets_broken=pc.sum(ok["packets_broken"]).as_py() or 0,
            failures=tuple(
                sorted((uris[row["source_id"]], row["failure"]["kind"], row["failure"]["message"]) for row in failed)
            ),
            changed=tuple(changed),
            moved=tuple(moved),
            withdrawn=tuple(withdrawn),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipsReport:
    """All clips of a dataset by status, one of ``CLIP_STATUSES``: how many, and how many seconds of video.

    ``failed`` counts the sources, and spans of manifests, that could not be cut, and ``kinds`` how many of them by kind.
    """

    counts: Mapping[str, int]
    seconds: Mapping[str, float]
    kinds: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, clips: Table) -> ClipsReport:
        rows = clips.read(["status", "seconds"])
        counts = dict.fromkeys(CLIP_STATUSES, 0)
        seconds = dict.fromkeys(counts, 0.0)
        for status, length in zip(rows["status"].to_pylist(), rows["seconds"].to_pylist(), strict=True):
            counts[status] += 1
            seconds[status] += length or 0.0  # a manifest's span outside of its source has no length
        failed = clips.read(["failure"], equals={"status": "failed"})["failure"].to_pylist() if counts["failed"] else []
        return cls(counts=counts, seconds=seconds, kinds=kinds_of(failed))


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotationReport:
    """The clips that one scorer or captioner failed on.

    ``kinds`` counts them by kind; ``message`` is one of theirs, of one that is not the clip's fault where there is one.
    """

    name: str
    failed: int
    kinds: Mapping[str, int]
    message: str

    @classmethod
    def of(cls, name: str, scores: Table) -> AnnotationReport:
        rows = scores.read(["failure"], equals={"status": "failed"})["failure"].to_pylist()
        ours = [row["message"] for row in rows if row["kind"] in RETRIED]
        messages = ours or [row["message"] for row in rows]
        return cls(name=name, failed=len(rows), kinds=kinds_of(rows), message=min(messages, default=""))


def broken_limit(reason: str, limits: Mapping[str, Mapping[str, Any]], values: Mapping[str, Any] = {}) -> str:
    """Return the limit that a clip dropped for ``reason`` lies beyond, such as ``motion < 0.3``; "" where it is no limit's.

    ``values``: the clip's columns; the text then has its value too, ``motion 0.12 < 0.3``.
    """
    for column, limit in limits.items():
        word = column.replace(".", "_")
        value = values.get(column)
        for side, sign, bound in (("low", "<", "min"), ("high", ">", "max")):
            if reason == f"{word}_{side}":
                measured = limit.get("expression", column) if value is None else f"{column} {value:.4g}"
                return f"{measured} {sign} {limit[bound]:.4g}"
        if reason == f"{word}_unmet":
            return f"not: {limit['holds']}"
    for column, cap in limits.get("at_most", {}).items():
        if reason == f"{column.replace('.', '_')}_cap":
            return f"over {cap['count']} per {column}"
    if reason == "balance" and "balance" in limits:
        return f"over {limits['balance'].get('count')} per {limits['balance']['column']}"
    if reason == "sample" and "sample" in limits:
        sample = limits["sample"]
        drawn = f"{sample['clips']:,}" if "clips" in sample else f"{100 * sample['share']:.4g} %"
        return f"not among the {drawn} drawn of {sample['of']:,}"
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionReport:
    """One selection over the whole dataset.

    ``reasons``: how many clips were dropped, by their first reason. ``limits``: the bounds that each rule, such as a
    quantile, resolved to. ``exports``: names of the recipe's export steps that take it.
    """

    name: str
    clips: int
    kept: int
    kept_seconds: float
    reasons: Mapping[str, int]
    limits: Mapping[str, Mapping[str, Any]]
    exports: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, name: str, verdicts: pa.Table, clips: pa.Table, limits: Mapping[str, Any], exports: Sequence[str] = ()
    ) -> SelectionReport:
        """Return it of verdicts that were stored, and of the lengths of ``clips``."""
        kept = verdicts.filter(verdicts["keep"])["clip_id"].combine_chunks()
        seconds = pc.sum(clips.filter(pc.is_in(clips["clip_id"], value_set=kept))["seconds"]).as_py() or 0.0
        counts = pc.value_counts(verdicts["reason"].drop_null()).to_pylist()
        reasons = Counter({each["values"]: each["counts"] for each in counts})
        return cls(
            name=name,
            clips=len(verdicts),
            kept=len(kept),
            kept_seconds=seconds,
            reasons=dict(reasons.most_common()),
            limits=limits,
            exports=tuple(exports),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicatesReport:
    """The copies among a dataset's clips.

    ``groups``: how many groups of copies there are; ``copies``: how many clips are in one, by the strongest kind by which they
    are; ``spare``: how many would go if one of each group stayed; ``largest_group``: clips of the largest. ``moved``: clips
    whose split is another than it was cut with, ``overruled`` those of them for which a manifest names another;
    ``largest_split_set``: clips of the largest set that must share a split.
    """

    name: str
    clips: int
    groups: int
    copies: Mapping[str, int]
    spare: int
    largest_group: int
    moved: int
    overruled: int
    largest_split_set: int

    @classmethod
    def of(cls, name: str, rows: pa.Table, *, moved: int, overruled: int, largest: int) -> DuplicatesReport:
        counts = {row["values"]: row["counts"] for row in pc.value_counts(rows["duplicate_kind"]).to_pylist()}
        groups = pc.count_distinct(rows["duplicate_group"]).as_py()
        copies = {kind: counts[kind] for kind in KINDS if kind in counts}
        return cls(
            name=name,
            clips=len(rows),
            groups=groups,
            copies=copies,
            spare=sum(copies.values()) - groups,
            largest_group=pc.max(rows["duplicate_size"]).as_py() if groups else 0,
            moved=moved,
            overruled=overruled,
            largest_split_set=largest,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionPreview:
    """What a selection would come to; ``limits``: the bounds that each rule resolved to."""

    name: str
    previewed: Previewed
    limits: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Some clips and their length."""

    clips: int = 0
    seconds: float = 0.0

    def __add__(self, other: Held) -> Held:
        return Held(clips=self.clips + other.clips, seconds=self.seconds + other.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionDiff:
    """Two selections of one dataset, ``a`` and ``b``.

    ``b_drops``: what ``a`` alone keeps, by the first reason for which ``b`` drops it; ``a_drops``: the other way round;
    ``not judged`` of clips that the selection does not have. ``splits``: by split, what ``both``, ``only_a`` and
    ``only_b`` keep.
    """

    a: str
    b: str
    both: Held
    only_a: Held
    only_b: Held
    neither: Held
    b_drops: Mapping[str, Held]
    a_drops: Mapping[str, Held]
    splits: Mapping[str, Mapping[str, Held]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """One export; ``path`` is ``None`` when there is none, because no clip was kept or none could be extracted.

    ``splits``: exported clips per split. ``kinds``: how many ``failed`` by kind. ``lost_seconds``: what keyframes cost: for
    clips copied from keyframe to keyframe the part outside, and the whole of those that cannot be copied, which are
    ``not_copied`` of the ``failed``.
    ``extracted``, ``taken_over``: how many clips this call extracted, or an earlier call of it that was killed, and how many it
    took from earlier exports; none of either where the export was there already. ``captions``: its columns of captions.
    ``selection``: whose clips it has.
    """

    name: str
    path: str | None
    splits: Mapping[str, int]
    failed: int
    kinds: Mapping[str, int] = field(default_factory=dict)
    bytes: int = 0
    seconds: float = 0.0
    lost_seconds: float = 0.0
    not_copied: int = 0
    selection: str = ""
    extracted: int = 0
    taken_over: int = 0
    captions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One run of ``curate``. ``duplicates``: None where the recipe looks for none; ``notes``: sentences on what its built-in
    models do not know of the sources."""

    dataset: str
    recipe: str
    recipe_hash: str
    sources: SourceReport
    clips: ClipsReport
    annotations: tuple[AnnotationReport, ...] = field(default=())
    duplicates: DuplicatesReport | None = None
    selections: tuple[SelectionReport, ...] = field(default=())
    exports: tuple[ExportReport, ...] = field(default=())
    notes: tuple[str, ...] = ()

    @property
    def all_failed(self) -> bool:
        """Return whether not one of the sources is usable."""
        return self.sources.ok == 0
