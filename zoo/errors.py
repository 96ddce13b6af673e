"""What can go wrong in the zoo, as a tree.

::

    ZooError                      anything the zoo raises on purpose
    ├── RequestError              the caller asked for something that cannot be; also a ``ValueError``
    │   ├── NoSuchModel           no entry of that name
    │   ├── NameTaken             an entry of that name is there already
    │   └── NotInstalled          torch, diffusers or transformers are absent
    └── Damaged                   a folder is not what its lock file says, or not a model of this zoo

``pipelines.zoo_cli`` makes a ``UsageError`` (exit code 2) of the first branch, a ``DailiesError`` (1) of the second.
"""

from __future__ import annotations

from importlib.util import find_spec


class ZooError(Exception):
    """Base of everything the zoo raises on purpose."""


class RequestError(ZooError, ValueError):
    """A request that cannot be met: one line that names the thing and what is allowed."""


class NoSuchModel(RequestError):
    """No entry of that name in the zoo."""


class NameTaken(RequestError):
    """An entry of that name is published already: entries are immutable."""


class NotInstalled(RequestError):
    """A library that only models need is absent."""


class Damaged(ZooError):
    """A folder that is not what its lock file says, or that holds what no model of this zoo may hold."""


def need(*libraries: str) -> None:
    """Raise ``NotInstalled`` if one of ``libraries`` is absent. Imports none of them."""
    absent = [library for library in libraries if find_spec(library) is None]
    if absent:
        raise NotInstalled(f"this needs {', '.join(absent)}: pip install 'dailies[models,train]'")
