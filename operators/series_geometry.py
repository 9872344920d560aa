"""Where the slices of a series lie: order and spacing by highdicom, and what is wrong where they make no volume."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pydicom
from highdicom.spatial import get_normal_vector, get_volume_positions
from numpy.typing import NDArray

from operators.errors import SeriesRefused
from operators.parse_errors import PARSE_ERRORS
from operators.series_checks import numbers, text
from operators.series_differences import differences

_ORIENTATION_TOLERANCE = 1e-4
"""Difference of direction cosines that is rounding."""
_DIRECTION_TOLERANCE = 1e-3
"""How far direction cosines may be from unit length and a right angle."""
_SAME_PLACE_MM = 1e-3
_MOST_ASIDE_PIXELS = 0.25
"""How far apart slices may lie within their plane, between any two of the stack: positions and direction cosines are
rounded. It is less than the half pixel by which a wrong convention misplaces a result, so that this stays visible."""
_MOST_ALONG_SLICES = 0.2
"""How far a slice may lie along the normal from its place on the even grid, in slice spacings."""
_ANY_ANGLE = 1.0
"""highdicom's tolerance of the angle to the normal, 2.6 degrees by itself, would add up to centimetres in a long stack;
what lies aside is measured here."""
_MOST_GAPS_NAMED = 5
_STATED_SPACINGS = ("SpacingBetweenSlices", "SliceThickness")
"""What says how much of the patient a slice alone stands for, the better one first."""
UNSTATED_SPACING_MM = 1.0
"""Of a slice alone that states neither; highdicom takes the same."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SeriesGeometry:
    """The stack that the slices make."""

    spacing: float
    """Distance between neighbouring slices along their normal, in mm; of a slice alone what it states."""
    slice_indices: tuple[int, ...]
    """The slice index of each header, in the order they were given."""
    is_spacing_known: bool = True
    """False of a slice alone that states none: its spacing is `UNSTATED_SPACING_MM`."""


def find_geometry(headers: Sequence[pydicom.Dataset], *, takes_single_slice: bool = False) -> SeriesGeometry:
    """Return how the slices lie, sorted along their normal (PS3.3 C.7.6.2.1.1).

    Parameters
    ----------
    takes_single_slice
        Whether a slice alone will do.

    Raises
    ------
    SeriesRefused
        If they are not one evenly spaced stack along its normal in one frame of reference.
    """
    _check_present(headers)
    _check_frame_of_reference(headers)
    orientation = _orientation(headers)
    if len(headers) == 1:
        if not takes_single_slice:
            raise SeriesRefused("expected a stack of slices, got a single one", code="too-few-slices")
        return _single(headers[0])
    positions = np.array([numbers(header, "ImagePositionPatient") for header in headers])
    spacing, indices = get_volume_positions(positions, orientation, perpendicular_tol=_ANY_ANGLE)
    # positions that differ by less than rounding are different ones to highdicom, with a spacing near 0
    if spacing is None or indices is None or spacing < _SAME_PLACE_MM or _strays(headers[0], positions, orientation):
        raise _refusal(headers, positions, orientation)
    return SeriesGeometry(float(spacing), tuple(int(index) for index in indices))


def _single(header: pydicom.Dataset) -> SeriesGeometry:
    """A slice alone: no neighbour tells its spacing, so that it is what the slice states (PS3.3 C.7.6.16.2.1)."""
    for keyword in _STATED_SPACINGS:
        try:
            stated = float(text(header, keyword))
        except PARSE_ERRORS:  # missing, empty, or no number
            continue
        if np.isfinite(stated) and stated > 0:
            return SeriesGeometry(stated, (0,))
    return SeriesGeometry(UNSTATED_SPACING_MM, (0,), is_spacing_known=False)


def _check_present(headers: Sequence[pydicom.Dataset]) -> None:
    for keyword, length in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2)):
        missing = sum(len(numbers(header, keyword)) != length for header in headers)
        if missing:
            raise SeriesRefused(
                f"expected {keyword} with {length} numbers in every slice, and {missing} of {len(headers)} lack it",
                code="missing-geometry",
            )
    spacings = np.array([numbers(header, "PixelSpacing") for header in headers])
    if np.any(spacings <= 0):
        raise SeriesRefused("expected a pixel spacing above 0 mm", code="missing-geometry")
    if np.ptp(spacings, axis=0).max() > _SAME_PLACE_MM:
        raise SeriesRefused(
            f"expected one pixel spacing, got from {spacings.min():.4g} to {spacings.max():.4g} mm",
            code="mixed-spacing",
        )


def _check_frame_of_reference(headers: Sequence[pydicom.Dataset]) -> None:
    frames = {text(header, "FrameOfReferenceUID") for header in headers}
    if "" in frames:
        raise SeriesRefused(
            "expected a Frame of Reference UID in every slice, and some have none; without it a result can't be placed",
            code="missing-frame-of-reference",
        )
    if len(frames) > 1:
        raise SeriesRefused(
            f"expected one frame of reference, got {len(frames)}; positions of different ones can't be compared",
            code="mixed-frame-of-reference",
        )


def _orientation(headers: Sequence[pydicom.Dataset]) -> list[float]:
    """The one orientation that all slices have."""
    orientations = np.array([numbers(header, "ImageOrientationPatient") for header in headers])
    if np.abs(orientations - orientations[0]).max() > _ORIENTATION_TOLERANCE:
        raise SeriesRefused(
            "expected slices of one orientation, got several; is a localizer among them? send it as its own series",
            code="mixed-orientation",
        )
    row, column = orientations[0][:3], orientations[0][3:]
    lengths = np.linalg.norm([row, column], axis=1)
    if np.abs(lengths - 1).max() > _DIRECTION_TOLERANCE or abs(row @ column) > _DIRECTION_TOLERANCE:
        raise SeriesRefused(
            "expected an orientation of two unit vectors at a right angle, got other numbers", code="missing-geometry"
        )
    return [float(number) for number in orientations[0]]


def _strays(header: pydicom.Dataset, positions: Array, orientation: Sequence[float]) -> bool:
    """Whether a slice of a stack lies elsewhere than on the even grid between the first and the last."""
    distances = np.sort(positions @ np.asarray(get_normal_vector(orientation), dtype=np.float64))
    grid = np.linspace(distances[0], distances[-1], len(distances))
    along = np.abs(distances - grid).max() / (grid[1] - grid[0])
    return bool(along > _MOST_ALONG_SLICES) or _lie_aside(header, positions, orientation)


def _lie_aside(header: pydicom.Dataset, positions: Array, orientation: Sequence[float]) -> bool:
    """Whether slices do not lie above each other, to a part of a pixel."""
    row_spacing, column_spacing = numbers(header, "PixelSpacing")
    along_row, along_column = np.array(orientation[:3]), np.array(orientation[3:])
    aside = positions @ np.stack([along_row / column_spacing, along_column / row_spacing], axis=1)
    return bool(np.ptp(aside, axis=0).max() > _MOST_ASIDE_PIXELS)


def _refusal(headers: Sequence[pydicom.Dataset], positions: Array, orientation: Sequence[float]) -> SeriesRefused:
    """What is wrong with slices that make no volume, in words that help to find them."""
    normal = np.asarray(get_normal_vector(orientation), dtype=np.float64)
    distances = positions @ normal
    order = np.argsort(distances)
    gaps = np.diff(distances[order])
    if gaps.min() < _SAME_PLACE_MM:
        return _doubled_refusal([headers[index] for index in order], gaps)
    if _lie_aside(headers[0], positions, orientation):
        return _aside_refusal(positions[order], normal)
    return _spacing_refusal(distances[order] - distances.min(), gaps, positions, orientation)


def _aside_refusal(in_order: Array, normal: Array) -> SeriesRefused:
    """Slices beside each other: all by the same angle, or some of them alone."""
    steps = in_order - in_order[0]
    along = (steps @ normal)[:, None]
    aside = steps - along * normal
    shear, *_ = np.linalg.lstsq(along, aside)
    most = float(np.linalg.norm(aside, axis=1).max())
    if np.linalg.norm(aside - along * shear, axis=1).max() > most / 2:
        return SeriesRefused(
            f"expected slices stacked along their normal, got some that lie up to {most:.2f} mm beside the others; "
            "send the series as the scanner made it",
            code="uneven-spacing",
        )
    angle = float(np.degrees(np.arctan(np.linalg.norm(shear))))
    return SeriesRefused(
        f"expected slices stacked along their normal, got a stack tilted by {angle:.1f} degrees, so that slices lie up "
        f"to {most:.2f} mm beside their place; send a reconstruction without gantry tilt",
        code="gantry-tilt",
    )


def _doubled_refusal(in_order: Sequence[pydicom.Dataset], gaps: Array) -> SeriesRefused:
    starts = np.flatnonzero(gaps >= _SAME_PLACE_MM) + 1
    bounds = [0, *starts.tolist(), len(in_order)]
    places = [in_order[start:end] for start, end in itertools.pairwise(bounds)]
    telling = differences(places)
    what = f"they differ in {', '.join(telling)}" if telling else "nothing tells them apart"
    return SeriesRefused(
        f"expected one slice a position, got {len(in_order) - len(places)} more at positions already taken; {what}; "
        "several phases, echoes or b-values must be sent as series of their own",
        code="duplicate-position",
    )


def _spacing_refusal(distances: Array, gaps: Array, positions: Array, orientation: Sequence[float]) -> SeriesRefused:
    usual = float(np.median(gaps))
    spacing, _ = get_volume_positions(
        positions, orientation, allow_missing_positions=True, perpendicular_tol=_ANY_ANGLE
    )
    missing = np.rint(gaps / spacing).astype(int) - 1 if spacing is not None else np.zeros(len(gaps), dtype=int)
    if missing.any():
        places = [
            f"{count} between {distances[index]:.2f} and {distances[index + 1]:.2f} mm"
            for index, count in enumerate(missing)
            if count > 0
        ]
        more = f" and {len(places) - _MOST_GAPS_NAMED} more gaps" if len(places) > _MOST_GAPS_NAMED else ""
        return SeriesRefused(
            f"expected a slice every {spacing:.2f} mm; missing: {', '.join(places[:_MOST_GAPS_NAMED])}{more} "
            "(from the first slice, along the normal); send the whole series",
            code="slice-missing",
        )
    return SeriesRefused(
        f"expected evenly spaced slices, got gaps from {gaps.min():.2f} to {gaps.max():.2f} mm (median {usual:.2f} mm)",
        code="uneven-spacing",
    )
