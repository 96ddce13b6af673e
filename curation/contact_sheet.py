"""Contact sheets: strips of pictures under each other, each with a label and notes that say what it shows.

Pillow is imported when a sheet is drawn. Its own font knows Latin letters alone; of other scripts there are boxes.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from dailies.curation.atomic import new_file
from dailies.curation.plain_text import one_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

PAPER, INK, FAINT, ALARM = (250, 250, 248), (24, 24, 27), (113, 113, 122), (185, 28, 28)
MARGIN, GAP, SIZE = 12, 6, 12  # px; of the page, between pictures, and of letters
LABEL = 132  # px that labels have at the left at most
LINE = SIZE + 4  # px from one line of text to the next
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """Pictures side by side, each (h, w, 3) uint8, in the order given.

    ``label``: what they have in common, at their left. ``notes``: a line under each picture; none, or one for each.
    ``text``: lines over the strip's whole width, such as a caption. ``alarm``: whether the label says that something was
    dropped.
    """

    label: str
    pictures: Sequence[Pixels]
    notes: Sequence[str] = ()
    text: str = ""
    alarm: bool = False

    def __post_init__(self) -> None:
        if self.notes and len(self.notes) != len(self.pictures):
            raise ValueError(f"{len(self.notes)} notes for {len(self.pictures)} pictures")


def contact_sheet(strips: Sequence[Strip], *, title: str = "", height: int = 108, columns: int = 8) -> Pixels:
    """Return one picture (H, W, 3) uint8 of ``strips``, top to bottom, under ``title``.

    Args:
        strips: what to show; a strip of more than ``columns`` pictures goes on in the next line.
        height: px of each picture; pictures keep their proportions.
        columns: pictures side by side at most.
    """
    from PIL import Image, ImageDraw, ImageFont

    pen = _Pen(ImageFont.load_default(SIZE), height)
    blocks = [block for strip in strips for block in pen.blocks(strip, columns)]
    head = textwrap.wrap(pen.drawable(title), 120)
    gutter = max((pen.length(line) + 2 * GAP for block in blocks for line in block.label), default=0)
    width = MARGIN * 2 + gutter + max((block.width for block in blocks), default=0)
    width = max(width, MARGIN * 2 + max((pen.length(line) for line in head), default=0))
    total = MARGIN * 2 + LINE * len(head) + (GAP if head else 0) + sum(block.height for block in blocks)
    page = Image.new("RGB", (width, total), PAPER)
    draw = ImageDraw.Draw(page)
    y = MARGIN
    for line in head:
        draw.text((MARGIN, y), line, fill=INK, font=pen.font)
        y += LINE
    y += GAP if head else 0
    for block in blocks:
        pen.draw(page, draw, block, MARGIN + gutter, y)
        y += block.height
    return np.asarray(page, dtype=np.uint8)


def save_sheet(path: Path, strips: Sequence[Strip], *, title: str = "", columns: int = 8) -> None:
    """Write ``contact_sheet`` as a PNG, which appears whole."""
    from PIL import Image

    sheet = Image.fromarray(contact_sheet(strips, title=title, columns=columns))
    with new_file(path) as hidden:
        sheet.save(hidden, "PNG")


def spread(things: Sequence[T], most: int) -> list[T]:
    """Return at most ``most`` of ``things``, at even distances, in their order."""
    count = min(most, len(things))
    return [things[(2 * number + 1) * len(things) // (2 * count)] for number in range(count)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """A line of a strip: pictures scaled to the sheet's height, and wrapped text."""

    label: list[str]
    pictures: list[Any]
    notes: list[str]
    text: list[str]
    alarm: bool
    width: int
    height: int


class _Pen:
    """Measures and draws blocks."""

    def __init__(self, font: Any, height: int) -> None:
        self.font, self.picture_height = font, height

    def length(self, text: str) -> int:
        """Return the width of ``text`` in px, rounded up."""
        return int(-(-self.font.getlength(text) // 1))

    @staticmethod
    def drawable(text: str) -> str:
        """Return ``text`` on one line, with a hyphen for the dashes that the font has not."""
        return one_line(text).replace("–", "-").replace("—", "-")

    def blocks(self, strip: Strip, columns: int) -> list[_Block]:
        """Return the lines that a strip takes; what is said of the whole strip stands at the first."""
        rows = [range(at, min(at + columns, len(strip.pictures))) for at in range(0, len(strip.pictures), columns)]
        blocks: list[_Block] = []
        for row in rows or [range(0)]:
            pictures = [self._scaled(strip.pictures[number]) for number in row]
            first = not blocks
            wide = sum(picture.width + GAP for picture in pictures)
            text = self._wrapped(strip.text, max(wide, 480)) if first and strip.text else []
            notes = [
                self._fitted(strip.notes[number], pictures[at].width) for at, number in enumerate(row) if strip.notes
            ]
            label = self._wrapped(strip.label, LABEL) if first else []
            beside = max(LINE * len(label), self.picture_height if pictures else 0)
            blocks.append(
                _Block(
                    label=label,
                    pictures=pictures,
                    notes=notes,
                    text=text,
                    alarm=strip.alarm,
                    width=max([wide, *(self.length(line) for line in text)]),
                    height=LINE * len(text) + beside + (LINE if strip.notes else 0) + GAP,
                )
            )
        return blocks

    def draw(self, page: Any, draw: Any, block: _Block, left: int, y: int) -> None:
        """Draw a block from ``y`` down, its pictures from ``left`` on."""
        for line in block.text:
            draw.text((left, y), line, fill=FAINT, font=self.font)
            y += LINE
        for number, line in enumerate(block.label):
            draw.text((MARGIN, y + LINE * number), line, fill=ALARM if block.alarm else INK, font=self.font)
        for number, picture in enumerate(block.pictures):
            page.paste(picture, (left, y))
            if block.notes:
                under = (left, y + self.picture_height + 1)
                draw.text(under, block.notes[number], fill=FAINT, font=self.font)
            left += picture.width + GAP

    def _scaled(self, picture: Pixels) -> Any:
        from PIL import Image

        height, width = picture.shape[:2]
        size = (max(1, round(width * self.picture_height / height)), self.picture_height)
        # Small pictures, of small models, are to look as small as they are.
        how = Image.Resampling.NEAREST if height <= self.picture_height // 2 else Image.Resampling.LANCZOS
        return Image.fromarray(picture).resize(size, how)

    def _fitted(self, text: str, width: int) -> str:
        """Return ``text`` as far as it fits ``width`` px."""
        text = self.drawable(text)
        return text if self.length(text) <= width else f"{text[: self._fitting(text, width - self.length('…'))]}…"

    def _fitting(self, text: str, width: int) -> int:
        """Return how many characters of ``text`` fit ``width`` px."""
        count = len(text)
        while count and self.length(text[:count]) > width:
            count -= 1
        return count

    def _wrapped(self, text: str, width: int) -> list[str]:
        """Return the lines of ``text``, of at most ``width`` px; a word that is longer goes on in the next line."""
        lines: list[str] = []
        for word in self.drawable(text).split():
            if lines and self.length(f"{lines[-1]} {word}") <= width:
                lines[-1] += f" {word}"
                continue
            rest = word
            while rest:
                count = max(1, self._fitting(rest, width))
                lines.append(rest[:count])
                rest = rest[count:]
        return lines
