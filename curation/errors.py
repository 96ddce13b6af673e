"""Everything that can go wrong is an exception of this tree.

::

    DailiesError                 anything this project raises on purpose
    ├── UsageError               the caller asked for something that cannot be: exit code 2, before work starts
    │   ├── RecipeError          an unknown key, step, scorer, column or value in a recipe of curation or training
    │   ├── QueryError           a statement of SQL that is wrong or not allowed; its message has several lines
    │   ├── DatasetError         the dataset named does not exist, is locked, or is not one
    │   ├── ExportError          an export is absent, or does not hold what a training recipe reads
    │   ├── ModelError           a model's folder is absent, or holds another model than is needed
    │   │   ├── NoSuchModel      no entry of that name in the zoo
    │   │   └── NameTaken        an entry of that name is published already
    │   ├── RunError             a run's folder was begun with another recipe, data or models, or holds no run
    │   ├── DeviceError          the device or the processes asked for are not there
    │   └── NotInstalled         a package that only some extras bring is absent
    ├── Damaged                  a folder is not what its lock file says, or holds what no model of a zoo may hold
    │   └── Unsafe               something in a folder leads out of it: a link, a pipe, a name with ``..``
    ├── NotFinite                a loss or gradient is NaN or infinite; nothing was written
    ├── OutOfMemory              memory ran out; says which settings to lower
    ├── Outage                   what every item needs is away: room on a disk, a store, a cluster, a process
    └── SourceError              one source or clip cannot be used; becomes a row with its reason, never a crash
        ├── Unreadable           cannot be opened, or is not media at all
        │   └── Refused              may not be opened, as the run's policy is; says which flag lets it be
        ├── NoVideo              opens, and has no video stream
        ├── TooFewFrames         fewer than two decodable frames
        ├── Truncated            ends before its own header says it does
        ├── Broken               so many packets fail to decode that frames cannot be trusted
        ├── NotCopied            its packets cannot be copied as they are
        ├── TooShort             has fewer frames than every bucket of a training phase
        ├── Misshapen            is too narrow or too small to be trained in a phase's shape
        ├── NotEncoded           a frozen model encodes it to values that cannot be kept
        ├── Changed              the bytes are no longer those that were observed
        ├── Defect               the code failed on it in a way it should not: worth a report
        ├── OwnCode              the user's own scorer or captioner raised on it
        ├── Unanswered           a chat model was asked about it, and there is no answer
        ├── Hung                 no progress within the time limit; its process was killed
        └── Crashed              its process died while decoding
"""

from __future__ import annotations

import errno
import os
import re
import socket
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from dailies.curation.addresses import scrub


class DailiesError(Exception):
    """Base of everything raised on purpose. Its message shows no passwords and signatures, whatever it is made of."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(scrub(arg) if isinstance(arg, str) else arg for arg in args))


class UsageError(DailiesError):
    """A request that cannot be met: one line that names the thing and what is allowed."""


class RecipeError(UsageError):
    """A recipe that does not hold together."""


class QueryError(UsageError):
    """A statement of SQL that is wrong or not allowed. Its message has the engine's lines, which show where."""


class DatasetError(UsageError):
    """A dataset that is absent, locked by another run, or not a dataset."""


class ExportError(UsageError):
    """An export that is absent, or that does not hold what a training recipe reads."""


class ModelError(UsageError):
    """A model's folder that is absent, or that holds another model than is needed."""


class NoSuchModel(ModelError):
    """The zoo has no entry of that name."""


class NameTaken(ModelError):
    """An entry of that name is published already: entries are immutable."""


class RunError(UsageError):
    """A run's folder that was begun with another recipe, data or models, or that holds no run."""


class DeviceError(UsageError):
    """A device, or a number of processes, that is not there."""


class NotInstalled(UsageError):
    """A package that only some extras bring is absent."""


class Damaged(DailiesError):
    """A folder that is not what its lock file says, or that holds what no model of a zoo may hold."""


class Unsafe(Damaged):
    """A folder with something in it that leads out of it: a link, a pipe, a name that goes up. Nothing was read or written."""


class NotFinite(DailiesError):
    """A loss or gradient that is NaN or infinite; names the samples. Nothing was written."""


class OutOfMemory(DailiesError):
    """Memory ran out; says which settings to lower."""


class Outage(DailiesError):
    """What every item needs is away: room on a disk, a store, a cluster, a process. No item's fault; run it again."""


class SourceError(DailiesError):
    """One source or clip that cannot be used. ``kind`` is the stable word for tables and rules."""

    kind = "unusable"


class Unreadable(SourceError):
    kind = "unreadable"


class Refused(Unreadable):
    """What a manifest or a dataset names, and the run's policy does not let be opened."""

    kind = "refused"


class NoVideo(SourceError):
    kind = "no_video"


class TooFewFrames(SourceError):
    kind = "too_few_frames"


class Truncated(SourceError):
    kind = "truncated"


class Broken(SourceError):
    kind = "broken"


class NotCopied(SourceError):
    kind = "not_copied"


class TooShort(SourceError):
    kind = "too_short"


class Misshapen(SourceError):
    kind = "misshapen"


class Malformed(SourceError):
    """What a model answered is not in the form that was asked for."""

    kind = "malformed"


class NotEncoded(SourceError):
    kind = "not_finite"


class Changed(SourceError):
    kind = "changed"


class Hung(SourceError):
    kind = "hung"


class Crashed(SourceError):
    kind = "crashed"


class Defect(SourceError):
    kind = "defect"


class OwnCode(SourceError):
    kind = "own_code"


class Unanswered(SourceError):
    kind = "unanswered"


RETRIED = frozenset({Defect.kind, OwnCode.kind, Unanswered.kind})
"""Kinds of failures that are no fault of the file: the next run tries them again by itself."""


# ---- whose fault an exception is ------------------------------------------------------------------------------------

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
MACHINE = FULL | {errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""Of an ``OSError``: the machine's fault, whatever file it was about; ``FULL``: there is no room to write it."""

NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
"""CUDA's words, and those of torch's allocator on Linux and on Windows, all of them of a ``RuntimeError``."""

COLOURS = re.compile(r"\x1b\[[0-9;]*m")

RUST = re.compile(r"\(os error (\d+)\)")  # how safetensors and deltalake say it, in their text alone


def system_errno(error: BaseException) -> int | None:
    """Return the system's number for what went wrong, ``None`` where the error carries none."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    number = RUST.search(str(error))
    return int(number[1]) if number else None


def lacks_memory(error: BaseException) -> bool:
    """Return whether memory ran out, in whatever way Python, the system and torch say so."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch has its own
        return True
    allocator = isinstance(error, RuntimeError) and any(message in str(error) for message in NO_MEMORY)
    return allocator or system_errno(error) == errno.ENOMEM


def machine_error(error: BaseException) -> DailiesError | None:
    """Return the one line that ends a run where memory, room or file handles ran out, or a disk may not be written.

    ``None`` for any other error.
    """
    text = " ".join(f"{error}".split())
    if not isinstance(error, MemoryError) and system_errno(error) in MACHINE:
        return outage(text)
    if lacks_memory(error):
        return OutOfMemory(f"{socket.gethostname()}: memory ran out{f': {scrub(text)[:200]}' if text else ''}")
    return None


def outage(text: str) -> Outage:
    """Return the error for what is away on this machine, as ``text`` says in one line."""
    return Outage(f"{socket.gethostname()}: {text}; the same command resumes once that is mended")


def stopping_error(error: Exception) -> DailiesError | None:
    """Return the error that ends a run for ``error``, which is no fault of an item; ``None`` where it may be one."""
    if isinstance(error, DailiesError):
        return None if isinstance(error, SourceError) else error
    if isinstance(error, ImportError):
        text = " ".join(f"{error}".split())
        return NotInstalled(f"{socket.gethostname()}: a package cannot be imported: {text}; install it on every node")
    return machine_error(error)


def machine_raised(error: Exception) -> None:
    """Raise ``error`` again where it is the machine's fault, or of a package that is absent, and not that of what was read.

    It stays as it is: a child process with a limit of memory knows that its own ``MemoryError`` is its item's.
    """
    if isinstance(error, ImportError) or machine_error(error) is not None:
        raise error


def item_error(error: Exception) -> SourceError:
    """Return an exception of the work on one item as what its row keeps: a ``Defect`` if it is none of this tree.

    Raises what ``stopping_error`` makes of one that is no item's fault.
    """
    if isinstance(error, SourceError):
        return error
    if (stopping := stopping_error(error)) is not None:
        raise stopping from error
    return Defect(located(error))


def first_line(error: BaseException) -> str:
    """Return the first line of what a library says, without colours; where it says nothing, the kind of its error."""
    lines = COLOURS.sub("", str(error)).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def located(error: BaseException, file: str | None = None) -> str:
    """Return in one line what an exception is and says, and where it was raised: the last place in ``file``, if given."""
    text = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
    frames = list(traceback.extract_tb(error.__traceback__))
    if isinstance(error, SyntaxError):  # which says itself where it is
        return text
    if file is not None:
        frames = [frame for frame in frames if os.path.basename(frame.filename) == os.path.basename(file)]
        if not frames:
            return f"{text} ({os.path.basename(file)})"
    return text + "".join(f" ({os.path.basename(frame.filename)}:{frame.lineno})" for frame in frames[-1:])


@contextmanager
def own_code(what: str, file: str | None) -> Iterator[None]:
    """Let what the user's own Python code raises be a ``RecipeError``: ``what`` of it failed, how, and where in its ``file``.

    A package that it cannot import is ``NotInstalled``, and what is the machine's fault is raised as that.
    """
    try:
        yield
    except DailiesError as error:
        if not isinstance(error, SourceError):
            raise
        raise RecipeError(f"{what}: {error}") from error
    except ImportError as error:
        raise NotInstalled(f"{what}: {located(error, file)}; install it, on every node") from error
    except Exception as error:
        raise machine_error(error) or RecipeError(f"{what}: {located(error, file)}") from error
