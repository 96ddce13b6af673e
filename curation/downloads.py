"""Models come from a hub here, with their progress: the hub's own bars would write over ours, and into pipes."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from dailies.curation.errors import UsageError
from dailies.curation.progress import Bar, progress_in_force

MB = 1e6
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
"""``OWNER/NAME`` of a hub's repository."""

_local: ContextVar[bool] = ContextVar("local", default=False)


def download_snapshot(
    repository: str, *, wanted: Sequence[str], unwanted: Sequence[str] = (), revision: str | None = None
) -> Path:
    """Return the folder of ``repository``'s files that match ``wanted`` and not ``unwanted``; what is there is not fetched.

    Raises what ``huggingface_hub.snapshot_download`` raises, and inside ``local_only`` its ``LocalEntryNotFoundError`` for
    one that was not fetched before.
    """
    from huggingface_hub import snapshot_download

    with ExitStack() as stack:
        download = _Download(repository, stack)
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                allow_patterns=list(wanted),
                ignore_patterns=list(unwanted) or None,
                tqdm_class=download.bar_class(),
                local_files_only=_local.get(),
            )
        )


def hub_folder(
    repository: str,
    *,
    named: str,
    wanted: Sequence[str],
    because: str = "",
    revision: str | None = None,
    folders: Sequence[str] = (),
) -> Path:
    """Return the folder of a hub's repository, of which what is ``wanted`` is fetched, and of its folders only ``folders``.

    ``named``: the parameter that names it, as errors say it, after which ``because`` comes. ``revision``: a branch, tag or
    commit. Raises ``UsageError``.
    """
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = download_snapshot(repository, wanted=wanted, unwanted=["*/*"], revision=revision)
        if folders:
            download_snapshot(repository, wanted=folders, revision=revision)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UsageError(f"{named}: {because}the hub cannot deliver it: {type(error).__name__}") from error
    return folder


@contextmanager
def local_only() -> Iterator[None]:
    """Take models as they are on this machine: inside, no hub is asked."""
    before = _local.set(True)
    try:
        yield
    finally:
        _local.reset(before)


def is_local_only() -> bool:
    """Return whether nothing beyond this machine is to be asked."""
    return _local.get()


@contextmanager
def quiet_hub() -> Iterator[None]:
    """Keep the hub's library from drawing bars of its own."""
    from huggingface_hub import utils

    hub: Any = utils  # which does not declare what it exports
    before = hub.are_progress_bars_disabled()
    hub.disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            hub.enable_progress_bars()


@contextmanager
def quiet_loading(*libraries: Literal["diffusers", "transformers"]) -> Iterator[None]:
    """Keep ``libraries`` from drawing bars of their own, and from reports of tensors that are left out on purpose."""
    logs = [import_module(f"{library}.utils").logging for library in libraries]
    before = [(log.get_verbosity(), log.is_progress_bar_enabled()) for log in logs]
    for log in logs:
        log.set_verbosity_error()
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log, (level, bars) in zip(logs, before, strict=True):
            log.set_verbosity(level)
            if bars:
                log.enable_progress_bar()


class _Download:
    """Reports the bytes of all files together; nothing where all of them are there already."""

    def __init__(self, name: str, stack: ExitStack) -> None:
        self._name, self._stack = name, stack
        self._show = progress_in_force()  # the library's threads have none in force
        self._bar: Bar | None = None
        self._lock = threading.Lock()
        self._done = 0.0

    def add(self, count: float, total: float) -> None:
        with self._lock:
            if self._bar is None:
                self._bar = self._stack.enter_context(self._show("download", None, self._name))
            self._done += count
            of = f"{self._done / MB:,.0f}/{total / MB:,.0f} MB" if total else f"{self._done / MB:,.0f} MB"
            self._bar.advance(0, note=f"{of} of {self._name}")

    def bar_class(self) -> type[Any]:
        """Return what the library takes for a class of bars: of those that it opens, the one of bytes written counts."""
        from tqdm.auto import tqdm  # type: ignore[import-untyped]

        download = self

        class HubBar(tqdm):  # type: ignore[misc]
            def __init__(self, *args: Any, **options: Any) -> None:
                named = str(options.pop("name", "")) + str(options.get("desc"))
                self._counts = options.get("unit") == "B" and "ownload" not in named
                super().__init__(*args, **{**options, "disable": True})

            def update(self, n: float | None = 1) -> None:
                if self._counts and n:
                    download.add(n, float(self.total or 0))

        return HubBar
