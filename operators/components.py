"""The connected components of a mask; voxels that touch by a face, an edge or a corner are connected."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Bits = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Components:
    """The components of a mask, in the order of their first voxels, the last axis counting fastest."""

    box: tuple[slice, ...]
    """The part of the mask that holds them all."""
    numbers: NDArray[np.int32]
    """Of the size of `box`: the component of each voxel, from 1; 0 where the mask is not."""
    sizes: NDArray[np.int64]
    """Voxels by number; of 0 none."""


def components_of(mask: Bits) -> Components | None:
    """Return the components of a mask of any number of axes; None if it is empty."""
    (box,) = ndimage.find_objects(mask.view(np.uint8), max_label=1)  # numbers take four bytes of each voxel
    if box is None:
        return None
    numbers, count = ndimage.label(mask[box], structure=np.ones((3,) * mask.ndim))
    sizes = np.zeros(count + 1, np.int64)
    for plane in numbers:
        np.add.at(sizes, plane[plane > 0], 1)
    return Components(box, numbers, sizes)


def largest_component(mask: Bits) -> Bits:
    """Return the mask of the largest component alone; the first one's if several are the largest."""
    kept = np.zeros_like(mask)
    found = components_of(mask)
    if found is not None:
        kept[found.box] = found.numbers == found.sizes.argmax()
    return kept
