"""Several images whose slices lie between each other: echoes, kernels or phases that make one even stack together.

Images at the same places are found by where they lie (`operators.gate.phases`). Those at places of their own look like
one stack, and only what their headers say of how they were made tells them apart. Acquisition Number alone does not: a
CT scanned in pieces has several, one beside the other. What one slice says and another does not is no difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pydicom

from operators.gate.appearance import Finding
from operators.gate.attributes import floats, texts
from operators.gate.phases import named
from operators.series_checks import numbers

_AS_NUMBERS = ("EchoTime", "EffectiveEchoTime", "InversionTime", "FlipAngle", "DiffusionBValue", "KVP")
_AS_TEXT = ("EchoNumbers", "ComplexImageComponent", "ConvolutionKernel")
_FROM_THE_THIRD = ("ImageType", "FrameType")
"""The first two values say whether pixels were derived, which compression alone can change (PS3.3 C.7.6.1.1.2)."""
_ROUNDING = 0.02
"""Of the largest number: scanners state what they measured, slice by slice."""
_RUNS = 3
"""As many stretches of one acquisition, with others between, are no pieces of one scan."""
_REMEDY = "let the pipeline's gate take one, or send each as a series of its own"


def mixed_acquisitions(headers: Sequence[pydicom.Dataset]) -> Iterator[Finding]:
    """Yield what is found in the headers of one stack of slices, of one orientation."""
    differing = [keyword for keyword in _AS_NUMBERS if _numbers_differ(headers, keyword)]
    differing += [keyword for keyword in _AS_TEXT if _texts_differ(headers, keyword, 0)]
    differing += [keyword for keyword in _FROM_THE_THIRD if _texts_differ(headers, keyword, 2)]
    if differing:
        yield (
            "mixed-acquisition",
            f"the slices are of several images, which differ in {named(headers, differing)}; {_REMEDY}",
        )
    elif _are_interleaved(headers):
        yield (
            "mixed-acquisition",
            f"the slices of several acquisitions lie between each other ({named(headers, ['AcquisitionNumber'])}); "
            f"{_REMEDY}",
        )


def _numbers_differ(headers: Sequence[pydicom.Dataset], keyword: str) -> bool:
    found = [value for header in headers for value in floats(header, keyword)[:1]]
    return bool(found) and max(found) - min(found) > _ROUNDING * max(map(abs, found))


def _texts_differ(headers: Sequence[pydicom.Dataset], keyword: str, start: int) -> bool:
    return len({values for header in headers if (values := texts(header, keyword)[start:])}) > 1


def _are_interleaved(headers: Sequence[pydicom.Dataset]) -> bool:
    """Whether a CT's acquisitions alternate along the normal. An MR's may: its slices are excited in turns."""
    acquisitions = [texts(header, "AcquisitionNumber") for header in headers]
    if () in acquisitions or any("CT" not in texts(header, "Modality") for header in headers):
        return False
    orientation = numbers(headers[0], "ImageOrientationPatient")
    normal = np.cross(orientation[:3], orientation[3:])
    distances = [float(np.dot(numbers(header, "ImagePositionPatient"), normal)) for header in headers]
    in_order = [acquisitions[index] for index in np.argsort(distances)]
    starts = [one for one, before in zip(in_order, [(), *in_order], strict=False) if one != before]
    return sum(starts.count(one) >= _RUNS for one in set(starts)) > 1
