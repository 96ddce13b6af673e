"""What every published folder is cleaned of, and signed with."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dailies.curation.config import read_json
from dailies.curation.errors import Damaged

PLACES = frozenset({"_name_or_path", "name_or_path", "special_tokens_map_file", "tokenizer_file"})
"""What diffusers and transformers call a folder or file that a part was loaded from."""


def forget_places(folder: Path) -> None:
    """Take out of the configurations in ``folder`` where on this disk its parts were loaded from."""
    for path in sorted(folder.rglob("*.json")):
        row = read_json(path.read_text(encoding="utf-8"), str(path), Damaged)
        if isinstance(row, dict) and PLACES & row.keys():
            kept = {name: value for name, value in row.items() if name not in PLACES}
            path.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def dailies_version() -> str | None:
    """Return the installed version of dailies, ``None`` where it is run without being installed."""
    try:
        return version("dailies")
    except PackageNotFoundError:
        return None
