"""nnU-Net v2's postprocessing: of some labels taken together, only the largest connected part is kept.

It is what ``remove_all_but_largest_component_from_segmentation`` does, which training chooses by cross-validation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from operators.components import components_of
from operators.label_maps import LabelMap


def keep_largest_component(labels: LabelMap, of: Sequence[int]) -> LabelMap:
    """Return labels in which the voxels of `of` that lie apart from their largest connected component are 0.

    Voxels that touch by a corner are connected. The labels of `of` are one mask: where two of them touch, they are
    one component. If several components are the largest, all of them are kept.

    Parameters
    ----------
    labels
        Axes in any order; not changed. Other labels than those of `of` stay as they are.
    of
        Label values; those that `labels` does not hold count for nothing.
    """
    mask = np.empty(labels.shape, np.bool_)
    for plane, found in zip(labels, mask, strict=True):  # isin makes copies of what it is given
        found[...] = np.isin(plane, list(of))
    kept = labels.copy()
    found = components_of(mask)
    if found is None:
        return kept
    removed = found.sizes < found.sizes.max()
    removed[0] = False  # what is not of the mask
    kept[found.box][removed[found.numbers]] = 0
    return kept
