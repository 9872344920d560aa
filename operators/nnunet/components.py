"""nnU-Net v2's postprocessing: of some labels taken together, only the largest connected part is kept.

It is what ``remove_all_but_largest_component_from_segmentation`` does, which training chooses by cross-validation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

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
    (box,) = ndimage.find_objects(mask.view(np.uint8), max_label=1)  # components take four bytes of each voxel
    if box is None:
        return kept
    components, count = ndimage.label(mask[box], structure=np.ones((3,) * labels.ndim))
    sizes = np.zeros(count + 1, np.int64)
    for plane in components:
        np.add.at(sizes, plane[plane > 0], 1)
    removed = sizes < sizes.max()
    removed[0] = False  # what is not of the mask
    kept[box][removed[components]] = 0
    return kept
