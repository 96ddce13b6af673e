"""Where the zoo of this machine's user lies. Apart from ``store``, so that the command line's help need not load that."""

from __future__ import annotations

import os

ENV = "DAILIES_ZOO"
DEFAULT_ZOO = "~/.cache/dailies/zoo"


def default_zoo() -> str:
    """Return ``$DAILIES_ZOO``, else ``DEFAULT_ZOO``."""
    return os.environ.get(ENV) or DEFAULT_ZOO
