"""What can go wrong, as a tree.

::

    DailiesError                 anything this project raises on purpose
    ├── UsageError               the caller asked for something that cannot be: exit code 2, before work starts
    │   ├── RecipeError          an unknown key, step, scorer, column or value in a recipe
    │   └── DatasetError         the dataset named does not exist, is locked, or is not one
    └── SourceError              one source or clip cannot be used; becomes a ``Failure`` row, never a crash
        ├── Unreadable           cannot be opened, or is not media at all
        ├── NoVideo              opens, and has no video stream
        ├── TooFewFrames         fewer than two decodable frames
        ├── Truncated            ends before its own header says it does
        ├── Broken               so many packets fail to decode that frames cannot be trusted
        ├── NotCopied            its packets cannot be cut out as they are
        ├── Changed              the bytes are no longer those that were observed
        ├── Defect               the code failed on it in a way it should not: worth a report
        ├── Hung                 no progress within the time limit; its process was killed
        └── Crashed              its process died while decoding
"""

from __future__ import annotations


class DailiesError(Exception):
    """Base of everything raised on purpose."""


class UsageError(DailiesError):
    """A request that cannot be met: one line that names the thing and what is allowed."""


class RecipeError(UsageError):
    """A recipe that does not hold together."""


class DatasetError(UsageError):
    """A dataset that is absent, locked by another run, or not a dataset."""


class SourceError(DailiesError):
    """One source or clip that cannot be used. ``kind`` is the stable word for tables and rules."""

    kind = "unusable"


class Unreadable(SourceError):
    kind = "unreadable"


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


class Changed(SourceError):
    kind = "changed"


class Hung(SourceError):
    kind = "hung"


class Crashed(SourceError):
    kind = "crashed"


class Defect(SourceError):
    kind = "defect"
