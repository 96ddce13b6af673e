"""Keeps pandas out of commands that do not use it.

pyarrow imports pandas, where it is installed, with the first value that it makes, only to know pandas' values if it meets
any; that takes a third of a second or more. So it is asked to make that value while pandas cannot be found.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

_ours = False


def process_is_ours() -> None:
    """Say that this process is a command's alone: where a program calls ``main``, its pyarrow is left as it is."""
    global _ours
    _ours = True


def keep_pandas_out() -> None:
    """Let pyarrow do without pandas, until something else in this process imports it, which must be ours.

    From then on pyarrow takes pandas' tables and columns again, but no longer knows ``pandas.NA`` and ``NaT`` among other
    objects. So this is not for a recipe with scorers of the user's own.
    """
    if not _ours or "pandas" in sys.modules or any(isinstance(finder, _Watch) for finder in sys.meta_path):
        return
    import pyarrow as pa

    watch = _Watch()
    sys.meta_path.insert(0, watch)
    pa.array([0])
    watch.refusing = False


class _Watch(MetaPathFinder):
    """Refuses pandas at first; then sees it being imported, and has pyarrow look for it again."""

    refusing = True

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "pandas":
            return None
        if self.refusing:
            raise ModuleNotFoundError("pandas is kept out", name=fullname)
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = _then_look(spec.loader.exec_module)  # type: ignore[assignment, method-assign]
        return spec


def _then_look(load: Callable[[ModuleType], None]) -> Callable[[ModuleType], None]:
    def load_and_look(module: ModuleType) -> None:
        load(module)
        import pyarrow as pa

        # What pyarrow's own modules find pandas by. One that has no such thing looks for pandas at every use.
        getattr(getattr(pa.lib, "_pandas_api", None), "pd", None)

    return load_and_look
