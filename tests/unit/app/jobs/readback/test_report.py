"""A report whose volumes, codes, tracking or references are not what was computed is caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from app.errors import VerificationFailed
from app.jobs.readback.report import check_report
from operators.results.binary import write_binary
from operators.results.finding import Finding, PromptingObject
from operators.results.labelmap import write_labelmap
from operators.results.report import write_report
from tests.finding_phantom import KINDS, TUMOUR, computed, planted_finding, record_of
from tests.segmented_phantom import LIVER, MANY_SEGMENTS, many_labels, no_labels

Change = Callable[[Dataset], None]


def _check(finding: Finding, folder: Path, change: Change = lambda dataset: None) -> None:
    segmentation = write_binary(finding, folder / "seg.dcm")
    report = pydicom.dcmread(write_report(finding, segmentation, folder / "report.dcm", notes=["a note"]).path)
    change(report)
    check_report(
        report,
        computed(finding),
        record_of(finding, segmentation),
        segmentation=pydicom.dcmread(segmentation.path),
        sources=finding.series.datasets,
        prompted_by=[one.sop_instance_uid for one in finding.prompted_by],
    )


@pytest.mark.parametrize("name", KINDS)
def test_what_was_written_is_right(name: str, tmp_path: Path) -> None:
    phantom, edit = KINDS[name]
    _check(planted_finding(tmp_path / "ct", phantom, edit=edit), tmp_path)


def test_nothing_found_many_found_and_prompted_are_right(tmp_path: Path) -> None:
    _check(planted_finding(tmp_path / "1", paint=no_labels), tmp_path)
    _check(planted_finding(tmp_path / "2", segments=[LIVER, replace(TUMOUR, label_value=5)]), tmp_path)
    prompted = replace(planted_finding(tmp_path / "3"), prompted_by=[PromptingObject("2.25.1", "2.25.11")])
    _check(prompted, tmp_path)


def test_it_may_refer_to_a_labelmap_or_to_nothing(tmp_path: Path) -> None:
    finding = planted_finding(tmp_path / "ct", paint=many_labels, segments=MANY_SEGMENTS)
    labelmap = write_labelmap(finding, tmp_path / "seg.dcm")
    labels, record, sources = computed(finding), record_of(finding, labelmap), finding.series.datasets
    report = pydicom.dcmread(write_report(finding, labelmap, tmp_path / "1.dcm").path)
    check_report(report, labels, record, segmentation=pydicom.dcmread(labelmap.path), sources=sources)
    alone = pydicom.dcmread(write_report(finding, None, tmp_path / "2.dcm").path)
    check_report(alone, labels, record, segmentation=None, sources=sources)


def _groups(report: Dataset) -> list[Dataset]:
    (measurements,) = (
        one for one in report.ContentSequence if one.ConceptNameCodeSequence[0].CodeMeaning == "Imaging Measurements"
    )
    return list(measurements.ContentSequence)


def _item(report: Dataset, group: int, name: str) -> Dataset:
    found: Dataset = next(
        one for one in _groups(report)[group].ContentSequence if one.ConceptNameCodeSequence[0].CodeMeaning == name
    )
    return found


def _remove(report: Dataset, group: int, name: str) -> None:
    content = _groups(report)[group].ContentSequence
    content.remove(_item(report, group, name))


def _volume(factor: float) -> Change:
    def change(report: Dataset) -> None:
        (measured,) = _item(report, 0, "Volume").MeasuredValueSequence
        measured.NumericValue = f"{float(measured.NumericValue) * factor:.6g}"

    return change


def _other_unit(report: Dataset) -> None:
    _item(report, 0, "Volume").MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue = "mm3"


def _other_finding(report: Dataset) -> None:
    _item(report, 0, "Finding").ConceptCodeSequence[0].CodeValue = "78961009"


def _other_category(report: Dataset) -> None:
    _item(report, 0, "Finding category").ConceptCodeSequence[0].CodeValue = "49755003"


def _other_side(report: Dataset) -> None:
    _item(report, 1, "Finding Site").ContentSequence[0].ConceptCodeSequence[0].CodeValue = "24028007"


def _no_side(report: Dataset) -> None:
    del _item(report, 1, "Finding Site").ContentSequence


def _other_tracking(report: Dataset) -> None:
    _item(report, 1, "Tracking Unique Identifier").UID = "2.25.99"


def _absent(report: Dataset) -> None:
    _item(report, 0, "Presence of property").ConceptCodeSequence[0].CodeValue = "272519000"


def _present(report: Dataset) -> None:
    _item(report, 2, "Presence of property").ConceptCodeSequence[0].CodeValue = "52101004"


def _other_segment(report: Dataset) -> None:
    _item(report, 0, "Referenced Segment").ReferencedSOPSequence[0].ReferencedSegmentNumber = 2


def _other_segmentation(report: Dataset) -> None:
    _item(report, 0, "Referenced Segment").ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "2.25.98"


def _other_series(report: Dataset) -> None:
    _item(report, 1, "Source Series for Segmentation").UID = "2.25.97"


def _no_reference(report: Dataset) -> None:
    _remove(report, 1, "Referenced Segment")


def _no_volume(report: Dataset) -> None:
    _remove(report, 1, "Volume")


def _other_weights(report: Dataset) -> None:
    _item(report, 2, "Algorithm Parameters").TextValue = "weights_sha256=" + "f" * 64


def _other_version(report: Dataset) -> None:
    _item(report, 2, "Algorithm Version").TextValue = "9"


def _verified(report: Dataset) -> None:
    report.VerificationFlag = "VERIFIED"


def _swapped(report: Dataset) -> None:
    measurements = next(one for one in report.ContentSequence if one.ValueType == "CONTAINER")
    first, second, third = measurements.ContentSequence
    measurements.ContentSequence = [second, first, third]


def _fewer(report: Dataset) -> None:
    measurements = next(one for one in report.ContentSequence if one.ValueType == "CONTAINER")
    del measurements.ContentSequence[2]


def _less_evidence(report: Dataset) -> None:
    del report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_volume(1.002), "volume of segment 1 is not"),
        (_volume(0.998), "volume of segment 1 is not"),
        (_volume(1000), "volume of segment 1 is not"),
        (_other_unit, "another unit"),
        (_no_volume, "measured not exactly where"),
        (_other_finding, "finding 1 is not"),
        (_other_category, "category of segment 1"),
        (_other_side, "side of segment 2"),
        (_no_side, "side of segment 2"),
        (_other_tracking, "segment 2 is tracked otherwise"),
        (_absent, "says of segment 1"),
        (_present, "says of segment 3"),
        (_other_segment, "segment 1 does not refer to itself"),
        (_other_segmentation, "segment 1 does not refer to itself"),
        (_no_reference, "segment 2 does not refer to itself"),
        (_other_series, "segment 2 does not refer to its source series"),
        (_other_weights, "other weights"),
        (_other_version, "another version"),
        (_verified, "complete and unverified"),
        (_swapped, "finding 1 is not"),
        (_fewer, "another number of groups"),
        (_less_evidence, "evidence"),
    ],
)
def test_what_is_not_so_is_refused(change: Change, said: str, tmp_path: Path) -> None:
    with pytest.raises(VerificationFailed, match=said):
        _check(planted_finding(tmp_path / "ct"), tmp_path, change)


def test_within_a_tenth_of_a_percent_a_volume_is_right(tmp_path: Path) -> None:
    _check(planted_finding(tmp_path / "ct"), tmp_path, _volume(1.0009))


def test_another_label_map_is_refused(tmp_path: Path) -> None:
    finding = planted_finding(tmp_path / "ct")
    segmentation = write_binary(finding, tmp_path / "seg.dcm")
    report = pydicom.dcmread(write_report(finding, segmentation, tmp_path / "report.dcm").path)
    labels = computed(finding)
    grown = labels.array.copy()
    grown[tuple(np.argwhere(grown == 0)[0])] = 1
    with pytest.raises(VerificationFailed, match="volume of segment 1"):
        check_report(
            report,
            replace(labels, array=grown),
            record_of(finding, segmentation),
            segmentation=pydicom.dcmread(segmentation.path),
            sources=finding.series.datasets,
        )
