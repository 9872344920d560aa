"""Between a volume with a place in the patient and the bare array that nnU-Net was trained on."""

from __future__ import annotations

import highdicom
import numpy as np

from operators.model_package import ModelPackage
from operators.nnunet.segmentation import segment_volume
from operators.nnunet.sliding_window import Infer, Progress


def segment_series_volume(
    volume: highdicom.Volume, package: ModelPackage, infer: Infer, progress: Progress
) -> highdicom.Volume:
    """Return labels (uint8) for a volume with the axes slice, row, column, on exactly its grid.

    nnU-Net was trained on arrays as SimpleITK reads them: slices by rising position along the cross product of the
    row and the column direction. A volume may run the other way; it is then turned, and its labels turned back.
    """
    reading = simpleitk_order(volume)
    first, second, third = (float(value) for value in reading.spacing)
    array = np.asarray(reading.array, dtype=np.float32)
    labels = reading.with_array(segment_volume(array, (first, second, third), package, infer, progress))
    return labels if reading is volume else volume.with_array(labels.flip_spatial(0).array)


def simpleitk_order(volume: highdicom.Volume) -> highdicom.Volume:
    """Return `volume` with its slices in the order in which SimpleITK reads a DICOM series (PS3.3 C.7.6.2.1.1).

    The volume itself if they already are.
    """
    slices, columns, rows = (np.asarray(volume.direction)[:, axis] for axis in range(3))
    # the row direction is the way along a row, from column to column: the last axis of the array
    normal = np.cross(rows, columns)
    return volume if float(np.dot(slices, normal)) > 0 else volume.flip_spatial(0)
