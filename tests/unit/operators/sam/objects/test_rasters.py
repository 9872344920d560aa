"""The mathematics of outlines, lines and points on a slice, held against independent ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.errors import PromptRefused
from operators.sam.objects.graphics import shape_of
from operators.sam.objects.prompt_object import Shape
from operators.sam.objects.rasters import SliceMask, cut, farthest_inside, filled
from operators.sam.objects.slice_prompts import DrawnOnSlice, Line, SliceGrid, prompt_on, stroke_points

_NUMBER = st.floats(-5, 30, width=32)
_POINT = st.tuples(_NUMBER, _NUMBER)


@given(st.lists(_POINT, min_size=3, max_size=12))
def test_a_filled_polygon_has_the_pixels_whose_middle_winding_is_odd(corners: list[tuple[float, float]]) -> None:
    outline = np.array(corners, np.float64)
    mask = filled(outline, 20, 25)
    start, end = outline, np.roll(outline, -1, axis=0)
    for row in range(20):
        for column in range(0, 25, 3):
            x, y = column + 0.5, row + 0.5
            crossings = [
                one[0] + (y - one[1]) * (other[0] - one[0]) / (other[1] - one[1])
                for one, other in zip(start, end, strict=True)
                if (one[1] <= y) != (other[1] <= y)
            ]
            if min((abs(crossing - x) for crossing in crossings), default=1.0) > 1e-6:
                assert mask[row, column] == (sum(crossing < x for crossing in crossings) % 2 == 1)


@given(
    st.integers(0, 8),
    st.integers(0, 8),
    st.integers(1, 9),
    st.integers(1, 9),
    st.floats(-0.49, 0.49),
    st.floats(-0.49, 0.49),
)
def test_a_rectangle_covers_its_pixels_within_half_a_pixel(
    top: int, left: int, height: int, width: int, down: float, right: float
) -> None:
    outline = np.array([[left, top], [left + width, top], [left + width, top + height], [left, top + height]])
    mask = cut(filled(outline + np.array([right, down]), 20, 20))
    expected = np.zeros((20, 20), np.bool_)
    expected[top : top + height, left : left + width] = True
    assert mask is not None
    assert np.array_equal(mask.full(20, 20), expected)


@given(st.lists(st.lists(st.booleans(), min_size=7, max_size=7), min_size=5, max_size=5))
def test_cutting_and_laying_back_changes_nothing_and_the_interior_is_inside(rows: list[list[bool]]) -> None:
    mask = np.array(rows)
    small = cut(mask)
    assert (small is None) == (not mask.any())
    if small is not None:
        assert np.array_equal(small.full(5, 7), mask)
        point = farthest_inside(small, (2.0, 0.7))
        assert mask[int(point.y), int(point.x)]


def test_the_interior_is_the_middle_of_the_widest_place_in_millimetres() -> None:
    mask = SliceMask(2, 3, np.ones((3, 9), np.bool_))
    point = farthest_inside(mask, (4.0, 1.0))  # three rows are 12 mm, nine columns 9 mm: the middle is far from all
    assert (point.x, point.y) == (7.5, 3.5)


@given(_POINT, _POINT, st.floats(0.3, 3), st.floats(0.3, 3))
def test_a_line_is_a_square_of_its_length(
    one: tuple[float, float], other: tuple[float, float], between_rows: float, between_columns: float
) -> None:
    ends = np.array([one, other])
    spacing = (between_rows, between_columns)
    length = float(np.linalg.norm((ends[1] - ends[0]) * spacing[::-1]))
    if length < 0.1:
        return
    shifted = ends + 500
    grid = SliceGrid(1000, 1000, spacing)
    box = prompt_on(0, DrawnOnSlice(lines=[Line(shifted, length)]), grid).prompt.box
    assert box is not None
    assert (box.right - box.left) * between_columns == pytest.approx(length)
    assert (box.bottom - box.top) * between_rows == pytest.approx(length)
    assert (box.left + box.right) / 2 == pytest.approx(shifted[:, 0].mean())
    assert all(box.left - 1e-6 <= x <= box.right + 1e-6 for x in shifted[:, 0])
    assert all(box.top - 1e-6 <= y <= box.bottom + 1e-6 for y in shifted[:, 1])


@given(st.floats(0, 2 * np.pi), st.floats(4, 40), st.floats(0.1, 1), st.floats(0.3, 3), st.floats(0.3, 3))
def test_two_axes_are_the_box_around_their_ellipse(
    angle: float, length: float, ratio: float, between_rows: float, between_columns: float
) -> None:
    along = np.array([np.cos(angle), np.sin(angle)]) * length / 2
    across = np.array([-np.sin(angle), np.cos(angle)]) * length * ratio / 2
    scale = np.array([between_columns, between_rows])
    turns = np.linspace(0, 2 * np.pi, 4001)[:, None]
    around = (np.cos(turns) * along + np.sin(turns) * across) / scale + 500
    lines = [Line(np.array([-axis, axis]) / scale + 500, 2 * float(np.linalg.norm(axis))) for axis in (across, along)]
    box = prompt_on(0, DrawnOnSlice(lines=lines), SliceGrid(1000, 1000, (between_rows, between_columns))).prompt.box
    assert box is not None
    found = [box.left, box.top, box.right, box.bottom]
    assert found == pytest.approx([*around.min(axis=0), *around.max(axis=0)], abs=1e-3)


@given(st.lists(_POINT, min_size=2, max_size=40))
def test_points_of_a_stroke_lie_on_it(corners: list[tuple[float, float]]) -> None:
    stroke = np.array(corners)
    for point in stroke_points(stroke):
        start, end = stroke[:-1], stroke[1:]
        span = end - start
        squared = np.maximum((span**2).sum(axis=1), 1e-300)
        along = np.clip(((point - start) * span).sum(axis=1) / squared, 0, 1)
        assert np.linalg.norm(start + along[:, None] * span - point, axis=1).min() < 1e-5


@given(
    st.sampled_from(
        ["POINT", "MULTIPOINT", "POLYLINE", "INTERPOLATED", "CIRCLE", "ELLIPSE", "POLYGON", "ELLIPSOID", "?"]
    ),
    st.lists(st.tuples(_NUMBER, _NUMBER, _NUMBER), min_size=1, max_size=8),
    st.booleans(),
)
def test_any_points_make_a_shape_or_are_refused_with_a_code(
    graphic_type: str, points: list[tuple[float, float, float]], is_closed: bool
) -> None:
    try:
        shape, corners = shape_of(graphic_type, np.array(points), is_closed=is_closed)
    except PromptRefused as refusal:
        assert refusal.code in ("graphic-unsupported", "unreadable", "prompt-empty")  # noqa: PT017 - one of two ways
    else:
        assert np.isfinite(corners).all()
        assert len(corners) >= {Shape.LINE: 2, Shape.POINTS: 1, Shape.ELLIPSOID: 6}.get(shape, 3)
