"""Whether a series is an acquisition that its model is for, as far as the model's card states that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pydicom

from operators.gate.appearance import Finding
from operators.gate.attributes import items, texts
from operators.gate.body_parts import examined, regions_of
from operators.gate.intended_use import ANY_CONTRAST, NO_CONTRAST, IntendedUse
from operators.series_checks import numbers
from operators.series_geometry import UNSTATED_SPACING_MM

_PLANE_OF_NORMAL = ("sagittal", "coronal", "axial")
_TOWARDS = (("L", "R"), ("P", "A"), ("H", "F"))
"""Along x, y and z of the patient (PS3.3 C.7.6.2.1.1): for positive and for negative numbers."""
_WITHOUT_AGENT = ("NONE", "NO", "N", "NO CONTRAST", "WITHOUT", "WITHOUT CONTRAST", "NATIVE", "NON CONTRAST", "0")
"""What is entered as Contrast/Bolus Agent where none was given."""
_LONGEST_CODE_STRING = 16


def mismatches(headers: Sequence[pydicom.Dataset], spacing: float | None, intended: IntendedUse) -> Iterator[Finding]:
    """Yield what is found of one evenly spaced series that its model's card excludes.

    Parameters
    ----------
    headers
        One a slice, of one orientation, matrix and pixel spacing.
    spacing
        Between neighbouring slices along their normal, in mm; None of a slice alone that states none.
    """
    yield from _modality(headers, intended)
    yield from _body_part(headers, intended)
    yield from _contrast(headers, intended)
    yield from _orientation(numbers(headers[0], "ImageOrientationPatient"), intended)
    pixels = numbers(headers[0], "PixelSpacing")
    if spacing is None:
        yield (
            "slice-spacing-unknown",
            "the series is one slice, which states neither Spacing Between Slices nor Slice Thickness above 0; it is "
            f"taken for {UNSTATED_SPACING_MM:g} mm thick, so that volumes say nothing",
        )
    elif (bounds := intended.slice_spacing_mm) is not None and not bounds.hold(spacing):
        yield "wrong-slice-spacing", f"the model is for slices {bounds} mm apart, and these are {spacing:.4g} mm apart"
    if (bounds := intended.pixel_spacing_mm) is not None and not all(bounds.hold(one) for one in pixels):
        shown = " x ".join(f"{one:.4g}" for one in pixels)
        yield "wrong-pixel-spacing", f"the model is for a pixel spacing of {bounds} mm, and this series has {shown} mm"
    if (bounds := intended.slice_count) is not None and not bounds.hold(len(headers)):
        yield "wrong-slice-count", f"the model is for {bounds} slices, and this series has {len(headers)}"


def _modality(headers: Sequence[pydicom.Dataset], intended: IntendedUse) -> Iterator[Finding]:
    found = {value for header in headers for value in texts(header, "Modality")[:1]}
    if intended.modality and not found <= set(intended.modality):
        others = ", ".join(sorted(one[:_LONGEST_CODE_STRING] for one in found - set(intended.modality)))
        yield "wrong-modality", f"the model is for {' or '.join(intended.modality)}, and this series is {others}"


def _body_part(headers: Sequence[pydicom.Dataset], intended: IntendedUse) -> Iterator[Finding]:
    """A term that is not known, such as PARTIALBODY, says nothing; one that fits is enough."""
    wanted = frozenset[str]().union(*(regions_of(term) for term in intended.body_part))
    found = {term: regions for header in headers for term, regions in examined(header).items()}
    if wanted and found and not any(wanted & regions for regions in found.values()):
        parts = " or ".join(intended.body_part)
        yield "wrong-body-part", f"the model is for {parts}, and this series is said to show {', '.join(sorted(found))}"


def _contrast(headers: Sequence[pydicom.Dataset], intended: IntendedUse) -> Iterator[Finding]:
    if not intended.contrast:
        return
    phases = {phase for header in headers for phase in _phases(header)}
    was_given = _was_given(headers, phases)
    wants = intended.contrast
    if wants == (NO_CONTRAST,):
        if was_given:
            yield "wrong-contrast", "the model is for images without contrast agent, and one is stated"
    elif was_given is False and "PRE_CONTRAST" not in wants:
        yield "wrong-contrast", "the model is for images with contrast agent, and it is stated that none was given"
    elif wants != (ANY_CONTRAST,) and phases - set(wants):
        others = ", ".join(sorted(one[:_LONGEST_CODE_STRING] for one in phases - set(wants)))
        yield "wrong-contrast", f"the model is for the phase {' or '.join(wants)}, and this series is {others}"


def _phases(header: pydicom.Dataset) -> tuple[str, ...]:
    used = items(header, "ContrastBolusUsageSequence")
    return tuple(phase for one in (header, *used) for phase in texts(one, "ContrastBolusAgentPhase"))


def _was_given(headers: Sequence[pydicom.Dataset], phases: set[str]) -> bool | None:
    """Whether an agent was given; None if nothing is said: a missing attribute is no statement (PS3.3 C.7.6.4)."""
    agents = {agent.upper() for header in headers for agent in texts(header, "ContrastBolusAgent")}
    coded = any(items(header, "ContrastBolusAgentSequence") for header in headers)
    if coded or agents - set(_WITHOUT_AGENT) or phases - {"PRE_CONTRAST"}:
        return True
    return False if agents or phases else None


def _orientation(orientation: Sequence[float], intended: IntendedUse) -> Iterator[Finding]:
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    plane = _PLANE_OF_NORMAL[int(np.argmax(np.abs(np.cross(row, column))))]
    directions = tuple(_towards(one) for one in (row, column))
    if intended.orientation and plane not in intended.orientation:
        yield "wrong-orientation", f"the model is for {' or '.join(intended.orientation)} slices, and these are {plane}"
    elif intended.patient_orientation and directions != intended.patient_orientation:
        wanted, found = (" and ".join(one) for one in (intended.patient_orientation, directions))
        yield (
            "wrong-orientation",
            f"the model is for slices whose rows and columns run towards {wanted}, and these run towards {found}",
        )


def _towards(direction: np.ndarray[tuple[int], np.dtype[np.float64]]) -> str:
    axis = int(np.argmax(np.abs(direction)))
    return _TOWARDS[axis][int(direction[axis] < 0)]
