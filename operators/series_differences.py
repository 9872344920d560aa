"""What slices at one position differ in: the phase, the echo, the diffusion weighting, or what else makes several."""

from __future__ import annotations

from collections.abc import Sequence

import pydicom

from operators.series_checks import text

_TELLING = {
    "AcquisitionNumber": "acquisition",
    "FrameAcquisitionNumber": "acquisition",
    "TemporalPositionIdentifier": "temporal position",
    "TemporalPositionIndex": "temporal position",
    "TemporalPositionTimeOffset": "temporal position",
    "TriggerTime": "cardiac phase",
    "NominalCardiacTriggerDelayTime": "cardiac phase",
    "NominalPercentageOfCardiacPhase": "cardiac phase",
    "NominalRespiratoryTriggerDelayTime": "respiratory phase",
    "NominalPercentageOfRespiratoryPhase": "respiratory phase",
    "ContrastBolusAgent": "contrast agent",
    "EchoTime": "echo time",
    "EffectiveEchoTime": "echo time",
    "EchoNumbers": "echo",
    "InversionTime": "inversion time",
    "InversionTimes": "inversion time",
    "FlipAngle": "flip angle",
    "DiffusionBValue": "b-value",
    "DiffusionDirectionality": "diffusion directionality",
    "KVP": "tube voltage",
    "ConvolutionKernel": "convolution kernel",
    "StackID": "stack",
    "ImageType": "image type",
    "FrameType": "frame type",
    "ComplexImageComponent": "image component",
}
"""Attributes that tell images of one place apart (PS3.3 C.7.6.16.2.2, C.7.6.16.2.7, C.8.3.1, C.8.13.5), in words."""


def differences(groups: Sequence[Sequence[pydicom.Dataset]]) -> list[str]:
    """Return in words what differs within any of `groups` of slice headers; empty if nothing known does."""
    found: dict[str, None] = {}
    for keyword, words in _TELLING.items():
        if any(len({text(header, keyword) for header in group}) > 1 for group in groups):
            found[words] = None
    return list(found)
