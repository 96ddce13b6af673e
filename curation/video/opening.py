"""A file is opened by libav here, in a policy's bounds: local or at a URL, of the formats that are videos, and no other.

PyAV is imported when a file is opened, not with this module. libav writes nothing on stderr: PyAV silences it, and
``_log_line`` keeps its last line.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from dailies.curation.errors import SourceError, Unreadable, machine_raised
from dailies.curation.policy import local_path
from dailies.curation.video.bytes_io import InputFile, one_line, store_error
from dailies.curation.video.formats import FORMATS, refused_format


class OpenFile:
    """A file that is open in libav. A context manager. ``file``: a file object to read in place of what ``uri`` names.

    Raises ``Unreadable``, and ``Refused`` for what the policy in force does not let be opened.
    """

    def __init__(self, uri: str, file: Any = None) -> None:
        self.uri = uri
        self._file, self._container = self._open(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the file. Idempotent."""
        if self._container is not None:
            self._container.close()
            self._container = None
        self._file.close()

    def _open(self, readable: Any) -> tuple[InputFile, Any]:
        """Return the file, which libav reads through Python, so that errors of reading are known, and libav's container."""
        import av

        path, file = local_path(self.uri), None
        # A playlist in a video's clothes opens no further addresses, and is none of the formats. External references of
        # mov files stay closed by libav's own default (enable_drefs).
        options = {"protocol_whitelist": "file", "format_whitelist": ",".join(FORMATS)}
        try:
            file = InputFile.at(self.uri) if readable is None else InputFile(readable)
            with _log_line():
                opened = av.open(file, container_options=options, metadata_errors="replace", buffer_size=1 << 18)
            return file, opened
        except Exception as error:
            cause: Exception = error
            if file is not None:
                cause = file.error or error
                file.close()
            of_store = path is None and (file is None or cause is not error)
            reason = self._reason(cause, path, of_store=of_store)
            raise reason from (error if path is not None else None)  # a store's own would show the whole address

    def _reason(self, cause: Exception, path: str | None, *, of_store: bool) -> SourceError:
        """Return why it cannot be opened. Raises ``cause`` again where it says that itself, or is the machine's fault."""
        import av

        if isinstance(cause, SourceError):
            raise cause
        if of_store:
            return store_error(cause)
        if not (isinstance(cause, av.FFmpegError) and isinstance(cause, MemoryError)):
            machine_raised(cause)  # libav's own lack of memory comes of an absurd size in the file
        empty = path is not None and os.path.isfile(path) and os.path.getsize(path) == 0
        return Unreadable("the file is empty" if empty else refused_format(cause) or one_line(cause))


@contextmanager
def _log_line() -> Iterator[None]:
    """Make libav's errors carry its last log line.

    At level PANIC PyAV emits nothing, but keeps the last error for the exception. Only while opening: its log callback
    takes the GIL, and a decoder thread that logs while its context is freed under the GIL would wait for ever.
    """
    import av.logging

    ours = av.logging.get_level() in (None, av.logging.PANIC)  # else the caller asked for logs: leave that alone
    if ours:
        av.logging.set_level(av.logging.PANIC)
    try:
        yield
    finally:
        if ours:
            av.logging.set_level(None)
