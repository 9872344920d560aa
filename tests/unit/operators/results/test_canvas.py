"""A slice on its canvas: square pixels, every voxel shown, in its place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.results.canvas import LEAST_SIDE, Canvas

spacings = st.floats(0.3, 6.0)
counts = st.integers(1, 700)


@given(counts, counts, spacings, spacings)
def test_every_row_and_column_is_shown_in_order(rows: int, columns: int, down: float, right: float) -> None:
    canvas = Canvas(rows, columns, down, right, 10, 20)
    for found, count in ((canvas.source_rows, rows), (canvas.source_columns, columns)):
        assert sorted(set(found.tolist())) == list(range(count))
        assert (np.diff(found) >= 0).all()
    assert canvas.shape[0] == 30 + len(canvas.source_rows)
    assert max(canvas.shape) >= LEAST_SIDE


@given(counts, counts, spacings, spacings)
def test_pixels_are_square_and_sizes_are_kept(rows: int, columns: int, down: float, right: float) -> None:
    canvas = Canvas(rows, columns, down, right, 0, 0)
    for found, extent in ((canvas.source_rows, rows * down), (canvas.source_columns, columns * right)):
        assert len(found) * canvas.spacing == pytest.approx(extent, abs=canvas.spacing + 1e-6)


def test_a_large_slice_with_square_pixels_is_shown_as_it_is() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (512, 600), np.uint8)
    canvas = Canvas(512, 600, 0.7, 0.7, 10, 20)
    shown = canvas.shown(grey)
    assert all(np.array_equal(shown[..., channel], grey) for channel in range(3))
    assert canvas.shape == (542, 600)


def test_outermost_pixels_are_those_with_another_label_beside_them() -> None:
    labels = np.zeros((600, 600), np.uint8)
    labels[10:13, 20:24] = 3
    labels[10:13, 24:26] = 7
    labels[599, 599] = 3
    outlined = Canvas(600, 600, 1.0, 1.0, 0, 0).outlined(labels)
    expected = labels.copy()
    expected[11, 21:23] = 0
    assert np.array_equal(outlined, expected)


def test_what_is_shown_keeps_its_place() -> None:
    """Brightest where the slice is, with rows twice as far apart as columns."""
    grey = np.zeros((300, 512), np.uint8)
    grey[100, 40] = 255
    shown = Canvas(300, 512, 2.0, 1.0, 0, 0).shown(grey)[..., 0]
    assert shown.shape == (600, 512)
    rows, columns = np.nonzero(shown == shown.max())
    assert (set(rows.tolist()), set(columns.tolist())) == ({200, 201}, {40})
