"""Between volumes with a place in the patient and the bare arrays that nnU-Net was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import highdicom
import numpy as np

from operators.errors import ModelPackageError
from operators.model_package import ModelPackage
from operators.nnunet.prediction import Infer
from operators.nnunet.probability_maps import ProbabilityMaps
from operators.nnunet.segmentation import Progress, segment_volume

_RAS = ("H", "A", "R")
"""Where the axes z, y, x of an array lead when a reader has turned it to RAS (PS3.3 C.7.6.1.1.1)."""


def segment_series_volume(
    channels: Sequence[highdicom.Volume],
    package: ModelPackage,
    networks: Mapping[str, Infer],
    progress: Progress,
    scratch_folder: Path | None = None,
    maps: ProbabilityMaps | None = None,
) -> highdicom.Volume:
    """Return labels for volumes with the axes slice, row, column, on exactly the first one's grid, which all share.

    nnU-Net was trained on arrays as its reader gave them: most readers leave an image as it is stored, with slices by
    rising position along the cross product of the row and the column direction; some turn it to RAS first. The
    volumes are turned to that, and the labels turned back.

    Other parameters, and errors, are those of `segment_volume`.
    """
    turned = [reading_order(volume, package) for volume in channels]
    first, second, third = (float(value) for value in turned[0].spacing)
    arrays = [np.asarray(volume.array, dtype=np.float32) for volume in turned]
    labels = segment_volume(arrays, (first, second, third), package, networks, progress, scratch_folder, maps)
    # turning is the same for labels: their grid is brought back to the first channel's
    if maps is not None:
        maps.turn(turned[0], channels[0])
    return turned[0].with_array(labels).match_geometry(channels[0])


def reading_order(volume: highdicom.Volume, package: ModelPackage) -> highdicom.Volume:
    """Return `volume` turned as the package's networks expect it.

    Raises
    ------
    ModelPackageError
        ``configuration-unsupported`` if they expect different things.
    """
    orientations = {network.orientation for network in package.all_networks}
    if len(orientations) > 1:
        raise ModelPackageError(
            f"the networks of {package.name} expect images turned differently, which is not supported",
            code="configuration-unsupported",
        )
    return simpleitk_order(volume) if orientations == {None} else volume.to_patient_orientation(_RAS)


def simpleitk_order(volume: highdicom.Volume) -> highdicom.Volume:
    """Return `volume` with its slices in the order in which SimpleITK reads a DICOM series (PS3.3 C.7.6.2.1.1).

    The volume itself if they already are.
    """
    slices, columns, rows = (np.asarray(volume.direction)[:, axis] for axis in range(3))
    # the row direction is the way along a row, from column to column: the last axis of the array
    normal = np.cross(rows, columns)
    return volume if float(np.dot(slices, normal)) > 0 else volume.flip_spatial(0)
