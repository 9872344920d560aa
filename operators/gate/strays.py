"""Images that got into a series without being slices of it: localizers and secondary captures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pydicom

from operators.errors import SeriesRefused
from operators.gate.attributes import texts
from operators.series_checks import numbers, text
from operators.series_geometry import find_geometry

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
"""The SOP class, and with a further number its multi-frame ones (PS3.4 B.5)."""
_LOCALIZER = "LOCALIZER"
_SAME_DIRECTION = 1e-3
_RIGHT_ANGLE = 0.05
"""Cosine of the angle of two normals, at most, that counts as a right angle: 3 degrees."""
_IN_ROW_MM = 0.1
_MOST_OF_ONE_ORIENTATION = 3
"""More images of one orientation and matrix are a stack, and no localizer's."""


def secondary_captures(headers: Sequence[pydicom.Dataset]) -> list[int]:
    """Return the indices of secondary captures; none where there is nothing else."""
    found = [index for index, header in enumerate(headers) if _is_secondary_capture(header)]
    return found if len(found) < len(headers) else []


def localizers(headers: Sequence[pydicom.Dataset]) -> list[int]:
    """Return the indices of localizers.

    An image is one if the third value or a later one of Image Type says so (PS3.3 C.8.2.1.1.1). Where it does not, an
    image is one that lies outside of the stack which more than half of the images make (orientation and matrix), with
    at most 2 others alike, and either has another Image Type than the whole stack or is alone and at a right angle to
    it. And only if what is left is a whole stack, and the image does not lie in its row: a slice whose orientation is
    wrong must not pass as a localizer.
    """
    named = {index for index, header in enumerate(headers) if _is_named(header)}
    others = [index for index in range(len(headers)) if index not in named]
    groups = _groups(headers, others)
    stack = max(groups, key=lambda group: len(group.indices), default=None)
    if stack is None or 2 * len(stack.indices) <= len(others):
        return sorted(named)
    outside = {index for group in groups if _is_beside(group, stack, headers) for index in group.indices}
    rest = [headers[index] for index in others if index not in outside]
    if outside and _is_stack(rest) and not any(_is_in_row(headers[index], rest[0]) for index in outside):
        return sorted(named | outside)
    return sorted(named)


def _is_beside(group: _Group, stack: _Group, headers: Sequence[pydicom.Dataset]) -> bool:
    """Whether a group of images is of a localizer that does not say so."""
    if group is stack or len(group.indices) > _MOST_OF_ONE_ORIENTATION:
        return False
    if len(group.indices) == 1 and _at_right_angle(group, stack):
        return True
    types = {texts(headers[index], "ImageType") for index in stack.indices}
    return all(texts(headers[index], "ImageType") not in types for index in group.indices)


def _is_stack(headers: Sequence[pydicom.Dataset]) -> bool:
    """Whether nothing is wrong with where the slices lie; several phases are still to be told apart."""
    try:
        find_geometry(headers)
    except SeriesRefused as error:
        return error.code == "duplicate-position"
    return True


def _is_in_row(header: pydicom.Dataset, first: pydicom.Dataset) -> bool:
    """Whether an image begins where a slice of the stack of `first` would begin."""
    position, orientation = numbers(header, "ImagePositionPatient"), numbers(first, "ImageOrientationPatient")
    if len(position) != 3:  # noqa: PLR2004 - x, y, z
        return False
    step = np.subtract(position, numbers(first, "ImagePositionPatient"))
    return max(abs(float(step @ orientation[:3])), abs(float(step @ orientation[3:]))) < _IN_ROW_MM


@dataclass(frozen=True)
class _Group:
    """Images of one orientation and matrix."""

    orientation: tuple[float, ...]
    matrix: tuple[str, str]
    indices: list[int]


def _groups(headers: Sequence[pydicom.Dataset], indices: Sequence[int]) -> list[_Group]:
    groups: list[_Group] = []
    for index in indices:
        orientation = tuple(numbers(headers[index], "ImageOrientationPatient"))
        matrix = (text(headers[index], "Rows"), text(headers[index], "Columns"))
        group = next((one for one in groups if one.matrix == matrix and _alike(one.orientation, orientation)), None)
        if group is None:
            groups.append(_Group(orientation, matrix, [index]))
        else:
            group.indices.append(index)
    return groups


def _alike(one: Sequence[float], other: Sequence[float]) -> bool:
    return len(one) == len(other) and bool(np.allclose(one, other, rtol=0, atol=_SAME_DIRECTION))


def _at_right_angle(group: _Group, stack: _Group) -> bool:
    if not len(group.orientation) == len(stack.orientation) == 6:  # noqa: PLR2004 - two direction cosines
        return False
    one, other = (np.cross(each[:3], each[3:]) for each in (group.orientation, stack.orientation))
    return bool(np.any(one)) and abs(float(one @ other)) < _RIGHT_ANGLE


def _is_named(header: pydicom.Dataset) -> bool:
    return _LOCALIZER in [value.upper() for value in texts(header, "ImageType")[2:]]


def _is_secondary_capture(header: pydicom.Dataset) -> bool:
    sop_class = text(header, "SOPClassUID")
    return sop_class == _SECONDARY_CAPTURE or sop_class.startswith(f"{_SECONDARY_CAPTURE}.")
