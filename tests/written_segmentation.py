"""A BINARY Segmentation from its parts, for tests that need no `Finding` of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import highdicom

from operators.results.binary import write_binary
from operators.results.finding import Algorithm, Finding, PromptingObject, WrittenObject
from operators.segments import SegmentSpec
from operators.series_volume import SeriesVolume


def write_segmentation(
    labels: highdicom.Volume,
    series: SeriesVolume,
    segments: Sequence[SegmentSpec],
    algorithm: Algorithm,
    *,
    identity: str,
    series_description: str,
    path: Path,
    is_automatic: bool = True,
    prompted_by: Sequence[PromptingObject] = (),
) -> WrittenObject:
    """Write `labels` as one Segmentation beside the series."""
    finding = Finding(labels, series, segments, algorithm, identity, series_description, is_automatic, prompted_by)
    return write_binary(finding, path)
