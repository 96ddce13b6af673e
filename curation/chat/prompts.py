"""Prompts: those that ship with dailies by name, and a user's own as files or text.

What ships never changes under its name, for tables are named by it: a better one gets a name of its own.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import PlainSerializer, ValidationInfo, ValidatorFunctionWrapHandler, WrapValidator

from dailies.curation.config import offered

PROMPTS = Path(__file__).parent / "prompts"
FILES = (".txt", ".md")
LARGEST = 1 << 16
"""Bytes that a prompt's file may have."""


class PromptText(str):
    """The text of a prompt: neither a name nor a file, whatever it looks like, and so it is never read a second time."""

    __slots__ = ()


def prompt_names() -> list[str]:
    """Return the names of the prompts that ship with dailies."""
    return sorted(path.stem for path in PROMPTS.glob("*.txt"))


def prompt_text(prompt: str) -> str:
    """Return the text of a prompt that is a name, or the text itself."""
    if isinstance(prompt, PromptText) or prompt not in prompt_names():
        return prompt
    return (PROMPTS / f"{prompt}.txt").read_text(encoding="utf-8").strip()


def prompt_hash(prompt: str) -> str:
    """Return the first 16 digits of the sha256 of a prompt's text, as tables and cards have it."""
    return hashlib.sha256(prompt_text(prompt).encode()).hexdigest()[:16]


def plain_prompt(value: Any) -> Any:
    """Return a parameter's value as a record has it: the text of a prompt as ``{text: …}``, all else as it is."""
    return {"text": str(value)} if isinstance(value, PromptText) else value


def _read(value: Any, as_text: ValidatorFunctionWrapHandler, info: ValidationInfo) -> str:
    """Return a shipped prompt's name, or the text that is given or stands in a file: workers may not have the file.

    The context may hold the ``folder`` to which files are relative, and ``recorded``, which says that the value is a dataset's
    word and not the user's: no file is read for it.
    """
    context = info.context or {}
    if isinstance(value, PromptText):
        return value
    if isinstance(value, Mapping):
        if list(value) != ["text"]:
            raise ValueError("is a mapping: the only key that it may have is text")
        return _text(as_text(value["text"]))
    prompt = str(as_text(value))
    if prompt in prompt_names():
        return prompt
    if prompt.endswith(FILES) and "\n" not in prompt:
        if context.get("recorded"):
            raise ValueError("is a file, and a dataset's record reads none; give its text as {text: …}")
        return _text(_of_file(prompt, Path(context.get("folder", "."))))
    if " " not in prompt.strip() and prompt.strip():
        raise ValueError(f"no such prompt{offered(prompt, [*prompt_names(), 'FILE.txt'])}")
    return _text(prompt)


def _of_file(prompt: str, folder: Path) -> str:
    """Return the text of a file that is relative to ``folder`` or else to the working directory."""
    path = Path(prompt).expanduser()
    path = folder / path if (folder / path).exists() else path
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe may never end
            raise ValueError("is no regular file")
        if status.st_size > LARGEST:
            raise ValueError(f"the file has over {LARGEST} bytes; a prompt is a page at most")
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the file cannot be read: {error}") from None


def _text(text: str) -> PromptText:
    if not text.strip():
        raise ValueError("is empty")
    if text in prompt_names():  # a table would be called as that of the prompt
        raise ValueError(f"the text {text!r} is the name of a prompt; name that, or write a sentence")
    return PromptText(text)


Prompt = Annotated[str, WrapValidator(_read), PlainSerializer(plain_prompt)]
"""A parameter that takes the name of a shipped prompt, a file (.txt, .md), the text of one, or that as ``{text: …}``."""
