"""Several images at one position: slices that are there twice, and series of several phases or echoes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pydicom

from operators.gate.attributes import floats, is_number, texts
from operators.series_checks import numbers, text

_CLOCK_KEYWORDS = ("AcquisitionTime", "ContentTime", "AcquisitionDateTime")
"""They tell when a patient was here, so their values are kept from messages."""
PHASE_KEYWORDS = (
    *("AcquisitionNumber", "TemporalPositionIdentifier", "TemporalPositionIndex", "EchoNumbers", "EchoTime"),
    *("EffectiveEchoTime", "FrameAcquisitionNumber", "TemporalPositionTimeOffset", "InversionTimes"),
    *("InversionTime", "FlipAngle", "DiffusionBValue", "TriggerTime", "NominalPercentageOfCardiacPhase"),
    *("NominalCardiacTriggerDelayTime", "ComplexImageComponent", "FrameType"),
    *("ContrastBolusAgentPhase", "KVP", "ConvolutionKernel", "ImageType", *_CLOCK_KEYWORDS),
)
"""What tells phases, echoes and reconstructions of one series apart, the plainest first."""
_SAME_PLACE_MM = 1e-3
_SAME_DIRECTION = 1e-4
_UNIT = 1e-2
_MOST_TAGS_NAMED = 4
_MOST_VALUES_NAMED = 6

Wanted = Mapping[str, str | float]
"""DICOM keywords, and the value that the attribute of each image that is taken must have."""


def taken(headers: Sequence[pydicom.Dataset], take: Wanted) -> list[int]:
    """Return the indices of the images that have all the values of `take`, numbers compared as numbers."""
    return [
        index
        for index, header in enumerate(headers)
        if all(_has(header, keyword, wanted) for keyword, wanted in take.items())
    ]


def doubled_places(headers: Sequence[pydicom.Dataset]) -> list[list[int]]:
    """Return the indices of the images at each place along the normal that has several; none if that can't be told."""
    positions = [numbers(header, "ImagePositionPatient") for header in headers]
    orientations = [numbers(header, "ImageOrientationPatient") for header in headers]
    if any(len(one) != 3 for one in positions) or any(len(one) != 6 for one in orientations):  # noqa: PLR2004
        return []
    if not headers or np.ptp(orientations, axis=0).max() > _SAME_DIRECTION:
        return []
    normal = np.cross(orientations[0][:3], orientations[0][3:])
    if abs(float(np.linalg.norm(normal)) - 1) > _UNIT:
        return []
    distances = np.array(positions) @ normal
    order = np.argsort(distances, kind="stable")
    starts = np.flatnonzero(np.diff(distances[order]) >= _SAME_PLACE_MM) + 1
    places = [[int(index) for index in place] for place in np.split(order, starts)]
    return [sorted(place) for place in places if len(place) > 1]


def repeated_slices(headers: Sequence[pydicom.Dataset], digest_of: Callable[[int], str]) -> list[int]:
    """Return the indices of slices that repeat another one: the same position, matrix and pixels.

    Of several that are the same, the one with the lowest SOP Instance UID is not returned, whatever the order in which
    they came. Once different images are found at one position, no more pixels are read: the series is several phases.

    Parameters
    ----------
    digest_of
        Returns the digest of the pixels of an image.
    """
    repeated: list[int] = []
    for place in doubled_places(headers):
        order = sorted(place, key=lambda index: text(headers[index], "SOPInstanceUID"))
        same = [index for index in order if _same_slice(headers[index], headers[order[0]])]
        if len(same) < len(order) or len({digest_of(index) for index in order}) > 1:
            return []
        repeated += order[1:]
    return repeated


def describe_phases(headers: Sequence[pydicom.Dataset], places: Sequence[Sequence[int]]) -> str:
    """Return which attributes tell the images at each of `places` apart, with their values where those are numbers."""
    told = [keyword for keyword in PHASE_KEYWORDS if _tells_apart(headers, places, keyword)]
    return named(headers, told)


def named(headers: Sequence[pydicom.Dataset], keywords: Sequence[str]) -> str:
    """Return the first of these keywords, with all their values in `headers` where those are numbers."""
    return ", ".join(f"{keyword}{_shown(headers, keyword)}" for keyword in keywords[:_MOST_TAGS_NAMED])


def _has(header: pydicom.Dataset, keyword: str, wanted: str | float) -> bool:
    if isinstance(wanted, str):
        return wanted.strip() in texts(header, keyword)
    return float(wanted) in floats(header, keyword)


def _same_slice(one: pydicom.Dataset, other: pydicom.Dataset) -> bool:
    places = [numbers(header, "ImagePositionPatient") for header in (one, other)]
    matrices = [(text(header, "Rows"), text(header, "Columns")) for header in (one, other)]
    return matrices[0] == matrices[1] and float(np.ptp(places, axis=0).max()) < _SAME_PLACE_MM


def _tells_apart(headers: Sequence[pydicom.Dataset], places: Sequence[Sequence[int]], keyword: str) -> bool:
    for place in places:
        values = [texts(headers[index], keyword) for index in place]
        if () in values or len(set(values)) < len(values):
            return False
    return bool(places)


def _shown(headers: Sequence[pydicom.Dataset], keyword: str) -> str:
    values = {value for header in headers for value in texts(header, keyword)}
    if keyword in _CLOCK_KEYWORDS or len(values) > _MOST_VALUES_NAMED or not all(map(is_number, values)):
        return ""
    return f" ({', '.join(sorted(values, key=float))})"
