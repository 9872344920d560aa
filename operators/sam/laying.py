"""The voxels of several structures in one label map, which holds one value a voxel.

The structures are laid down from the one with the most voxels to the one with the fewest, so that what lies within
another stays visible, whichever was asked for first: a lesion in its organ, a necrosis in its tumour. What that costs
the larger ones is counted, since their volumes are without it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from operators.label_maps import LabelMap, smallest_label_type
from operators.sam.objects.rasters import SliceMask, cut


@dataclass(frozen=True)
class Overlap:
    """A structure that gave voxels to those that lie upon it."""

    label: int
    found: int
    """Voxels that were found of it."""
    given: Mapping[int, int]
    """Voxels that it gave, by the label that has been laid upon them, rising."""

    @property
    def left(self) -> int:
        """Voxels that it keeps."""
        return self.found - sum(self.given.values())


class Layers:
    """What was found of each structure, until all is known."""

    def __init__(self) -> None:
        self._found: dict[int, dict[int, SliceMask]] = {}

    def add(self, label: int, slice_index: int, mask: NDArray[np.bool_]) -> None:
        """Add what was found of a structure on a slice, (rows, columns), to what is known of it there."""
        slices = self._found.setdefault(label, {})
        known = slices.get(slice_index)
        found = cut(mask if known is None else mask | known.full(*mask.shape))
        if found is not None:
            slices[slice_index] = found

    def laid(self, shape: tuple[int, int, int]) -> tuple[LabelMap, tuple[Overlap, ...]]:
        """Return the label map, and each structure that gave voxels to others, by rising label.

        Of structures with equally many voxels, the one that came later is laid upon the earlier one.
        """
        voxels = {label: sum(mask.area for mask in slices.values()) for label, slices in self._found.items()}
        labels: LabelMap = np.zeros(shape, smallest_label_type(max(voxels, default=0)))
        given: dict[int, Counter[int]] = {label: Counter() for label in voxels}
        for label in sorted(voxels, key=lambda one: -voxels[one]):
            for index, mask in self._found[label].items():
                rows, columns = mask.pixels.shape
                part = labels[index, mask.top : mask.top + rows, mask.left : mask.left + columns]
                for under, count in enumerate(np.bincount(part[mask.pixels])):
                    if under and count:
                        given[under][label] += int(count)
                part[mask.pixels] = label
        overlapped = [label for label in sorted(voxels) if given[label]]
        return labels, tuple(Overlap(one, voxels[one], dict(sorted(given[one].items()))) for one in overlapped)
