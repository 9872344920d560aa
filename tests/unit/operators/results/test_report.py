"""The report says what was measured of each segment, which were not found, by whom, and whose it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from highdicom.sr import VolumetricROIMeasurementsAndQualitativeEvaluations as Volumetric
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedPETImageStorage,
    PositronEmissionTomographyImageStorage,
)

from operators.errors import OperatorError
from operators.results.binary import write_binary
from operators.results.finding import Finding, PromptingObject, device_uid
from operators.results.labelmap import write_labelmap
from operators.results.report import write_report
from operators.results.voxel_values import value_concept
from operators.series_volume import read_series
from tests import multi_frame
from tests.finding_phantom import JAPANESE, PHANTOM, TUMOUR, WITHOUT_TYPE_2, as_mr, planted_finding
from tests.phantom import OBLIQUE, Edit, Phantom, setting
from tests.segmented_phantom import LIVER, MANY_SEGMENTS, SEGMENTS, many_labels, no_labels


def _mapping(unit: str, slope: float | None = None) -> dict[str, object]:
    """A real world value mapping (PS3.3 C.7.6.16.2.11), by default with the phantom's rescale."""
    rescaled = PHANTOM.dataset(0)
    return {
        "RealWorldValueSlope": float(rescaled.RescaleSlope) if slope is None else slope,
        "RealWorldValueIntercept": float(rescaled.RescaleIntercept),
        "MeasurementUnitsCodeSequence": multi_frame.code(unit, "UCUM", unit),
    }


@pytest.mark.parametrize(
    ("sop_class", "groups", "unit"),
    [
        (EnhancedCTImageStorage, {}, "[hnsf'U]"),
        (EnhancedCTImageStorage, {"PixelValueTransformationSequence": {"RescaleType": "US"}}, None),
        (EnhancedMRImageStorage, {}, "1"),
        (EnhancedMRImageStorage, {"MRImageFrameTypeSequence": {"ComplexImageComponent": "PHASE"}}, None),
        (EnhancedPETImageStorage, {}, None),
        (EnhancedPETImageStorage, {"RealWorldValueMappingSequence": _mapping("Bq/ml")}, "Bq/ml"),
        (EnhancedPETImageStorage, {"RealWorldValueMappingSequence": _mapping("Bq/ml", slope=7.0)}, None),
        (EnhancedPETImageStorage, {"RealWorldValueMappingSequence": _mapping("g/ml")}, None),
    ],
)
def test_units_of_frames(
    sop_class: UID, groups: dict[str, dict[str, object]], unit: str | None, tmp_path: Path
) -> None:
    def edit(dataset: Dataset) -> None:
        (shared,) = dataset.SharedFunctionalGroupsSequence
        for frame in dataset.PerFrameFunctionalGroupsSequence:
            for macro, attributes in groups.items():
                holder = shared if macro in shared else frame
                if macro not in holder:
                    setattr(holder, macro, [Dataset()])
                for keyword, value in attributes.items():
                    setattr(holder[macro][0], keyword, value)

    series = read_series(multi_frame.write_enhanced(PHANTOM, tmp_path, sop_class=sop_class, edit=edit))
    found = value_concept(series.datasets[0])
    assert (None if found is None else found[1].value) == unit


def _written(finding: Finding, folder: Path, notes: tuple[str, ...] = ()) -> Dataset:
    segmentation = write_binary(finding, folder / "seg.dcm")
    return pydicom.dcmread(write_report(finding, segmentation, folder / "report.dcm", notes=notes).path)


def _groups(dataset: Dataset) -> list[Volumetric]:
    """As highdicom reads them: of the segments that were found."""
    content = highdicom.sr.Comprehensive3DSR.from_dataset(dataset).content
    groups: list[Volumetric] = content.get_volumetric_roi_measurement_groups()
    return groups


def _children(item: Dataset, name: str) -> list[Dataset]:
    return [one for one in item.ContentSequence if one.ConceptNameCodeSequence[0].CodeMeaning == name]


def _all_groups(dataset: Dataset) -> list[Dataset]:
    return _children(_children(dataset, "Imaging Measurements")[0], "Measurement Group")


def _evaluations(dataset: Dataset) -> list[tuple[str, str]]:
    (container,) = _children(dataset, "Qualitative Evaluations")
    return [
        (
            item.ConceptNameCodeSequence[0].CodeMeaning,
            item.TextValue if item.ValueType == "TEXT" else item.ConceptCodeSequence[0].CodeMeaning,
        )
        for item in container.ContentSequence
    ]


@pytest.mark.parametrize(
    "phantom",
    [
        PHANTOM,
        replace(PHANTOM, orientation=OBLIQUE, against_normal=True),
        Phantom(slices=9, row_spacing=0.31, column_spacing=0.17, slice_spacing=0.625),
    ],
)
def test_volumes_and_values_are_those_of_the_voxels(phantom: Phantom, tmp_path: Path) -> None:
    finding = planted_finding(tmp_path / "ct", phantom)
    voxel = phantom.row_spacing * phantom.column_spacing * phantom.slice_spacing / 1000
    groups = _groups(_written(finding, tmp_path))
    assert len(groups) == 2  # the spleen was not found
    for group, segment in zip(groups, SEGMENTS, strict=False):
        inside = finding.labels.array == segment.label_value
        values = finding.series.volume.array[inside].astype(np.float64)
        volume, mean, deviation = group.get_measurements()
        assert (volume.name, volume.unit) == (codes.SCT.Volume, codes.UCUM.CubicCentimeter)
        assert volume.value == pytest.approx(np.count_nonzero(inside) * voxel, rel=1e-5)
        assert {mean.name, deviation.name} == {codes.DCM.AttenuationCoefficient}
        assert (mean.unit, deviation.unit) == (codes.UCUM.HounsfieldUnit, codes.UCUM.HounsfieldUnit)
        assert (mean.derivation, deviation.derivation) == (codes.SCT.Mean, codes.SCT.StandardDeviation)
        assert mean.value == pytest.approx(values.mean(), rel=1e-5)
        assert deviation.value == pytest.approx(values.std(), rel=1e-5)


def test_a_group_tells_what_it_is_and_refers_to_its_segment(tmp_path: Path) -> None:
    finding = planted_finding(tmp_path / "ct")
    dataset = _written(finding, tmp_path)
    segmentation = pydicom.dcmread(tmp_path / "seg.dcm")
    for number, group in enumerate(_groups(dataset), start=1):
        described = segmentation.SegmentSequence[number - 1]
        assert (group.tracking_identifier, group.tracking_uid) == (described.TrackingID, described.TrackingUID)
        assert group.finding_category == finding.segments[number - 1].category.concept()
        assert group.finding_type == finding.segments[number - 1].type.concept()
        reference, source = group.referenced_segment
        assert reference.referenced_sop_instance_uid == segmentation.SOPInstanceUID
        assert reference.referenced_segment_numbers == [number]
        assert source.value == finding.source.SeriesInstanceUID
    kidney = _groups(dataset)[1].finding_sites[0]
    assert (kidney.value, kidney.laterality) == (SEGMENTS[1].type.concept(), codes.SCT.Left)


def test_what_was_looked_for_in_vain_is_said_to_be_absent(tmp_path: Path) -> None:
    groups = _all_groups(_written(planted_finding(tmp_path / "ct"), tmp_path))
    said = [
        (
            _children(group, "Finding")[0].ConceptCodeSequence[0].CodeMeaning,
            _children(group, "Presence of property")[0].ConceptCodeSequence[0].CodeMeaning,
            len(_children(group, "Volume")),
        )
        for group in groups
    ]
    assert said == [("Liver", "Present", 1), ("Kidney", "Present", 1), ("Spleen", "Absent", 0)]


def test_nothing_found_is_told_in_one_code(tmp_path: Path) -> None:
    summary = "CAD Processing and Findings Summary"
    nothing = _written(planted_finding(tmp_path / "ct", paint=no_labels), tmp_path)
    assert _evaluations(nothing) == [(summary, "All algorithms succeeded; without findings")]
    something = _written(planted_finding(tmp_path / "ct"), tmp_path)
    assert _evaluations(something) == [(summary, "All algorithms succeeded; with findings")]


def test_a_finding_that_is_no_anatomical_structure_has_its_side(tmp_path: Path) -> None:
    segments = [LIVER, replace(TUMOUR, label_value=5)]
    finding = planted_finding(tmp_path / "ct", segments=segments)
    group = _all_groups(_written(finding, tmp_path))[1]
    (item,) = _children(group, "Finding")
    assert item.ConceptCodeSequence[0].CodeMeaning == "Neoplasm"
    (side,) = _children(item, "Laterality")
    assert (side.RelationshipType, side.ConceptCodeSequence[0].CodeMeaning) == ("HAS CONCEPT MOD", "Right")
    assert _children(group, "Finding Site") == []


def test_it_says_what_made_it(tmp_path: Path) -> None:
    finding = planted_finding(tmp_path / "ct")
    dataset = _written(finding, tmp_path)
    assert dataset.SOPClassUID == Comprehensive3DSRStorage
    assert (dataset.CompletionFlag, dataset.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    assert dataset.ConceptNameCodeSequence[0].CodeMeaning == "Imaging Measurement Report"
    assert (dataset.SeriesNumber, dataset.SeriesDescription) == (2003, "AI: organs")
    (observer,) = _children(dataset, "Device Observer UID")
    assert device_uid(finding.algorithm) == observer.UID
    assert device_uid(finding.algorithm) in [one.get("DeviceUID") for one in dataset.ContributingEquipmentSequence]
    for group in _all_groups(dataset):
        assert _children(group, "Algorithm Version")[0].TextValue == "2.1.0"
        assert finding.algorithm.weights_digest in _children(group, "Algorithm Parameters")[0].TextValue


@pytest.mark.parametrize(
    ("edit", "name", "unit"),
    [
        (as_mr, "MR signal intensity", "1"),
        (setting(RescaleType="US"), None, None),
        (setting(RescaleType=None), "Attenuation Coefficient", "[hnsf'U]"),
        (
            setting(SOPClassUID=PositronEmissionTomographyImageStorage, Modality="PT", Units="BQML"),
            "Nuclear Medicine Tomographic Activity",
            "Bq/ml",
        ),
        (setting(SOPClassUID=PositronEmissionTomographyImageStorage, Modality="PT", Units="CNTS"), None, None),
    ],
)
def test_values_have_the_unit_that_the_series_has(
    edit: Edit, name: str | None, unit: str | None, tmp_path: Path
) -> None:
    group = _all_groups(_written(planted_finding(tmp_path / "ct", edit=edit), tmp_path))[0]
    numbers = [one for one in group.ContentSequence if one.ValueType == "NUM"]
    assert len(numbers) == (1 if name is None else 3)
    for number in numbers[1:]:
        assert number.ConceptNameCodeSequence[0].CodeMeaning == name
        assert number.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue == unit


def test_its_evidence_is_all_that_it_was_made_of(tmp_path: Path) -> None:
    prompting = PromptingObject("2.25.1", "2.25.11")
    finding = replace(planted_finding(tmp_path / "ct"), prompted_by=[prompting])
    dataset = _written(finding, tmp_path)
    (study,) = dataset.CurrentRequestedProcedureEvidenceSequence
    found = {
        one.SeriesInstanceUID: {item.ReferencedSOPInstanceUID for item in one.ReferencedSOPSequence}
        for one in study.ReferencedSeriesSequence
    }
    segmentation = pydicom.dcmread(tmp_path / "seg.dcm")
    assert found == {
        finding.source.SeriesInstanceUID: {header.SOPInstanceUID for header in finding.series.datasets},
        segmentation.SeriesInstanceUID: {segmentation.SOPInstanceUID},
        "2.25.1": {"2.25.11"},
    }


def test_without_a_segmentation_it_measures_all_the_same(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(write_report(planted_finding(tmp_path / "ct"), None, tmp_path / "report.dcm").path)
    volumes = [len(_children(group, "Volume")) for group in _all_groups(dataset)]
    assert (volumes, _groups(dataset)) == ([1, 1, 0], [])


def test_it_may_refer_to_a_labelmap(tmp_path: Path) -> None:
    finding = planted_finding(tmp_path / "ct", paint=many_labels, segments=MANY_SEGMENTS)
    labelmap = write_labelmap(finding, tmp_path / "seg.dcm")
    groups = _groups(pydicom.dcmread(write_report(finding, labelmap, tmp_path / "report.dcm").path))
    references = [group.referenced_segment[0] for group in groups]
    assert [one.referenced_segment_numbers[0] for one in references] == list(range(1, 300))
    assert {one.referenced_sop_class_uid for one in references} == {labelmap.sop_class_uid}


def test_notes_are_told_in_whatever_characters(tmp_path: Path) -> None:
    finding = planted_finding(tmp_path / "ct", JAPANESE)
    notes = ("the second model disagrees", "Schichtdicke größer: 5 mm")
    dataset = _written(finding, tmp_path, notes)
    assert _evaluations(dataset)[1:] == [("Comment", note) for note in notes]
    assert str(dataset.PatientName) == JAPANESE.patient_name
    assert dataset.SpecificCharacterSet == "ISO_IR 192"


def test_whose_it_is_is_taken_over(tmp_path: Path) -> None:
    japanese = _written(planted_finding(tmp_path / "ct", JAPANESE), tmp_path)
    assert list(japanese.SpecificCharacterSet) == JAPANESE.character_set
    assert str(japanese.PatientName) == JAPANESE.patient_name
    bare = _written(planted_finding(tmp_path / "ct", edit=WITHOUT_TYPE_2), tmp_path)
    for keyword in ("PatientName", "PatientID", "AccessionNumber", "ReferringPhysicianName", "StudyTime"):
        assert not bare[keyword].value


def test_the_same_finding_gives_the_same_bytes(tmp_path: Path) -> None:
    finding = planted_finding(tmp_path / "ct")
    again = replace(finding, series=read_series(sorted((tmp_path / "ct").iterdir(), reverse=True)))
    segmentation = write_binary(finding, tmp_path / "seg.dcm")
    first = write_report(finding, segmentation, tmp_path / "1.dcm", notes=["one"])
    second = write_report(again, segmentation, tmp_path / "2.dcm", notes=["one"])
    assert first.path.read_bytes() == second.path.read_bytes()


def test_what_lies_elsewhere_or_is_not_described_is_not_written(tmp_path: Path) -> None:
    finding = planted_finding(tmp_path / "ct")
    for wrong, code in (
        (replace(finding, labels=finding.labels.flip_spatial(2)), "labels-elsewhere"),
        (replace(finding, segments=[LIVER]), "label-undescribed"),
    ):
        with pytest.raises(OperatorError) as caught:
            write_report(wrong, None, tmp_path / "report.dcm")
        assert caught.value.code == code
    assert not (tmp_path / "report.dcm").exists()
