"""What is encoded part by part is what pydicom writes of the whole, byte for byte."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest

from operators.label_maps import LabelMap
from operators.results.binary import write_binary
from operators.results.encoding import encode_file
from operators.results.finding import Finding
from operators.results.fractional import write_fractional
from operators.results.labelmap import write_labelmap
from operators.segments import SegmentSpec
from operators.series_volume import read_series
from tests.finding_phantom import KINDS, PHANTOM, planted_finding, planted_probabilities
from tests.multi_frame import write_concatenation, write_enhanced
from tests.phantom import Phantom
from tests.segmented_phantom import MANY_SEGMENTS, SEGMENTS, asymmetric_labels, many_labels, no_labels


def _is_as_pydicom_writes_it(path: Path) -> bool:
    """Whether pydicom, which reads every element and writes it, comes to the same bytes; and so does what it read."""
    again = path.with_suffix(".again")
    read = pydicom.dcmread(path)
    list(read.iterall())  # what is not looked at it copies as it was
    read.save_as(again, enforce_file_format=True)
    return path.read_bytes() == again.read_bytes() == encode_file(pydicom.dcmread(path))


def _are_as_pydicom_writes_them(finding: Finding, folder: Path) -> bool:
    written = (
        write_binary(finding, folder / "binary.dcm"),
        write_labelmap(finding, folder / "labelmap.dcm"),
        write_fractional(finding, planted_probabilities(finding), folder / "fractional.dcm"),
    )
    return all(_is_as_pydicom_writes_it(one.path) for one in written)


@pytest.mark.parametrize("kind", KINDS)
def test_segmentations_of_all_series(kind: str, tmp_path: Path) -> None:
    phantom, edit = KINDS[kind]
    assert _are_as_pydicom_writes_them(planted_finding(tmp_path / "source", phantom, edit=edit), tmp_path)


@pytest.mark.parametrize("write", [write_enhanced, write_concatenation])
def test_segmentations_that_refer_to_frames(write: Callable[[Phantom, Path], list[Path]], tmp_path: Path) -> None:
    series = read_series(write(PHANTOM, tmp_path))
    finding = replace(planted_finding(tmp_path / "other"), series=series)
    labels = series.volume.with_array(asymmetric_labels(series.volume.spatial_shape))
    assert _are_as_pydicom_writes_them(replace(finding, labels=labels), tmp_path)


def _only_the_first(shape: tuple[int, int, int]) -> LabelMap:
    labels = asymmetric_labels(shape)
    labels[labels != SEGMENTS[0].label_value] = 0
    return labels


@pytest.mark.parametrize(
    ("segments", "paint"),
    [(SEGMENTS[:1], _only_the_first), (MANY_SEGMENTS, many_labels), (SEGMENTS, no_labels)],
    ids=["one", "hundreds", "none-found"],
)
def test_segmentations_of_any_number_of_segments(
    segments: Sequence[SegmentSpec], paint: Callable[[tuple[int, int, int]], LabelMap], tmp_path: Path
) -> None:
    finding = planted_finding(tmp_path / "source", paint=paint, segments=segments)
    assert _are_as_pydicom_writes_them(finding, tmp_path)
