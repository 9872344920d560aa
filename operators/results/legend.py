"""Which colour is which segment, as lines below a picture."""

from __future__ import annotations

from collections.abc import Sequence

from operators.results.pages import LINE_HEIGHT, MARGIN, Colour, Picture, draw_text, shortened

MOST_ENTRIES = 60
_ENTRY_WIDTH = 168
_SWATCH = 10


class Legend:
    """The legend of a page that is `width` pixels wide.

    Parameters
    ----------
    entries
        Colour and label of each segment; of more than `MOST_ENTRIES`, the last line says how many are left out.
    """

    def __init__(self, entries: Sequence[tuple[Colour, str]], width: int) -> None:
        self._entries = entries[:MOST_ENTRIES]
        self._left_out = len(entries) - len(self._entries)
        self._columns = max(1, (width - MARGIN) // _ENTRY_WIDTH)

    @property
    def height(self) -> int:
        """Rows of pixels that it takes."""
        lines = -(-len(self._entries) // self._columns) + bool(self._left_out)
        return MARGIN + lines * LINE_HEIGHT + MARGIN

    def draw(self, picture: Picture, top: int) -> None:
        """Draw it from row `top` on."""
        top += MARGIN
        for place, (colour, label) in enumerate(self._entries):
            row, column = divmod(place, self._columns)
            left, upper = MARGIN + column * _ENTRY_WIDTH, top + row * LINE_HEIGHT
            picture[upper + 3 : upper + 3 + _SWATCH, left : left + _SWATCH] = colour
            text_left = left + _SWATCH + MARGIN
            draw_text(
                picture[:, : left + _ENTRY_WIDTH],
                [shortened(label, _ENTRY_WIDTH - _SWATCH - 2 * MARGIN)],
                left=text_left,
                top=upper,
            )
        if self._left_out:
            last = top + -(-len(self._entries) // self._columns) * LINE_HEIGHT
            draw_text(picture, [f"and {self._left_out} more segments"], left=MARGIN, top=last)
