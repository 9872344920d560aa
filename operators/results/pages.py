"""Text on pictures: one font that comes with Pillow and is laid out alike everywhere, so that pixels are repeatable.

It has the letters of Latin scripts; others become boxes. So nothing is only said in a picture: what a label or a
description says stands in the object's attributes too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
Picture = NDArray[np.uint8]
"""(row, column, 3), red, green and blue."""

LINE_HEIGHT = 18
"""Pixels."""
MARGIN = 6
WHITE: Colour = (255, 255, 255)
WARNING: Colour = (255, 220, 0)
_FONT_SIZE = 14


def wrapped(text: str, width: int) -> list[str]:
    """Return `text` in lines that are at most `width` pixels wide; words that are too long are broken."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if _width(longer) <= width:
            lines[-1] = longer
            continue
        lines += [""] if lines[-1] else []
        for letter in word:
            lines += [""] if _width(lines[-1] + letter) > width else []
            lines[-1] += letter
    return lines


def shortened(text: str, width: int) -> str:
    """Return `text`, or as much of its beginning as `width` pixels hold with an ellipsis."""
    if _width(text) <= width:
        return text
    end = len(text)
    while end and _width(f"{text[:end]}...") > width:
        end -= 1
    return f"{text[:end]}..."


def draw_text(picture: Picture, lines: Sequence[str], *, left: int, top: int, colour: Colour = WHITE) -> None:
    """Draw lines below each other onto `picture`; what lies outside it is cut off."""
    height = LINE_HEIGHT * len(lines)
    area = picture[top : top + height, left:]
    if not area.size:
        return
    drawn = Image.fromarray(np.ascontiguousarray(area))
    pen = ImageDraw.Draw(drawn)
    for number, line in enumerate(lines):
        pen.text((0, number * LINE_HEIGHT), line, fill=colour, font=_font())
    area[...] = np.asarray(drawn)


@cache
def _font() -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(_FONT_SIZE)
    if not isinstance(font, ImageFont.FreeTypeFont):  # a Pillow without FreeType: other pixels, and one size
        raise TypeError("Pillow was built without FreeType; install a build that has it, such as those on PyPI")
    return font


def _width(text: str) -> float:
    return _font().getlength(text)
