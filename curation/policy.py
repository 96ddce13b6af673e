"""What may be opened of what others wrote: a policy travels with the work, and refuses unless it is told otherwise.

What the user names is trusted, with the host that it names. A manifest may name web addresses, the stores of the large
clouds, and files under its own folder; a dataset says where its sources lie. Whether a host is one of the open internet is
checked where the connection is made (``hosts``), whether a file is one where it is opened (``bytes_io``).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass

from dailies.curation.errors import Refused

CELLS = "parquet"  # scheme of URLs of cells, see ``cells``
WEB = frozenset({"http", "https"})
CLOUDS = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"})
"""Stores whose hosts the user's own environment names, and no URL."""
OWN = frozenset({CELLS, "memory"})  # nothing but this machine's files, which are checked as such, and this process
LONGEST = 8192  # characters of a name: more than servers, stores and file systems take
CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


class PrivateHost(PermissionError):
    """A connection that was not made, since it leads to no host of the open internet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePolicy:
    """What a run lets be opened beside what its user names.

    ``local``: files outside a manifest's folder; ``private_hosts``: hosts that are not of the open internet. Schemes of which
    neither can be told need both. ``named``: origins (``origin``) of the URLs that the user named.
    """

    local: bool = False
    private_hosts: bool = False
    named: tuple[str, ...] = ()

    def naming(self, uris: Iterable[str]) -> SourcePolicy:
        """Return this policy with the origins of those that are URLs among the named."""
        origins = {origin(uri) for uri in uris if "://" in uri}
        return SourcePolicy(
            local=self.local, private_hosts=self.private_hosts, named=tuple(sorted({*self.named, *origins}))
        )

    def admits_more(self, uri: str) -> bool:
        """Return whether it lets more of ``uri`` through than the policy that refuses would."""
        if scheme_of(uri) in WEB:
            return self.private_hosts or origin(uri) in self.named
        return True

    def to_json(self) -> str:
        """Return it as text, for a child process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> SourcePolicy:
        """Return what ``to_json`` wrote."""
        values = json.loads(text)
        return cls(local=values["local"], private_hosts=values["private_hosts"], named=tuple(values["named"]))


def refused_by_store(error: BaseException) -> Refused | None:
    """Return what a store raised as what a row keeps, where it is of a connection that was not made."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, PrivateHost):
            return Refused(f"{link}; --allow-private-hosts lets it be opened")
        link = link.__cause__
    return None


_in_force: ContextVar[SourcePolicy | None] = ContextVar("source_policy", default=None)


def policy_in_force() -> SourcePolicy:
    """Return the policy by which sources are opened in this thread; one that refuses where none was set."""
    return _in_force.get() or SourcePolicy()


@contextmanager
def opening_by(policy: SourcePolicy) -> Iterator[None]:
    """Open sources by ``policy`` within."""
    token = _in_force.set(policy)
    try:
        yield
    finally:
        _in_force.reset(token)


# ---- URLs -----------------------------------------------------------------------------------------------------------


def scheme_of(uri: str) -> str:
    """Return what stands before ``://`` in lower case, and nothing for a path."""
    return uri.partition("://")[0].lower() if "://" in uri else ""


def origin(url: str) -> str:
    """Return scheme, host and port of a URL; of a chain, all schemes of it."""
    scheme, _, rest = url.partition("://")
    return f"{scheme.lower()}://{re.split(r'[/?#]', rest, maxsplit=1)[0].rpartition('@')[2].lower()}"


def is_chain(url: str) -> bool:
    """Return whether fsspec would take a URL for several, each inside the next; an address in brackets makes none."""
    return "::" in re.sub(r"^(https?://(?:[^/?#@]*@)?)\[[0-9a-f:.%]*\]", r"\1", url, count=1, flags=re.IGNORECASE)


def check_scheme(uri: str, policy: SourcePolicy) -> None:
    """Raise ``Refused`` for a URL of a kind that the policy does not let be opened."""
    scheme = scheme_of(uri)
    if scheme in WEB | CLOUDS | OWN and not is_chain(uri):
        return
    if origin(uri) in policy.named or (policy.local and policy.private_hosts):
        return
    raise Refused(
        f"{shown(uri)}: {_chains_or(scheme)}; --allow-local and --allow-private-hosts, both, let it be opened"
    )


def _chains_or(scheme: str) -> str:
    return "is a chain of URLs" if "::" in scheme or scheme in WEB | CLOUDS | OWN else f"{scheme}:// may lead anywhere"


def shown(uri: str) -> str:
    """Return the last part of a path or URL, as a message names it: no user, query or fragment of it."""
    path = re.split(r"[?#]", uri, maxsplit=1)[0].rstrip("/") if "://" in uri else uri.rstrip("/")
    name = CONTROLS.sub("?", path.rpartition("/")[2].rpartition("@")[2] or path)
    return name if len(name) <= 80 else f"{name[:40]}…{name[-39:]}"


# ---- rows of manifests ----------------------------------------------------------------------------------------------


def refusal(uri: str, folder: str, policy: SourcePolicy) -> str | None:
    """Return why a manifest in ``folder`` may not name ``uri``, an absolute path or a URL; ``None`` where it may."""
    if len(uri) > LONGEST:
        return f"{shown(uri)}: its name has {len(uri):,} characters; the most is {LONGEST:,}"
    scheme = scheme_of(uri)
    if "\0" in uri or (scheme and CONTROLS.search(uri)):
        return f"{shown(uri)}: control characters stand in its name; leave them out"
    if scheme in ("", "file", CELLS):
        path = uri.partition("://")[2].rpartition("#")[0] if scheme == CELLS else local_path(uri) or ""
        if policy.local or lies_in(path, folder):
            return None
        return f"{shown(uri)}: lies outside of the manifest's folder; --allow-local lets it be opened"
    if scheme == "memory" and not (policy.local and policy.private_hosts):
        return f"{shown(uri)}: memory:// is not for manifests; --allow-local and --allow-private-hosts, both, let it be"
    try:
        check_scheme(uri, policy)
    except Refused as error:
        return str(error)
    return None


def lies_in(path: str, folder: str) -> bool:
    """Return whether a path lies under a folder, by name and by where links lead; nothing elsewhere is looked at."""
    return lies_below(path, folder) and _is_below(os.path.realpath(path), os.path.realpath(folder))


def lies_below(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> bool:
    """Return whether a path lies under a folder, or under the place of that, by name alone."""
    return any(_is_below(os.path.abspath(path), above) for above in (os.path.abspath(folder), os.path.realpath(folder)))


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(os.path.join(folder, ""))


def local_path(uri: str) -> str | None:
    """Return the path of a local file, ``None`` for any other URL."""
    if scheme_of(uri) == "file":
        return uri.partition("://")[2]
    return None if "://" in uri else uri
