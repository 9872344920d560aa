"""Counting label values: of a whole map, slice by slice, and of one slice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from operators.label_maps import (
    MOST_LABELS,
    LabelMap,
    is_label_type,
    label_counts,
    labels_on,
    smallest_label_type,
)

LABEL_MAPS = st.sampled_from([np.uint8, np.uint16]).flatmap(
    lambda kind: arrays(kind, array_shapes(min_dims=3, max_dims=3, max_side=6))
)


@given(LABEL_MAPS)
def test_counts_are_those_of_the_values_one_by_one(labels: LabelMap) -> None:
    counts = label_counts(labels)
    assert counts.shape == (MOST_LABELS + 1,)
    assert int(counts.sum()) == labels.size
    for value in np.unique(labels):
        assert counts[value] == np.count_nonzero(labels == value)


@given(LABEL_MAPS)
def test_a_slices_labels_are_its_values_without_background(labels: LabelMap) -> None:
    plane = labels[:, 0]  # not contiguous
    assert labels_on(plane).tolist() == sorted(set(plane.reshape(-1).tolist()) - {0})


@pytest.mark.parametrize(("highest", "kind"), [(0, np.uint8), (255, np.uint8), (256, np.uint16), (65535, np.uint16)])
def test_the_smallest_type_holds_the_highest_value(highest: int, kind: type) -> None:
    assert smallest_label_type(highest) is kind


@pytest.mark.parametrize("name", ["int8", "int16", "uint32", "float32", "bool", ">u2"])
def test_other_types_are_no_label_maps(name: str) -> None:
    assert not is_label_type(np.dtype(name))
    assert is_label_type(np.dtype("uint8"))
    assert is_label_type(np.dtype("uint16"))
