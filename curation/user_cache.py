"""Where dailies keeps what it can make anew, such as hashes of files and converted models."""

from __future__ import annotations

import os
from pathlib import Path

ENV = "DAILIES_CACHE"
CACHE = "~/.cache/dailies"


def user_cache() -> Path:
    """Return ``$DAILIES_CACHE``, else ``CACHE``; it need not exist."""
    return Path(os.environ.get(ENV) or CACHE).expanduser()
