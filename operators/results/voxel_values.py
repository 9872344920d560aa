"""Volume of each segment, and mean and standard deviation of the source's values in it: exact from the label map."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from operators.label_maps import MOST_LABELS, label_counts, voxel_millilitres
from operators.pixels import rescale
from operators.results.finding import Finding

Floats = NDArray[np.float64]

_CONCEPTS = {
    "CT": (codes.DCM.AttenuationCoefficient, codes.UCUM.HounsfieldUnit),
    "MR": (codes.DCM.MRSignalIntensity, codes.UCUM.NoUnits),
    "PT": (codes.DCM.NuclearMedicineTomographicActivity, Code("Bq/ml", "UCUM", "Becquerels/milliliter")),
}
_SAME_SCALE = 1e-6
"""Relative difference of factors of which one is stored as text."""


@dataclass(frozen=True)
class SegmentValues:
    """What is measured of one segment that was found."""

    volume_ml: float
    mean: float
    """Of the first channel's rescaled values at the segment's voxels."""
    standard_deviation: float
    """Of the voxels as a population."""


def measure_segments(finding: Finding) -> dict[int, SegmentValues]:
    """Return the values of each segment that was found, by segment number."""
    counts = label_counts(finding.labels.array)
    voxel_ml = voxel_millilitres(finding.labels)
    means, deviations = _moments(finding, counts)
    return {
        number: SegmentValues(
            volume_ml=float(counts[segment.label_value]) * voxel_ml,
            mean=float(means[segment.label_value]),
            standard_deviation=float(deviations[segment.label_value]),
        )
        for number, segment in enumerate(finding.segments, start=1)
        if counts[segment.label_value]
    }


def value_concept(source: pydicom.Dataset) -> tuple[Code, Code] | None:
    """Return what the rescaled values of a series are, and their UCUM unit; None if its header does not say.

    Parameters
    ----------
    source
        The header of a slice (`SeriesVolume.datasets`).
    """
    modality = str(source.get("Modality", ""))
    is_known = _KNOWN.get(modality)
    return _CONCEPTS[modality] if is_known is not None and is_known(source) else None


def _is_hounsfield(source: pydicom.Dataset) -> bool:
    return str(source.get("RescaleType", "") or "") in ("", "HU")


def _is_intensity(source: pydicom.Dataset) -> bool:
    """Enhanced MR frames may as well be phases, or real or imaginary parts (PS3.3 C.8.13.3.1.1)."""
    return str(source.get("ComplexImageComponent", "") or "") in ("", "MAGNITUDE")


def _is_activity(source: pydicom.Dataset) -> bool:
    """A PET image has Units (PS3.3 C.8.9.1); a frame of an enhanced one maps to a unit (C.7.6.16.2.11)."""
    if "Units" in source:
        return bool(source.Units == "BQML")
    units = source.get("MeasurementUnitsCodeSequence") or []
    mapped = [source.get(keyword) for keyword in ("RealWorldValueSlope", "RealWorldValueIntercept")]
    scale = rescale(source)
    if scale is None or len(units) != 1 or None in mapped:
        return False
    is_same = bool(np.allclose(mapped, scale, rtol=_SAME_SCALE, atol=0))
    return is_same and units[0].get("CodeValue") == _CONCEPTS["PT"][1].value


_KNOWN: Mapping[str, Callable[[pydicom.Dataset], bool]] = {
    "CT": _is_hounsfield,
    "MR": _is_intensity,
    "PT": _is_activity,
}


def _moments(finding: Finding, counts: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Mean and standard deviation by label value, slice by slice and in two passes: squares of sums lose digits."""
    divisors = np.maximum(counts, 1)
    planes = list(zip(finding.labels.array, finding.series.volume.array, strict=True))
    sums = np.zeros(MOST_LABELS + 1)
    for labels, values in planes:
        found = np.bincount(labels.reshape(-1), weights=values.reshape(-1))
        sums[: len(found)] += found
    means = sums / divisors
    squares = np.zeros(MOST_LABELS + 1)
    for labels, values in planes:
        found = np.bincount(labels.reshape(-1), weights=((values - means[labels]) ** 2).reshape(-1))
        squares[: len(found)] += found
    return means, np.sqrt(squares / divisors)
