"""What models write before their answer: models such as Qwen3 and DeepSeek-R1 think aloud, between marks of their own."""

from __future__ import annotations

import re

BEFORE = re.compile(r".*(?:</think(?:ing)?>|\[/THINK\])", re.DOTALL | re.IGNORECASE)
"""All up to the end of what was thought: many a chat template writes the mark at its beginning itself."""
UNENDED = re.compile(r"\s*(?:<think(?:ing)?>|\[THINK\])", re.IGNORECASE)
ONLY_THOUGHT = "only thoughts came before the most tokens; turn them off or raise max_tokens"


def without_thinking(text: str) -> str:
    """Return an answer without what its model thought; empty where it did not come to an end of that."""
    thought = BEFORE.match(text)
    answer = text[thought.end() :] if thought else text
    return "" if UNENDED.match(answer) else answer.strip()
