"""What a person or another model shows a generalist: boxes, points and masks.

A prompt on one slice is in pixels of the image: x (column) and y (row), (0, 0) in the corner of the first pixel, so
that the middle of the first pixel lies at (0.5, 0.5).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from operators.errors import PromptRefused
from operators.sam.contract import PromptKind

MOST_POINTS = 64
"""Points in one prompt. A model learnt from a few; more come from an outline, which is a mask or a box."""

SegmentPrompts = Literal["boxes", "points", "boxes-and-points"]
"""What another model's segments are shown by: on each slice the box around a segment, a point well within each of its
connected parts, or both."""


@dataclass(frozen=True)
class Point:
    """One point, on what is meant or on what is not."""

    x: float
    y: float
    is_foreground: bool = True


@dataclass(frozen=True)
class Box:
    """A rectangle around what is meant."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class SlicePrompt:
    """All that is said about one object on one slice."""

    box: Box | None = None
    points: tuple[Point, ...] = ()
    logits: NDArray[np.float32] | None = None
    """A former answer of the decoder at its own size, (size, size), to be refined."""

    @property
    def kinds(self) -> tuple[PromptKind, ...]:
        """What it shows, in the order of `PromptKind`."""
        given: dict[PromptKind, bool] = {
            "box": self.box is not None,
            "points": bool(self.points),
            "mask": self.logits is not None,
        }
        return tuple(kind for kind, is_given in given.items() if is_given)

    def checked(self, rows: int, columns: int) -> SlicePrompt:
        """Return it, having seen that it can be asked on an image of `rows` x `columns`.

        Raises
        ------
        PromptRefused
            ``prompt-empty`` if nothing is shown, or a box has no area; ``prompt-outside`` if a point lies outside the
            image or a box does not touch it; ``prompt-too-long`` if it has more points than `MOST_POINTS`;
            ``prompt-not-finite`` if a coordinate is no number.
        """
        numbers = [value for point in self.points for value in (point.x, point.y)]
        if self.box is not None:
            numbers += [self.box.left, self.box.top, self.box.right, self.box.bottom]
        if not np.isfinite(numbers).all():
            raise PromptRefused("a prompt's coordinates must be finite numbers", code="prompt-not-finite")
        if self.box is None and not self.points and self.logits is None:
            raise PromptRefused("the prompt shows nothing: expected a box, points or a mask", code="prompt-empty")
        if len(self.points) > MOST_POINTS:
            raise PromptRefused(
                f"the prompt has {len(self.points)} points, and {MOST_POINTS} are possible; draw a box or an outline",
                code="prompt-too-long",
            )
        self._check_place(rows, columns)
        return self

    def _check_place(self, rows: int, columns: int) -> None:
        outside = sum(not (0 <= point.x <= columns and 0 <= point.y <= rows) for point in self.points)
        if outside:
            raise PromptRefused(
                f"{outside} of {len(self.points)} points lie outside the image of {columns} columns and {rows} rows",
                code="prompt-outside",
            )
        box = self.box
        if box is None:
            return
        if box.right <= box.left or box.bottom <= box.top:
            raise PromptRefused(
                f"the box has no area: it reaches from ({box.left:g}, {box.top:g}) to ({box.right:g}, {box.bottom:g})",
                code="prompt-empty",
            )
        if box.right <= 0 or box.bottom <= 0 or box.left >= columns or box.top >= rows:
            raise PromptRefused(
                f"the box lies outside the image of {columns} columns and {rows} rows", code="prompt-outside"
            )
