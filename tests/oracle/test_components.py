"""Our largest component is nnU-Net v2's, and the one that MedSAM2's script takes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from nnunetv2.postprocessing.remove_connected_components import remove_all_but_largest_component_from_segmentation
from skimage.measure import label

from operators.components import largest_component
from operators.label_maps import LabelMap
from operators.nnunet.components import keep_largest_component
from tests.drawn_labels import label_choices, speckled_labels


@given(speckled_labels(), label_choices())
def test_labels_one_by_one(labels: LabelMap, of: list[int]) -> None:
    for value in of:
        expected = remove_all_but_largest_component_from_segmentation(labels, value)
        found = keep_largest_component(labels, [value])
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)


@given(speckled_labels(), label_choices())
def test_labels_together(labels: LabelMap, of: list[int]) -> None:
    expected = remove_all_but_largest_component_from_segmentation(labels, list(of))
    assert np.array_equal(keep_largest_component(labels, of), expected)


@given(speckled_labels(), st.lists(label_choices(), min_size=1, max_size=3))
def test_regions(labels: LabelMap, regions: list[list[int]]) -> None:
    expected = remove_all_but_largest_component_from_segmentation(labels, [tuple(region) for region in regions])
    of = [value for region in regions for value in region]
    assert np.array_equal(keep_largest_component(labels, of), expected)


@given(speckled_labels())
def test_the_component_that_medsam2s_script_takes(labels: LabelMap) -> None:
    """``medsam2_infer_3D_CT.py``: scikit-image's numbers of a mask's components, and of equals the first."""
    numbers = label(labels > 0)
    _, *sizes = np.bincount(numbers.ravel())
    expected = numbers == 1 + np.argmax(sizes) if sizes else np.zeros(labels.shape, bool)
    assert np.array_equal(largest_component(labels > 0), expected)
