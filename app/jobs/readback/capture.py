"""Pictures of a finding, read back by the numbers of their files: the right slices, outlined where the segments end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.uid import SecondaryCaptureImageStorage

from app.graph import FindingRecord
from app.jobs.readback.computed import TOLERANCE_VOXELS, ComputedLabels, Floats, require
from app.jobs.readback.sources import SourceSlices
from operators.results.capture import NEIGHBOURS, most_captures
from operators.results.common_modules import NOT_VERIFIED

_AT_AN_EDGE = 0.01
"""Of a voxel: a picture's pixel whose middle lies so near to voxels' common edge may show either."""
_COLOURED = 1
"""Difference of a grey pixel's parts: none."""

Colour = tuple[int, int, int]


def check_captures(
    datasets: Sequence[pydicom.Dataset],
    labels: ComputedLabels,
    finding: FindingRecord,
    slices: SourceSlices,
) -> None:
    """Check order, slices, places and outlines of all pictures of a finding.

    Raises ``VerificationFailed`` if a slice is missing or another, or an outline lies elsewhere than its segment ends.
    """
    require(len(datasets) > 0, "there is no picture")
    for number, dataset in enumerate(datasets, start=1):
        require(dataset.SOPClassUID == SecondaryCaptureImageStorage, "it is no Secondary Capture")
        require(dataset.InstanceNumber == number, "pictures are missing or in another order")
        require(str(dataset.DerivationDescription).startswith(NOT_VERIFIED), "it does not say that nobody verified it")
        model = (str(dataset.SoftwareVersions), str(dataset.DeviceSerialNumber))
        require(model == (finding.model.version, finding.model.weights_digest[:16]), "it names another model")
    shown = [slices.named(dataset.SourceImageSequence) for dataset in datasets]
    if not labels.array.any():
        require(shown == [slices.every], "the page that says so is not about the series")
        require("ImagePositionPatient" not in datasets[0], "the page that says so has a place in the patient")
        return
    require(all(len(one) == 1 for one in shown), "a picture is of several slices")
    _check_choice([one[0] for one in shown], labels, most_captures(datasets[0].Rows, datasets[0].Columns))
    colours: dict[int, Colour] = {}
    for dataset, (plane,) in zip(datasets, shown, strict=True):
        _check_outlines(dataset, labels, plane, slices.offsets[plane], colours)


def _check_choice(shown: Sequence[int], labels: ComputedLabels, most: int) -> None:
    """The slices with a finding and their neighbours are shown, or evenly some where they are too many."""
    found = np.flatnonzero([bool(plane.any()) for plane in labels.array]).tolist()
    near = {plane + step for plane in found for step in range(-NEIGHBOURS, NEIGHBOURS + 1)}
    expected = sorted(near & set(range(len(labels.array))))
    step = -(-len(expected) // len(shown))
    require(step == 1 or 2 * len(shown) > most, "slices are left out though there is room for them")
    require(list(shown) == expected[::step], "the slices shown are not those with a finding, in their order")


def _check_outlines(
    dataset: pydicom.Dataset, labels: ComputedLabels, plane: int, offset: Floats, colours: dict[int, Colour]
) -> None:
    """Coloured are exactly the outermost pixels of the labels, each label's in one colour on all pictures."""
    require(dataset.FrameOfReferenceUID == labels.frame_of_reference_uid, "a picture is in another frame of reference")
    place = _Place.of(dataset, labels, plane, offset)
    picture = dataset.pixel_array[place.rows.shown, place.columns.shown]
    shown = labels.array[plane][np.ix_(place.rows.indices, place.columns.indices)]
    outermost = np.where(_ends(shown), shown, 0)
    is_coloured = np.ptp(picture, axis=2) >= _COLOURED
    sure = ~(place.rows.near_edge[:, None] | place.columns.near_edge[None, :])
    require(np.array_equal(is_coloured & sure, (outermost > 0) & sure), "outlines lie elsewhere than segments end")
    for value in np.unique(outermost[sure & (outermost > 0)]).tolist():
        drawn = np.unique(picture[sure & (outermost == value)], axis=0)
        require(len(drawn) == 1, "a segment is outlined in several colours")
        red, green, blue = drawn[0].tolist()
        colour = colours.setdefault(value, (red, green, blue))
        require(colour == (red, green, blue), "a segment is outlined in another colour than on another picture")


def _ends(shown: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Where one of the four neighbours is another."""
    wide = np.pad(shown, 1)
    beside = np.stack([wide[:-2, 1:-1], wide[2:, 1:-1], wide[1:-1, :-2], wide[1:-1, 2:]])
    found: NDArray[np.bool_] = (beside != shown).any(axis=0)
    return found


@dataclass(frozen=True, eq=False)
class _Axis:
    """One axis of a picture along one of the label map."""

    places: Floats
    """Of the middles of the picture's pixels, in voxels."""
    count: int
    """Voxels."""

    @cached_property
    def shown(self) -> slice:
        """The picture's pixels that show voxels: those whose nearer half does."""
        step = float(self.places[1] - self.places[0])
        require(step > 0, "a picture is mirrored")
        within = np.flatnonzero((self.places > -0.5) & (self.places < self.count - 0.5 + step / 2 - _AT_AN_EDGE * step))
        require(len(within) > 0 and self.places[within[0]] < -0.5 + step, "a picture does not show the whole slice")
        require(float(self.places[within[-1]]) > self.count - 0.5 - step, "a picture does not show the whole slice")
        return slice(int(within[0]), int(within[-1]) + 1)

    @cached_property
    def indices(self) -> NDArray[np.int64]:
        """The voxel that each of them shows."""
        nearest = np.rint(self.places[self.shown]).astype(np.int64)
        found: NDArray[np.int64] = np.minimum(nearest, self.count - 1)
        return found

    @cached_property
    def near_edge(self) -> NDArray[np.bool_]:
        """Whether it, or one beside it, may as well show the next voxel."""
        places = self.places[self.shown] + 0.5
        at = np.abs(places - np.rint(places)) <= _AT_AN_EDGE
        found: NDArray[np.bool_] = np.convolve(at, [1, 1, 1], mode="same") > 0
        return found


@dataclass(frozen=True, eq=False)
class _Place:
    """Where a picture lies on the label map."""

    rows: _Axis
    columns: _Axis

    @classmethod
    def of(cls, dataset: pydicom.Dataset, labels: ComputedLabels, plane: int, offset: Floats) -> _Place:
        """Return it, if the picture lies along rows and columns of the slice `plane`."""
        cosines = np.array(dataset.ImageOrientationPatient, np.float64)
        first = np.array(dataset.ImagePositionPatient, np.float64)
        down, right = cosines[3:] * float(dataset.PixelSpacing[0]), cosines[:3] * float(dataset.PixelSpacing[1])
        ends = np.array([first, first + down * (dataset.Rows - 1), first + right * (dataset.Columns - 1)])
        indices = labels.indices(ends) - offset
        on_slice = bool(np.all(np.abs(indices[:, 0] - plane) <= TOLERANCE_VOXELS))
        require(on_slice, "a picture lies elsewhere than the slice that it refers to")
        across = np.abs([indices[1, 2] - indices[0, 2], indices[2, 1] - indices[0, 1]])
        require(bool(np.all(across <= TOLERANCE_VOXELS)), "a picture is turned against its slice")
        _, rows, columns = labels.array.shape
        return cls(
            _Axis(np.linspace(indices[0, 1], indices[1, 1], dataset.Rows), rows),
            _Axis(np.linspace(indices[0, 2], indices[2, 2], dataset.Columns), columns),
        )
