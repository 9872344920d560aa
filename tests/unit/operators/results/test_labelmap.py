"""The LABELMAP Segmentation lies where the labels lie, in 8 or 16 bits, and nothing found is a result too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.uid import UID

from operators.errors import OperatorError
from operators.results.labelmap import write_labelmap
from operators.results.segmentation import segment_numbers
from tests.finding_phantom import planted_finding
from tests.phantom import Phantom, variants
from tests.segmented_phantom import LIVER, MANY_SEGMENTS, SEGMENTS, many_labels, no_labels


@pytest.mark.parametrize("name", variants(Phantom()))
def test_labels_are_where_they_are_in_the_patient(name: str, tmp_path: Path) -> None:
    finding = planted_finding(tmp_path / "ct", variants(Phantom())[name])
    written = write_labelmap(finding, tmp_path / "seg.dcm")
    volume = highdicom.seg.segread(written.path).get_volume(combine_segments=True).match_geometry(finding.labels)
    assert np.array_equal(volume.array, segment_numbers(finding.labels.array, SEGMENTS))


def test_more_segments_than_a_byte_counts_take_two(tmp_path: Path) -> None:
    finding = planted_finding(tmp_path / "ct", paint=many_labels, segments=MANY_SEGMENTS)
    dataset = pydicom.dcmread(write_labelmap(finding, tmp_path / "seg.dcm").path)
    assert (dataset.BitsAllocated, dataset.pixel_array.max()) == (16, 299)
    assert (len(dataset.SegmentSequence), dataset.SegmentSequence[-2].SegmentNumber) == (301, 300)


def test_background_is_described_last_so_that_a_viewer_that_counts_items_finds_each_segment(tmp_path: Path) -> None:
    written = write_labelmap(planted_finding(tmp_path / "ct"), tmp_path / "seg.dcm")
    described = pydicom.dcmread(written.path).SegmentSequence
    assert [one.SegmentNumber for one in described] == [1, 2, 3, 0]
    assert [one.SegmentLabel for one in described] == [*(segment.label for segment in SEGMENTS), "Background"]


def test_nothing_found_is_a_whole_volume_of_nothing(tmp_path: Path) -> None:
    finding = planted_finding(tmp_path / "ct", paint=no_labels)
    dataset = pydicom.dcmread(write_labelmap(finding, tmp_path / "seg.dcm").path)
    assert dataset.pixel_array.shape == finding.labels.array.shape
    assert not dataset.pixel_array.any()


def test_its_class_is_its_own(tmp_path: Path) -> None:
    written = write_labelmap(planted_finding(tmp_path / "ct"), tmp_path / "seg.dcm")
    dataset = pydicom.dcmread(written.path)
    assert dataset.SOPClassUID == written.sop_class_uid == UID("1.2.840.10008.5.1.4.1.1.66.7")
    assert (dataset.SegmentationType, dataset.Modality, dataset.SegmentsOverlap) == ("LABELMAP", "SEG", "NO")


def test_what_lies_elsewhere_or_is_not_described_is_not_written(tmp_path: Path) -> None:
    finding = planted_finding(tmp_path / "ct")
    for wrong, code in (
        (replace(finding, labels=finding.labels.flip_spatial(0)), "labels-elsewhere"),
        (replace(finding, segments=[LIVER]), "label-undescribed"),
    ):
        with pytest.raises(OperatorError) as caught:
            write_labelmap(wrong, tmp_path / "seg.dcm")
        assert caught.value.code == code
    assert not (tmp_path / "seg.dcm").exists()
