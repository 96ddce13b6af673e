"""Prompts: those that ship with dailies by name, and a user's own as files or text.

What ships never changes under its name, for tables are named by it: a better one gets a name of its own.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from dailies.curation.config import offered

PROMPTS = Path(__file__).parent / "prompts"
FILES = (".txt", ".md")
LARGEST = 1 << 16
"""Bytes that a prompt's file may have."""


def prompt_names() -> list[str]:
    """Return the names of the prompts that ship with dailies."""
    return sorted(path.stem for path in PROMPTS.glob("*.txt"))


def prompt_text(prompt: str) -> str:
    """Return the text of a prompt that is a name, or the text itself."""
    shipped = PROMPTS / f"{prompt}.txt"
    is_name = prompt in prompt_names()
    return shipped.read_text(encoding="utf-8").strip() if is_name else prompt


def prompt_hash(prompt: str) -> str:
    """Return the first 16 digits of the sha256 of a prompt's text, as tables and cards have it."""
    return hashlib.sha256(prompt_text(prompt).encode()).hexdigest()[:16]


def _read(prompt: str) -> str:
    """Return a shipped prompt's name, the text of a file, or the text as it is: workers may not have the file."""
    if prompt in prompt_names():
        return prompt
    if any(prompt.endswith(end) for end in FILES) and "\n" not in prompt:
        path = Path(prompt).expanduser()
        try:
            if path.stat().st_size > LARGEST:
                raise ValueError(f"the file has over {LARGEST} bytes; a prompt is a page at most")
            prompt = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"the file cannot be read: {error}") from None
    elif " " not in prompt.strip():
        raise ValueError(f"no such prompt{offered(prompt, [*prompt_names(), 'FILE.txt'])}")
    if not prompt.strip():
        raise ValueError("is empty")
    return prompt


Prompt = Annotated[str, AfterValidator(_read)]
"""A parameter that takes the name of a shipped prompt, a file (.txt, .md) or the text of one."""
