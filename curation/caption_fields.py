"""Captions as fields: the one schema that prompts and the parser share, and the one serializer that makes text of fields.

What a model is trained on, sampled with and what ``expand`` writes goes through ``serialize``, so that a model is prompted with
the very words it has seen. ``FORMAT`` stands in the cards of exports and of models.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

from dailies.curation.errors import Malformed
from dailies.curation.plain_text import one_line

FORMAT = 1
"""Version of what ``serialize`` writes. A change of a single sign is another version, and the earlier ones stay."""

FIELDS: dict[str, str] = {
    "subject": "who or what is seen, how many, with colours and sizes",
    "action": "what they do from beginning to end, as a verb phrase",
    "setting": "where it is, and what stands behind",
    "camera": "how the camera stands or moves, and how near it is",
    "style": "the kind of footage, such as film, animation or screen recording",
    "light": "where light comes from, time of day, colours",
    "text": "words on the screen, as they are written",
    "mood": "the mood, if the pictures themselves tell it",
    "details": "what else can be seen, in plain sentences",
}
_BEGINNING = re.compile(r"\{\s*[\"}]")
"""How a JSON object begins; other braces are the text around it."""
LONGEST = 2_000
"""Characters of one field; more is no caption."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionFields:
    """What a caption says, by the names of ``FIELDS``; empty where it says nothing of the kind."""

    subject: str = ""
    action: str = ""
    setting: str = ""
    camera: str = ""
    style: str = ""
    light: str = ""
    text: str = ""
    mood: str = ""
    details: str = ""

    def to_json(self) -> str:
        """Return a JSON object of all fields, in order."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @property
    def empty(self) -> bool:
        """Return whether nothing is said at all."""
        return not any(asdict(self).values())


def json_schema() -> dict[str, Any]:
    """Return the schema (JSON Schema 2020-12) that an answer with fields shall follow."""
    return {
        "type": "object",
        "properties": {name: {"type": "string", "description": doc} for name, doc in FIELDS.items()},
        "required": list(FIELDS),
        "additionalProperties": False,
    }


def instruction() -> str:
    """Return what a prompt says of the form of the answer: the same names and meanings as the schema's."""
    lines = "\n".join(f'  "{name}": {doc}' for name, doc in FIELDS.items())
    return (
        "Answer with one JSON object and nothing else. Its keys, each with a text, empty where nothing can be seen of it:\n"
        f"{lines}"
    )


def parse_fields(answer: str) -> tuple[CaptionFields, tuple[str, ...]]:
    """Read the fields of a model's answer, and the keys in it that are no fields, whose values are dropped.

    The answer holds one JSON object, bare or in a fenced block; what stands before and behind goes unread. Lists of texts are
    joined by commas, and null is empty. Raises ``Malformed`` for an answer without an object or with a value that is no text.
    """
    row = _object(answer)
    known = {name: _text(name, value) for name, value in row.items() if name in FIELDS}
    return CaptionFields(**known), tuple(sorted(set(row) - set(FIELDS)))


def serialize(caption: CaptionFields, version: int = FORMAT) -> str:
    """Return fields as the text of a caption.

    Version 1: subject and action as one clause, a comma, the setting; details as they are; then camera, style, light and mood
    behind their names, and the text on the screen in quotation marks. Raises ``ValueError`` for a version that is not known.
    """
    if version != FORMAT:
        raise ValueError(f"caption format {version}: not known; known is {FORMAT}")
    scene = ", ".join(filter(None, (f"{caption.subject} {caption.action}".strip(), caption.setting)))
    named = [(name, getattr(caption, name)) for name in ("camera", "style", "light", "mood")]
    sentences = [scene, caption.details, *(f"{name.capitalize()}: {value}" for name, value in named if value)]
    sentences += [f'Text on screen: "{caption.text}"'] if caption.text else []
    return " ".join(_sentence(each) for each in sentences if each)


def _sentence(text: str) -> str:
    """Return a text with a capital at its beginning and a full stop at its end, where it has no stop of its own."""
    text = text[0].upper() + text[1:]
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


def _text(name: str, value: Any) -> str:
    parts = value if isinstance(value, list) else [value]
    if not all(part is None or isinstance(part, str) for part in parts):
        raise Malformed(f"the answer's {name} is {type(value).__name__}, and not a text")
    text = ", ".join(filter(None, (one_line(part) for part in parts if part)))  # escapes in JSON may stand for any sign
    if len(text) > LONGEST:
        raise Malformed(f"the answer's {name} has {len(text):,} characters; at most {LONGEST:,} make sense")
    return text


def _object(answer: str) -> Mapping[str, Any]:
    """Return the first JSON object of an answer. Where it is broken or cut off, what is within it is no answer."""
    start = _BEGINNING.search(answer)
    try:
        row, _ = json.JSONDecoder(parse_constant=_no_number).raw_decode(answer, start.start() if start else len(answer))
    except (ValueError, RecursionError):
        raise Malformed("the answer holds no JSON object, and fields were asked for") from None
    return cast(Mapping[str, Any], row)


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
