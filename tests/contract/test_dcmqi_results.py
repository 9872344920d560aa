"""dcmqi, another code base, reads back label maps, probabilities and measurements."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from operators.results.binary import write_binary
from operators.results.fractional import HIGHEST, write_fractional
from operators.results.labelmap import write_labelmap
from operators.results.report import write_report
from operators.results.segmentation import segment_numbers
from tests.finding_phantom import KINDS, planted_finding, planted_probabilities
from tests.judges import SegmentImage, dcmqi_fractions, dcmqi_labels, dcmqi_measurements, place
from tests.peers import require
from tests.segmented_phantom import MANY_SEGMENTS, SEGMENTS, many_labels


@pytest.fixture(autouse=True)
def _judge() -> None:
    require("segimage2itkimage", "tid1500reader")


@pytest.mark.parametrize("name", KINDS)
def test_a_labelmap_comes_back_where_it_was(name: str, tmp_path: Path) -> None:
    phantom, edit = KINDS[name]
    finding = planted_finding(tmp_path / "images", phantom, edit=edit)
    segments = dcmqi_labels(write_labelmap(finding, tmp_path / "seg.dcm").path, tmp_path / "dcmqi")
    back = place(segments, finding.labels.spatial_shape, finding.labels.affine)
    assert np.array_equal(back, segment_numbers(finding.labels.array, SEGMENTS))


def test_a_labelmap_of_more_labels_than_a_byte_counts_comes_back(tmp_path: Path) -> None:
    finding = planted_finding(tmp_path / "images", paint=many_labels, segments=MANY_SEGMENTS)
    segments = dcmqi_labels(write_labelmap(finding, tmp_path / "seg.dcm").path, tmp_path / "dcmqi")
    back = place(segments, finding.labels.spatial_shape, finding.labels.affine)
    assert np.array_equal(back, segment_numbers(finding.labels.array, MANY_SEGMENTS))


@pytest.mark.parametrize("name", KINDS)
def test_probabilities_come_back_where_they_were(name: str, tmp_path: Path) -> None:
    phantom, edit = KINDS[name]
    finding = planted_finding(tmp_path / "images", phantom, edit=edit)
    written = write_fractional(finding, planted_probabilities(finding), tmp_path / "seg.dcm")
    found = dcmqi_fractions(written.path, tmp_path / "dcmqi")
    grid = finding.labels
    for number, (_, expected) in enumerate(planted_probabilities(finding), start=1):
        stored, affine = found[number]
        values = np.zeros(grid.spatial_shape)
        for value in np.unique(stored[stored > 0]):  # laid onto the grid by their places in the patient, one by one
            image = SegmentImage(1, "", stored == value, affine)
            values[place({1: image}, grid.spatial_shape, grid.affine) == 1] = value
        assert np.abs(values / HIGHEST - expected.array).max() <= 0.5 / HIGHEST + 1e-6


@pytest.mark.parametrize("name", KINDS)
def test_measurements_come_back(name: str, tmp_path: Path) -> None:
    phantom, edit = KINDS[name]
    finding = planted_finding(tmp_path / "images", phantom, edit=edit)
    segmentation = write_binary(finding, tmp_path / "seg.dcm")
    report = write_report(finding, segmentation, tmp_path / "report.dcm")
    groups = dcmqi_measurements(report.path, tmp_path / "report.json")["Measurements"]
    voxel_ml = phantom.row_spacing * phantom.column_spacing * phantom.slice_spacing / 1000
    assert [group["Finding"]["CodeMeaning"] for group in groups] == ["Liver", "Kidney", "Spleen"]
    assert groups[1]["Laterality"]["CodeMeaning"] == "Left"
    for number, (group, segment) in enumerate(zip(groups[:2], SEGMENTS, strict=False), start=1):
        volume = group["measurementItems"][0]
        assert (volume["quantity"]["CodeMeaning"], volume["units"]["CodeValue"]) == ("Volume", "cm3")
        voxels = np.count_nonzero(finding.labels.array == segment.label_value)
        assert float(volume["value"]) == pytest.approx(voxels * voxel_ml, rel=0.001)
        assert group["ReferencedSegment"] == number
        assert group["segmentationSOPInstanceUID"] == segmentation.sop_instance_uid
        assert group["SourceSeriesForImageSegmentation"] == finding.source.SeriesInstanceUID
        assert group["TrackingUniqueIdentifier"] == finding.tracking(number)[1]
    presence = [
        one["conceptValue"]["CodeMeaning"]
        for group in groups
        for one in group["qualitativeEvaluations"]
        if one["conceptCode"]["CodeMeaning"] == "Presence of property"
    ]
    assert presence == ["Present", "Present", "Absent"]
