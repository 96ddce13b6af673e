"""The measured movement of the camera in words, and captions that say something else of it."""

from __future__ import annotations

import re

from dailies.curation.observers.camera import HANDHELD, STATIC, UNCLEAR

AGAINST = "against_camera"
"""The flag of a caption that contradicts the measurement."""

_OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up", "in": "out", "out": "in"}
_WAYS = {"pan": "left|right", "tilt": "up|down", "zoom": "in|out"}
_VERB = {"pan": r"pans?|panning|panned", "tilt": r"tilts?|tilting|tilted", "zoom": r"zooms?|zooming|zoomed"}
_STILL = r"(?:static|stationary|fixed|still|motionless|unmoving)"
_STANDS = re.compile(
    rf"\b(?:{_STILL}|locked[- ]off) (?:camera|shot|view)\b"
    rf"|\bcamera (?:stands|is|stays|remains|keeps|holds) (?:\w+ )?{_STILL}\b"
    r"|\bcamera (?:does not|doesn't) move\b|\bon a tripod\b",
    re.IGNORECASE,
)
_SHAKES = re.compile(
    r"\b(?:hand-?held|shaky) (?:camera|shot|footage)\b|\bcamera (?:shakes|is shaking)\b", re.IGNORECASE
)


def camera_phrase(label: str | None) -> str:
    """Return ``motion_camera`` as a field of captions has it: "pans right and zooms in", "stands still"; empty if unclear."""
    if label is None or label == UNCLEAR:
        return ""
    if label == STATIC:
        return "stands still"
    return " and ".join(map(_verb, label.split(", ")))


def _verb(label: str) -> str:
    """Return "pan right" as "pans right"."""
    name, *way = label.split()
    return " ".join(["shakes" if name == HANDHELD else f"{name}s", *way])


def against_camera(text: str, label: str | None) -> bool:
    """Tell whether a caption says of the camera what ``motion_camera`` rules out.

    It stands still where a movement was measured, moves where none was, or moves the opposite way. What the measurement does
    not know, a caption may say; so it may where two movements go on at a time, of which it names one.
    """
    if label is None or label == UNCLEAR:
        return False
    if _STANDS.search(text):
        return label != STATIC
    told = _told(text)
    if label == STATIC:
        return bool(told) or _SHAKES.search(text) is not None
    measured = {name: way for name, _, way in (part.partition(" ") for part in label.split(", "))}
    return any(way and measured.get(name) == _OPPOSITE[way] for name, way in told)


def _told(text: str) -> list[tuple[str, str]]:
    """Return what a text says that a camera does, as (movement, direction); pans on a stove are none."""
    told = []
    for name, verbs in _VERB.items():
        says = rf"\b(?:camera|shot)\b[^.!?]{{0,60}}?\b(?:{verbs})\b(?: (?:slowly |quickly )?(?:to the )?({_WAYS[name]})\b)?"
        told += [(name, (match[1] or "").lower()) for match in re.finditer(says, text, re.IGNORECASE)]
    return told
