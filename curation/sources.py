"""Sources: what a user names on the command line becomes one row per video.

A SOURCE is a video file, a folder (searched for videos, deep), a glob, or a manifest: a table of videos or of spans of
videos, see ``manifests``. A manifest's other columns go along as the source's, or the span's, ``manifest``. What the user
names is trusted; what a manifest names is only taken as a policy lets it (``policy``).
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dailies.curation.addresses import public, scrub
from dailies.curation.errors import UsageError
from dailies.curation.folders import files_below, files_matching
from dailies.curation.manifests import MANIFEST_SUFFIXES, VIDEO_SUFFIXES, Named, absolute, read_manifest
from dailies.curation.packages import need
from dailies.curation.policy import WEB, SourcePolicy, local_path, opening_by, refused_by_store, scheme_of
from dailies.curation.retrying import cause_of, refused, retried
from dailies.curation.schema import source_id
from dailies.curation.video.bytes_io import store_of


def list_sources(
    arguments: Iterable[str],
    *,
    column: str | None = None,
    policy: SourcePolicy = SourcePolicy(),  # noqa: B008 - frozen
    follow_links: bool = True,
) -> Iterator[dict[str, Any]]:
    """List the sources, each once and in a stable order.

    Yields dicts of ``source_id``, ``uri``, ``address`` (with what ``uri`` lacks, to read the source by: it is kept in memory
    alone; several may have one ``uri``), ``manifest`` (JSON or None), ``whole`` (whether it is to be cut as a whole) and
    ``spans``: those that manifests name, as dicts of ``start``, ``end`` (s) and ``manifest``, each to be a clip; ``named``:
    whether the user named it, and not a manifest alone; ``refused``: why it is not to be opened, or None.

    Args:
        arguments: Files, folders, globs and manifests.
        column: Manifests' column that names the videos; without it, it is found.
        policy: What manifests may name.
        follow_links: Whether to look behind the links that lie in folders, or that globs match.

    Raises ``UsageError`` for an argument that names nothing and for a manifest's wrong row, and ``NotInstalled`` where the
    client of a store is missing, before the first is yielded.
    """
    listed: dict[str, _Listed] = {}
    for named in [named for argument in arguments for named in _named(argument, column, policy, follow_links)]:
        listed.setdefault(named.uri, _Listed(named.uri)).add(named)
    for address in {scheme_of(uri): uri for uri, source in listed.items() if source.refusal is None}.values():
        _check_store(address)
    for address, source in listed.items():
        uri = public(address)
        yield {"source_id": source_id(uri), "uri": uri, "address": address, **source.row()}


class _Listed:
    """A source as the arguments name it, once or more: as a whole (span None), and by spans of it."""

    __slots__ = ("named", "trusted", "uri")

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.trusted = False  # as the user named it
        self.named: dict[tuple[float, float] | None, Named] = {}

    def add(self, named: Named) -> None:
        """Take another row. Raises ``UsageError`` where it says of a span, or of the whole, other things than one before."""
        self.trusted |= not named.where
        known = self.named.get(named.span)
        if known is None or known.columns is None:
            self.named[named.span] = named
        elif named.columns not in (None, known.columns):
            what = "the same span of it" if named.span else "it as a whole"
            advice = "leave one out" if named.span else "give each row a start and an end, or leave one out"
            raise UsageError(
                f"manifest {named.where}: names {Path(self.uri).name} again, {what}, with other columns than "
                f"{known.where}; {advice}"
            )

    def row(self) -> dict[str, Any]:
        whole = self.named.get(None)
        spans = [
            {"start": span[0], "end": span[1], "manifest": named.columns}
            for span, named in sorted(self.named.items(), key=lambda item: item[0] or ())
            if span is not None
        ]
        return {
            "manifest": whole.columns if whole else None,
            "whole": whole is not None,
            "spans": spans,
            "named": self.trusted,
            "refused": self.refusal,
        }

    @property
    def refusal(self) -> str | None:
        """Why it is not to be opened."""
        refusals = [named.refused for named in self.named.values()]
        return refusals[0] if all(refusals) and not self.trusted else None


def _named(argument: str, column: str | None, policy: SourcePolicy, follow_links: bool) -> list[Named]:
    """Return what one argument names."""
    if "://" in argument:
        return _remote(argument, policy)
    path = Path(argument).expanduser()
    if glob.has_magic(argument) and not path.exists():
        matches = files_matching(str(path), follow_links=follow_links)
        if not matches:
            raise UsageError(f"{argument}: no file matches")
        return [named for match in matches for named in _named(match, column, policy, follow_links)]
    if path.is_dir():
        videos = files_below(str(path), _is_video, follow_links=follow_links)
        if not videos:
            raise UsageError(f"{argument}: no video in this folder; looked for {' '.join(sorted(VIDEO_SUFFIXES))}")
        return [Named(uri=absolute(file)) for file in videos]
    if not path.exists():
        raise UsageError(f"{argument}: no such file or folder")
    if path.suffix.lower() in MANIFEST_SUFFIXES:
        return read_manifest(path, column, policy)
    return [Named(uri=absolute(path))]


def _is_video(name: str) -> bool:
    return Path(name).suffix.lower() in VIDEO_SUFFIXES


def _remote(url: str, policy: SourcePolicy) -> list[Named]:
    """Return a remote file, folder or glob, listed through fsspec."""
    if Path(url).suffix.lower() in MANIFEST_SUFFIXES:
        raise UsageError(f"{url}: a manifest must be a local file; download it first")
    _check_store(url)
    try:
        with opening_by(policy.naming([url])):
            fs, path = store_of(url)
    except (ValueError, ImportError) as error:
        raise UsageError(scrub(f"{url}: cannot be opened: {cause_of(error)}", url)) from None
    try:
        videos = retried(lambda: _videos_at(fs, path), hopeless=refused)
    except Exception as error:  # a store's client raises whatever it likes: no credentials, no bucket, no route
        if (barred := refused_by_store(error)) is not None:
            raise UsageError(scrub(f"{url}: {barred}", url)) from None
        text = f"{url}: cannot be listed: {cause_of(error)}"
        raise UsageError(scrub(text, url)) from None
    if videos is None:
        raise UsageError(f"{url}: no such file, folder or bucket; check the address")
    if not videos:
        raise UsageError(f"{url}: no video there; looked for {' '.join(sorted(VIDEO_SUFFIXES))}")
    return [Named(uri=local_path(uri) or uri) for uri in (fs.unstrip_protocol(p) for p in videos)]


def _check_store(url: str) -> None:
    """Raise ``NotInstalled`` where the package is missing with which fsspec opens URLs of this kind."""
    if local_path(url) is not None or scheme_of(url) in WEB:
        return
    from fsspec.registry import known_implementations

    client = known_implementations.get(scheme_of(url), {"class": "fsspec"})["class"].partition(".")[0]
    need([client], by=public(url))


def _videos_at(fs: Any, path: str) -> list[str] | None:
    """List a store's videos at a path; None where there is nothing. Only ``*`` makes a glob: keys hold ``[``, queries ``?``."""
    if "*" in path:
        return sorted(p for p in fs.glob(path) if Path(p).suffix.lower() in VIDEO_SUFFIXES)
    try:
        if fs.info(path)["type"] == "file":  # isfile would take a store that fails for one without the file
            return [path]
    except FileNotFoundError:
        pass  # a folder of a store may be nothing but the beginning of names; whether it is one tells why not, too
    if fs.isdir(path):
        return sorted(p for p in fs.find(path) if Path(p).suffix.lower() in VIDEO_SUFFIXES)
    return None
