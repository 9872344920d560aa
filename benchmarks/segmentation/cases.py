"""What is written: a CT of the size that hospitals have, and label maps of organs on it, for both systems' taste."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.phantom import Phantom

_ANATOMY = {"CodeValue": "123037004", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Anatomical Structure"}
_ORGAN = {"CodeValue": "10200004", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Liver"}
_LIVER_RADII = (0.23, 0.18, 0.21)
"""Of the only segment, as shares of the volume's slices, rows and columns."""
_ORGAN_RADII = (0.04, 0.2), (0.03, 0.12), (0.03, 0.12)
"""Of one of several, from and to."""


@dataclass(frozen=True)
class Case:
    """A series and the label maps that are written on it."""

    phantom: Phantom
    segments: tuple[int, ...]
    """How many, of each label map."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        return self.phantom.slices, self.phantom.rows, self.phantom.columns


WHOLE = Case(Phantom(300, 512, 512, 0.8, 0.8, 1.5, origin=(-204.8, -204.8, -225.0)), (1, 5, 25))
QUICK = Case(Phantom(24, 96, 96, 4.0, 4.0, 8.0, origin=(-192.0, -192.0, -96.0)), (1, 5))


@dataclass(frozen=True)
class Inputs:
    """One label map as files: what itkimage2segimage reads, and the same for Limner."""

    series: Path
    """A folder."""
    image: Path
    """NRRD, not compressed."""
    array: Path
    """The same as NumPy has it, slice, row, column."""
    metainfo: Path
    """dcmqi's metainfo JSON, which is a model's segments.json too."""


def write_labels(case: Case, segments: int, series: Path, folder: Path) -> Inputs:
    """Paint `segments` organs and write them into `folder`; none is a single voxel: the least that can be written."""
    labels = _organs(case.shape, segments) if segments else _one_voxel(case.shape)
    inputs = Inputs(series, folder / f"{segments}.nrrd", folder / f"{segments}.npy", folder / f"{segments}.json")
    np.save(inputs.array, labels)
    _write_nrrd(case.phantom, labels, inputs.image)
    inputs.metainfo.write_text(json.dumps(_metainfo(max(segments, 1))))
    return inputs


def _one_voxel(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    labels = np.zeros(shape, np.uint8)
    labels[shape[0] // 2, shape[1] // 3, shape[2] // 4] = 1
    return labels


def _organs(shape: tuple[int, int, int], segments: int) -> NDArray[np.uint8]:
    """Ellipsoids, later ones over earlier ones, none of which disappears."""
    labels = np.zeros(shape, np.uint8)
    chance = np.random.default_rng(segments)
    places = np.ogrid[tuple(slice(size) for size in shape)]
    for number in range(1, segments + 1):
        centre = chance.uniform(0.25, 0.75, 3)
        radii = _LIVER_RADII if segments == 1 else [chance.uniform(*one) for one in _ORGAN_RADII]
        distance = sum(
            ((place / size - middle) / radius) ** 2
            for place, size, middle, radius in zip(places, shape, centre, radii, strict=True)
        )
        labels[distance < 1] = number
    missing = set(range(1, segments + 1)) - set(np.unique(labels).tolist())
    if missing:
        raise ValueError(f"organs cover each other: {sorted(missing)} can't be seen")
    return labels


def _write_nrrd(phantom: Phantom, labels: NDArray[np.uint8], path: Path) -> None:
    """As http://teem.sourceforge.net/nrrd/format.html has it, in patient coordinates (LPS)."""
    axes = " ".join("({})".format(",".join(f"{number:g}" for number in axis)) for axis in reversed(phantom.axes))
    header = {
        "type": "uint8",
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": " ".join(str(size) for size in reversed(labels.shape)),
        "space directions": axes,
        "space origin": "({})".format(",".join(f"{number:g}" for number in phantom.position(0))),
        "encoding": "raw",
    }
    lines = ["NRRD0004", *(f"{name}: {value}" for name, value in header.items()), "", ""]
    path.write_bytes("\n".join(lines).encode() + labels.tobytes())


def _metainfo(segments: int) -> dict[str, object]:
    return {
        "ContentCreatorName": "Benchmark",
        "SeriesDescription": "organs",
        "SeriesNumber": "300",
        "InstanceNumber": "1",
        "ClinicalTrialSeriesID": "1",
        "ClinicalTrialTimePointID": "1",
        "BodyPartExamined": "ABDOMEN",
        "segmentAttributes": [[_segment(number) for number in range(1, segments + 1)]],  # of one file
    }


def _segment(number: int) -> dict[str, object]:
    return {
        "labelID": number,
        "SegmentLabel": f"Organ {number}",
        "SegmentDescription": f"Organ {number}",
        "SegmentAlgorithmType": "AUTOMATIC",
        "SegmentAlgorithmName": "planted",
        "SegmentedPropertyCategoryCodeSequence": _ANATOMY,
        "SegmentedPropertyTypeCodeSequence": _ORGAN,
        "recommendedDisplayRGBValue": [10 * number, 80, 200 - 5 * number],
    }
