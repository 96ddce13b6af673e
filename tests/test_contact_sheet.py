"""Contact sheets: where pictures and words stand, and that none is lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dailies.curation.contact_sheet import ALARM, Strip, contact_sheet, save_sheet, spread


def colour(*rgb: int, size: tuple[int, int] = (40, 60)) -> np.ndarray:
    return np.full((*size, 3), rgb, np.uint8)


def boxes(sheet: np.ndarray, rgb: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Top, left, height and width of what has a colour."""
    ys, xs = np.nonzero((sheet == rgb).all(2))
    return int(ys.min()), int(xs.min()), int(np.ptp(ys)) + 1, int(np.ptp(xs)) + 1


RED, GREEN, BLUE = (250, 10, 10), (10, 250, 10), (10, 10, 250)


def test_pictures_stand_in_order_at_one_height_in_their_proportions() -> None:
    wide, tall = colour(*RED, size=(100, 200)), colour(*GREEN, size=(300, 150))
    sheet = contact_sheet([Strip(label="kept", pictures=[wide, tall])], height=50)
    first, second = boxes(sheet, RED), boxes(sheet, GREEN)
    assert (first[2], first[3], second[2], second[3]) == (50, 100, 50, 25)
    assert first[0] == second[0]
    assert first[1] + first[3] < second[1]


def test_strips_stand_under_each_other_and_a_long_one_goes_on_in_the_next_line() -> None:
    strips = [
        Strip(label="a", pictures=[colour(*RED), colour(*RED), colour(*GREEN)]),
        Strip(label="b", pictures=[colour(*BLUE)]),
    ]
    sheet = contact_sheet(strips, height=40, columns=2)
    red, green, blue = boxes(sheet, RED), boxes(sheet, GREEN), boxes(sheet, BLUE)
    assert red[0] + red[2] < green[0]
    assert green[0] + green[2] < blue[0]
    assert red[1] == green[1] == blue[1]


def test_a_note_stands_under_its_own_picture_and_is_cut_to_its_width() -> None:
    pictures = [colour(*RED), colour(*GREEN)]
    plain = contact_sheet([Strip(label="", pictures=pictures, notes=["", ""])], height=40)
    noted = contact_sheet([Strip(label="", pictures=pictures, notes=["", "a note that is far too long"])], height=40)
    assert plain.shape == noted.shape
    rows, columns = np.nonzero((plain != noted).any(2))
    top, left, height, width = boxes(plain, GREEN)
    assert rows.min() >= top + height
    assert left <= columns.min()
    assert columns.max() < left + width


def test_what_was_dropped_is_told_in_another_colour() -> None:
    for alarm in (True, False):
        sheet = contact_sheet([Strip(label="motion_low", pictures=[colour(*RED)], alarm=alarm)])
        assert bool((sheet == ALARM).all(2).any()) is alarm


@pytest.mark.parametrize("words", ["\x1b[31mred\nsecond", "x" * 500, "日本語 🎬", ""])
def test_any_words_can_stand_there(words: str) -> None:
    strip = Strip(label=words, pictures=[colour(*RED)], notes=[words], text=words)
    sheet = contact_sheet([strip], title=words)
    assert boxes(sheet, RED)[2] == 108
    assert sheet.shape[1] < 1200


def test_small_pictures_stay_what_they_are_pixel_by_pixel() -> None:
    small = np.zeros((8, 8, 3), np.uint8)
    small[:, 4:] = 255
    sheet = contact_sheet([Strip(label="", pictures=[small])], height=80)
    _, left, _, width = boxes(sheet, (0, 0, 0))
    assert width == 40  # half of it, with no grey between
    assert set(np.unique(sheet[30:40, left : left + 80])) == {0, 255}


def test_a_note_for_each_picture_or_none() -> None:
    with pytest.raises(ValueError, match="1 notes for 2 pictures"):
        Strip(label="", pictures=[colour(*RED)] * 2, notes=["only"])


def test_a_sheet_is_a_png_file(tmp_path: Path) -> None:
    strips = [Strip(label="kept", pictures=[colour(*RED)])]
    save_sheet(tmp_path / "sheet.png", strips, title="main")
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.format == "PNG"
        np.testing.assert_array_equal(np.asarray(picture), contact_sheet(strips, title="main"))


@pytest.mark.parametrize(
    ("count", "most", "chosen"),
    [(0, 3, []), (2, 3, [0, 1]), (9, 3, [1, 4, 7]), (10, 2, [2, 7]), (5, 5, [0, 1, 2, 3, 4])],
)
def test_some_are_chosen_at_even_distances(count: int, most: int, chosen: list[int]) -> None:
    assert spread(range(count), most) == chosen
