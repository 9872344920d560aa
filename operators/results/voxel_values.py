"""Volume of each segment, and mean and standard deviation of the source's values in it: exact from the label map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from operators.label_maps import MOST_LABELS, label_counts, voxel_millilitres
from operators.results.finding import Finding

Floats = NDArray[np.float64]

_CONCEPTS = {
    "CT": (codes.DCM.AttenuationCoefficient, codes.UCUM.HounsfieldUnit),
    "MR": (codes.DCM.MRSignalIntensity, codes.UCUM.NoUnits),
    "PT": (codes.DCM.NuclearMedicineTomographicActivity, Code("Bq/ml", "UCUM", "Becquerels/milliliter")),
}


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
    """Return what the rescaled values of a series are, and their UCUM unit; None if its header does not say."""
    modality, said = str(source.get("Modality", "")), str(source.get("RescaleType", "") or "")
    if modality == "CT" and said not in ("", "HU"):
        return None
    if modality == "PT" and source.get("Units") != "BQML":
        return None
    return _CONCEPTS.get(modality)


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
