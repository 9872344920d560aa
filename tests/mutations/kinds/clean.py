"""Nothing is wrong: real voxels, stacked in every way that the Standard has. To refuse one is a false alarm."""

from __future__ import annotations

import numpy as np

from tests.mutations.kind import Series, clean
from tests.mutations.kinds.editing import copies, decimals, position
from tests.mutations.series import renamed, restore, stored

_MOST = 64
"""Slices of a reformatted series, at least so many and below twice as many: it is quickly written."""


@clean()
def as_it_came(series: Series) -> Series:
    """The series, uncompressed."""
    return series


@clean()
def non_square_pixels(series: Series) -> Series:
    """Every second column only: pixels twice as wide as high."""
    for dataset in series:
        rows, columns = map(float, dataset.PixelSpacing)
        restore(dataset, stored(dataset)[:, ::2])
        dataset.PixelSpacing = decimals([rows, 2 * columns])
    return series


@clean()
def against_the_normal(series: Series) -> Series:
    """Instance Numbers that run the other way along the body."""
    for number, dataset in enumerate(reversed(series), start=1):
        dataset.InstanceNumber = number
    return series[::-1]


@clean()
def feet_first_prone(series: Series) -> Series:
    """A patient who lies the other way round and on the belly: rows and columns point elsewhere."""
    for dataset in series:
        dataset.PatientPosition = "FFP"
        dataset.ImageOrientationPatient = decimals([1, 0, 0, 0, -1, 0])
    return series


@clean()
def oblique(series: Series) -> Series:
    """A stack turned about two axes, as oblique reformats and most MR are."""
    across, up = np.radians(25), np.radians(15)
    about_x = np.array([[1, 0, 0], [0, np.cos(across), -np.sin(across)], [0, np.sin(across), np.cos(across)]])
    about_y = np.array([[np.cos(up), 0, np.sin(up)], [0, 1, 0], [-np.sin(up), 0, np.cos(up)]])
    turn = about_y @ about_x
    for dataset in series:
        orientation = np.array(dataset.ImageOrientationPatient, dtype=float).reshape(2, 3)
        dataset.ImageOrientationPatient = decimals((orientation @ turn.T).reshape(-1))
        dataset.ImagePositionPatient = decimals(turn @ position(dataset))
    return series


@clean()
def coronal(series: Series) -> Series:
    """Coronal slices, reformatted of the axial ones: 20 rows, the head above."""
    return _reformatted(series, coronal_view=True)


@clean()
def sagittal(series: Series) -> Series:
    """Sagittal slices, reformatted of the axial ones: 20 rows, the head above."""
    return _reformatted(series, coronal_view=False)


@clean()
def thin_and_overlapping(series: Series) -> Series:
    """Slices five times as thick as they are apart, which is no gap and no doubling."""
    for dataset in series:
        dataset.SliceThickness = "15"
    return series


@clean()
def scanned_in_pieces(series: Series) -> Series:
    """Two acquisitions, one beside the other, with numbers and times of their own: one stack."""
    for index, dataset in enumerate(series):
        dataset.AcquisitionNumber, dataset.AcquisitionTime = (
            (1, "101400") if index < len(series) // 2 else (2, "101431")
        )
    return series


def _reformatted(series: Series, *, coronal_view: bool) -> Series:
    ordered = sorted(series, key=lambda dataset: -position(dataset)[2])  # the head first
    volume = np.stack([stored(dataset) for dataset in ordered])
    apart = abs(position(ordered[1])[2] - position(ordered[0])[2])
    row_spacing, column_spacing = map(float, ordered[0].PixelSpacing)
    start = position(ordered[0])
    count = volume.shape[1 if coronal_view else 2]
    made = []
    for number, index in enumerate(range(0, count, max(1, count // _MOST))):
        (dataset,) = copies([ordered[0]])
        dataset = renamed(dataset, "reformatted", number)
        restore(dataset, volume[:, index] if coronal_view else volume[:, :, index])
        across = np.array([0, index * row_spacing, 0]) if coronal_view else np.array([index * column_spacing, 0, 0])
        dataset.ImagePositionPatient = decimals(start + across)
        dataset.ImageOrientationPatient = decimals([1, 0, 0, 0, 0, -1] if coronal_view else [0, 1, 0, 0, 0, -1])
        dataset.PixelSpacing = decimals([apart, column_spacing if coronal_view else row_spacing])
        dataset.InstanceNumber = number + 1
        made.append(dataset)
    return made
