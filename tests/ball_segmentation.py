"""Segmentations of the ball of `tests.web_fixture`, as a person or another program stores them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from operators.results.finding import Algorithm
from operators.segments import Code, SegmentSpec
from operators.series_volume import read_series
from tests.web_fixture import ball_mask
from tests.written_segmentation import write_segmentation

_ANATOMY = Code("123037004", "SCT", "Anatomical Structure")
_MASS = Code("4147007", "SCT", "Mass")


def ball_segmentation(files: Sequence[Path], place: int, algorithm_types: Sequence[str], folder: Path) -> Dataset:
    """A segment for each Segment Algorithm Type: upright strips of the ball on slice `place` of the volume.

    A segment of the type "" has no voxel, and is MANUAL.
    """
    series = read_series(files)
    labels = np.zeros(series.volume.spatial_shape, np.uint8)
    columns = np.flatnonzero(ball_mask(place).any(axis=0))
    for number, strip in enumerate(np.array_split(columns, len(algorithm_types)), start=1):
        if algorithm_types[number - 1]:
            labels[place][:, strip] = ball_mask(place)[:, strip] * number
    specs = [
        SegmentSpec(number, f"Strip {number}", _ANATOMY, _MASS, None, "planted", None)
        for number in range(1, len(algorithm_types) + 1)
    ]
    path = folder / f"segmentation-{'-'.join(algorithm_types)}.dcm"
    write_segmentation(
        series.volume.with_array(labels),
        series,
        specs,
        Algorithm("Pencil", "1", "00" * 32),
        identity="-".join(algorithm_types),
        series_description="strips",
        path=path,
    )
    dataset = pydicom.dcmread(path)
    for segment, algorithm_type in zip(dataset.SegmentSequence, algorithm_types, strict=True):
        segment.SegmentAlgorithmType = algorithm_type or "MANUAL"
    return dataset
