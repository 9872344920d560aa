"""How far two label maps of one series agree, segment by segment: overlap, distance of the surfaces, volume.

- Dice: twice the common voxels over the sum of both (Dice 1945, Ecology 26:297).
- Distance: the 95th percentile of the distances between the surfaces, in mm. The surface of a mask is what its erosion
  by the 6-neighbourhood takes away; what lies outside the volume counts as background. From the centre of each surface
  voxel of one mask the distance to the nearest centre of the other's is taken, both ways; the percentile, interpolated
  linearly, is that of both ways' distances together, as ``medpy.metric.binary.hd95`` has it. MONAI and
  ``surface-distance`` take the larger of two percentiles, one for each way, which is never less.
- Volume: the second one's less the first one's.

Both empty agree wholly: Dice 1, distance 0. Where one of two is empty Dice is 0, and there is no distance.
"""

from __future__ import annotations

from collections.abc import Sequence

import highdicom
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects
from scipy.spatial import cKDTree

from operators.agreement_limits import Agreement
from operators.label_maps import check_place, voxel_millilitres

_PERCENTILE = 95.0

Box = tuple[slice, slice, slice]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]


def compare_labels(
    first: highdicom.Volume, second: highdicom.Volume, label_values: Sequence[int]
) -> tuple[Agreement, ...]:
    """Compare two label maps, one segment after the other.

    Parameters
    ----------
    first, second
        uint8 or uint16, axes slice, row, column, on one grid.
    label_values
        The segments, 1 to 65535 each.

    Raises
    ------
    OperatorError
        ``labels-elsewhere`` if the two do not lie on one grid.
    """
    check_place(second, first)
    spacing = np.array(first.spacing, dtype=np.float64)
    voxel_ml = voxel_millilitres(first)
    boxes = [find_objects(labels.array, max_label=max(label_values, default=0)) for labels in (first, second)]
    agreements = []
    for value in label_values:
        box = _joint_box(boxes[0][value - 1], boxes[1][value - 1])
        if box is None:
            agreements.append(Agreement(value, 1.0, 0.0, 0.0, 0.0))
            continue
        masks = first.array[box] == value, second.array[box] == value
        agreements.append(_compare(value, *masks, spacing, voxel_ml))
    return tuple(agreements)


def surface_distance(first: Mask, second: Mask, spacing: Floats) -> float:
    """Return the 95th percentile of the distances between two surfaces, in mm; neither mask may be empty.

    Parameters
    ----------
    first, second
        Axes slice, row, column; what lies outside the array is background.
    spacing
        Of slices, rows and columns, in mm.
    """
    surfaces = _surface(first), _surface(second)
    common = np.count_nonzero(surfaces[0] & surfaces[1])
    places = [np.argwhere(surface) * spacing for surface in surfaces]
    apart = [np.argwhere(surfaces[one] & ~surfaces[1 - one]) * spacing for one in (0, 1)]
    # a tree of the surface, and not a distance map of the box: exact too, with a tenth of the time and memory. Where
    # the surfaces coincide, on both, nothing has to be looked for
    distances = [cKDTree(places[1 - one]).query(apart[one])[0] for one in (0, 1)]
    return float(np.percentile(np.concatenate([*distances, np.zeros(2 * common)]), _PERCENTILE))


def _compare(value: int, first: Mask, second: Mask, spacing: Floats, voxel_ml: float) -> Agreement:
    counts = int(np.count_nonzero(first)), int(np.count_nonzero(second))
    common = int(np.count_nonzero(first & second))
    return Agreement(
        label_value=value,
        dice=2.0 * common / sum(counts),
        distance_mm=surface_distance(first, second, spacing) if all(counts) else None,
        first_ml=counts[0] * voxel_ml,
        second_ml=counts[1] * voxel_ml,
    )


def _joint_box(first: Box | None, second: Box | None) -> Box | None:
    """The box around both; None if there is neither."""
    if first is None or second is None:
        return first or second
    a, b, c = (
        slice(min(one.start, two.start), max(one.stop, two.stop)) for one, two in zip(first, second, strict=True)
    )
    return a, b, c


def _surface(mask: Mask) -> Mask:
    """What an erosion by the 6-neighbourhood takes away: voxels with a neighbour that is not in the mask."""
    inside = mask.copy()
    for axis in range(mask.ndim):
        along, within = np.moveaxis(mask, axis, 0), np.moveaxis(inside, axis, 0)
        within[1:] &= along[:-1]
        within[:-1] &= along[1:]
        within[0] = False  # beyond the array nothing is in it
        within[-1] = False
    surface: Mask = mask & ~inside
    return surface
