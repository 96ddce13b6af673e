"""Sizes and durations for people to read, in cards and tables."""

from __future__ import annotations

DASH = "–"
"""What stands where a value is not known."""


def count(number: int | None) -> str:
    """Return a number of parameters: 1.52 B, 12.3 M, 845 k."""
    if number is None:
        return DASH
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)


def megabytes(size: int | None) -> str:
    """Return a number of bytes: 3.1 GB, 45.2 MB, 12 kB."""
    if size is None:
        return DASH
    if size >= 1e9:
        return f"{size / 1e9:.1f} GB"
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def duration(seconds: float | None) -> str:
    """Return a duration: 42 s, 12 min, 3.4 h."""
    if seconds is None:
        return DASH
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
