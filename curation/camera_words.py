"""The measured movement of the camera in words, and captions that say something else of it."""

from __future__ import annotations

import re

from dailies.curation.observers.camera import HANDHELD, STATIC, UNCLEAR

AGAINST = "against_camera"
"""The flag of a caption that contradicts the measurement."""

_OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up", "in": "out", "out": "in"}
_SIDES = "left|right|up|down"
_VERBS = {
    # movement: verbs that say it alone, a noun that says it with a direction, and the directions
    "pan": ("pans|panning|panned", "pan", "left|right"),
    "tilt": ("tilts|tilting|tilted", "tilt", "up|down"),
    "zoom": ("zooms|zooming|zoomed", "zoom", "in|out"),
    "moves": ("moves|moving|moved|tracks|tracking|slides|sliding|glides|gliding", "move", _SIDES),
}
_AXIS = {"left": "pan", "right": "pan", "up": "tilt", "down": "tilt"}
_FIXED = r"(?:static|stationary|fixed|motionless|unmoving|immobile|locked[- ]off)"
_STANDS = re.compile(
    rf"\b{_FIXED} (?:[\w-]+ ){{0,2}}(?:camera|shot|view)\b|\bstill (?:camera|shot)\b|\bon a tripod\b"
    rf"|\bcamera:? (?:(?:stands|is|stays|remains|keeps|holds) )?(?:[\w-]+ )?{_FIXED}\b"
    r"|\bcamera:? (?:stands|is|stays|remains|keeps|holds) (?:[\w-]+ )?still\b"
    r"|\bcamera (?:does not|doesn't|never|is not|isn't) mov(?:e|es|ing)\b",
    re.IGNORECASE,
)
_SHAKES = re.compile(
    r"\b(?:hand-?held|shaky) (?:[\w-]+ )?(?:camera|shot|footage)\b"
    r"|\bcamera:? (?:shakes|is shaking|(?:is )?(?:hand-?held|shaky))\b",
    re.IGNORECASE,
)
_NOT = re.compile(r"\b(?:not|never|no longer|without|neither|nor)\b|n't\b", re.IGNORECASE)


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
    text = text.replace("\u2019", "'")
    if _STANDS.search(text):
        return label != STATIC
    told = _told(text)
    if label == STATIC:
        return bool(told) or _SHAKES.search(text) is not None
    measured = {name: way for name, _, way in (part.partition(" ") for part in label.split(", "))}
    return any(way and measured.get(name) == _OPPOSITE[way] for name, way in told)


def _told(text: str) -> list[tuple[str, str]]:
    """Return what a text says that a camera does, as (movement, direction); what it denies, and pans on a stove, are none."""
    told = []
    for name, (verbs, noun, ways) in _VERBS.items():
        to = rf"(?:slowly |quickly |gently |smoothly )?(?:to the |towards the )?({ways})\b"
        # Much moves that is no camera; what pans, tilts or zooms is one.
        between = r"(?: (?:is|then|also|\w+ly))* " if name == "moves" else r"[^.!?]{0,60}?"
        says = rf"\b(?:camera|shot)\b({between})\b(?:(?:{verbs})\b(?: {to})?|{noun} {to})"
        for match in re.finditer(says, text, re.IGNORECASE):
            way = (match[2] or match[3] or "").lower()
            if not _NOT.search(match[1]):
                told.append((_AXIS.get(way, name) if name == "moves" else name, way))
    return told
