"""Text is wrapped to what a page holds, and drawn alike each time."""

from __future__ import annotations

import numpy as np

from operators.results.legend import MOST_ENTRIES, Legend
from operators.results.pages import draw_text, shortened, wrapped


def test_no_line_is_wider_than_asked_and_no_word_is_lost() -> None:
    text = "expected slices of one orientation, got several; " * 4 + "x" * 90
    lines = wrapped(text, 200)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(shortened(line, 200) == line for line in lines)
    assert wrapped("", 200) == [""]


def test_what_is_too_long_ends_with_an_ellipsis() -> None:
    assert shortened("Liver", 100) == "Liver"
    assert shortened("Left lateral segment of the liver", 100).endswith("...")


def test_text_changes_pixels_only_where_it_is() -> None:
    picture = np.zeros((60, 200, 3), np.uint8)
    draw_text(picture, ["Liver"], left=10, top=20)
    assert picture.any()
    assert not picture[:20].any()
    assert not picture[38:].any()
    again = np.zeros_like(picture)
    draw_text(again, ["Liver"], left=10, top=20)
    assert np.array_equal(picture, again)
    draw_text(again, ["Liver"] * 9, left=10, top=50)  # what lies outside is cut off
    draw_text(again, ["Liver"], left=10, top=70)


def test_a_legend_says_how_many_it_leaves_out() -> None:
    few = Legend([((255, 0, 0), "Liver")], 512)
    many = Legend([((255, 0, 0), "Liver")] * (MOST_ENTRIES + 5), 512)
    assert many.height == few.height + 20 * 18  # 20 lines of 3 more than one, and the last
    picture = np.zeros((many.height, 512, 3), np.uint8)
    many.draw(picture, 0)
    assert picture[-24:-6].any()
