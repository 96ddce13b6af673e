"""Asks as OpenAI's format of chat has them, which servers and vLLM take alike."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from dailies.curation.chat.asking import Ask, ChatImage


def messages(ask: Ask) -> list[dict[str, Any]]:
    """Return an ask as messages: what the system says, if anything, and what the user shows and then says.

    Pictures are data URLs, in order of time; before each stands when it is seen, where that is known. Text alone stays
    text, since servers of language models may know no list of parts.
    """
    system = [] if ask.system is None else [{"role": "system", "content": ask.system}]
    content: Any = [*_shown(ask.images), _text(ask.text)] if ask.images else ask.text
    return [*system, {"role": "user", "content": content}]


def is_jpeg(data: bytes) -> bool:
    """Return whether bytes begin and end as a JPEG does: what is none costs a request, and a server's patience."""
    return data.startswith(b"\xff\xd8") and data.endswith(b"\xff\xd9")


def _shown(images: tuple[ChatImage, ...]) -> Iterator[dict[str, Any]]:
    for image in images:
        if image.seconds is not None:
            yield _text(f"At {image.seconds:.2f} s:")
        data = base64.b64encode(image.jpeg).decode("ascii")
        yield {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{data}"}}


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}
