"""The Segmentation lies where the labels lie, says whose and what it is, and is the same each time."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import ComprehensiveSRStorage, ExplicitVRLittleEndian, GrayscaleSoftcopyPresentationStateStorage

from operators.derived_uids import generalist_identity, instance_uid, series_uid
from operators.errors import OperatorError
from operators.gate.gate import Gate
from operators.label_maps import LabelMap
from operators.results.binary import write_binary
from operators.results.finding import PromptingObject, device_uid
from operators.results.segmentation import segment_numbers
from operators.results.series_description import say_ai, say_whose
from operators.segments import Code
from operators.series_volume import read_series
from tests.finding_phantom import planted_finding
from tests.phantom import Phantom, setting, variants
from tests.segmented_phantom import (
    ALGORITHM,
    LIVER,
    MANY_SEGMENTS,
    SEGMENTS,
    label_volume,
    many_labels,
    no_labels,
    write_segmented,
)
from tests.written_segmentation import write_segmentation

NAMES: dict[str, tuple[str | list[str] | None, str]] = {
    # PS3.5 annexes H and I; the first of Japan's sets is empty, which says ASCII
    "japanese": (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "japanese-katakana": (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
    "korean": (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    "chinese": ("GB18030", "Wang^XiaoDong=王^小东"),
    "utf-8": ("ISO_IR 192", "Wang^XiaoDong=王^小東=Žlutý^Kůň"),
    "latin-1": ("ISO_IR 100", "Buc^Jérôme"),
    "cyrillic": ("ISO_IR 144", "Люкceмбypг"),
    "none": (None, "Doe^Jane"),
}


# --- where it lies ---


@pytest.mark.parametrize("name", variants(Phantom()))
def test_each_segment_is_where_its_labels_are_in_the_patient(name: str, tmp_path: Path) -> None:
    written, _, labels = write_segmented(variants(Phantom())[name].write(tmp_path / "ct"), tmp_path / "seg.dcm")
    read = highdicom.seg.segread(written.path)
    for number, segment in enumerate(SEGMENTS, start=1):
        if not np.any(labels.array == segment.label_value):
            continue
        found = read.get_volume(segment_numbers=[number], combine_segments=True, allow_missing_positions=True)
        found = found.match_geometry(labels)
        assert np.array_equal(found.array != 0, labels.array == segment.label_value)


@pytest.mark.parametrize("name", variants(Phantom()))
def test_what_is_found_on_a_slice_alone_is_a_volume_with_the_series_geometry(name: str, tmp_path: Path) -> None:
    phantom = variants(Phantom(slices=1))[name]
    finding = planted_finding(tmp_path / "ct", phantom, gate=Gate(takes_single_slice=True))
    written = write_binary(finding, tmp_path / "seg.dcm")
    read = highdicom.seg.segread(written.path)
    for number, segment in enumerate(finding.segments[:2], start=1):
        found = read.get_volume(segment_numbers=[number], combine_segments=True)
        np.testing.assert_allclose(found.affine, finding.labels.affine, atol=1e-6)
        assert np.array_equal(found.array != 0, finding.labels.array == segment.label_value)
        assert np.any(found.array)


def test_corner_voxels_have_the_coordinates_of_their_slices(tmp_path: Path) -> None:
    phantom = Phantom(against_normal=True)
    written, series, _ = write_segmented(phantom.write(tmp_path / "ct"), tmp_path / "seg.dcm")
    dataset = pydicom.dcmread(written.path)
    places = {
        int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber): groups.PlanePositionSequence[0]
        for groups in dataset.PerFrameFunctionalGroupsSequence
        if groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        in (series.datasets[0].SOPInstanceUID, series.datasets[-1].SOPInstanceUID)
    }
    assert list(places[1].ImagePositionPatient) == pytest.approx(
        [float(number) for number in series.datasets[0].ImagePositionPatient]
    )
    assert list(places[2].ImagePositionPatient) == pytest.approx(
        [float(number) for number in series.datasets[-1].ImagePositionPatient]
    )


def test_labels_that_lie_elsewhere_are_not_written(tmp_path: Path) -> None:
    series = read_series(Phantom().write(tmp_path / "ct"))
    labels = label_volume(series)
    shifted = labels.affine.copy()
    shifted[2, 3] += 1
    frame = series.volume.frame_of_reference_uid
    for wrong in (
        highdicom.Volume(labels.array, shifted, "PATIENT", frame),
        highdicom.Volume(labels.array, labels.affine, "PATIENT", "1.2.3"),
        labels.flip_spatial(0),
        labels.with_array(labels.array.astype(np.int16)),
        labels[1:],
    ):
        with pytest.raises(OperatorError) as caught:
            write_segmentation(
                wrong, series, SEGMENTS, ALGORITHM, identity="x", series_description="", path=tmp_path / "seg.dcm"
            )
        assert caught.value.code == "labels-elsewhere"
    assert not (tmp_path / "seg.dcm").exists()


def test_a_label_without_a_segment_is_not_written(tmp_path: Path) -> None:
    series = read_series(Phantom().write(tmp_path / "ct"))
    with pytest.raises(OperatorError, match=r": \[5\]$") as caught:
        write_segmentation(
            label_volume(series),
            series,
            [LIVER],
            ALGORITHM,
            identity="x",
            series_description="",
            path=tmp_path / "seg.dcm",
        )
    assert caught.value.code == "label-undescribed"


# --- many labels ---


@st.composite
def _described(draw: st.DrawFn) -> tuple[list[int], LabelMap]:
    """Label values of segments, in any order, and a map that holds only them and background."""
    kind, highest = draw(st.sampled_from([(np.uint8, 255), (np.uint16, 65535)]))
    seed = draw(st.integers(0, 2**32 - 1))
    count = draw(st.sampled_from([1, 2, 254, 255, 256, 300]))
    chance = np.random.default_rng(seed)
    values = chance.choice(np.arange(1, highest + 1), min(count, highest), replace=False)
    return values.tolist(), chance.choice([0, *values], (3, 4, 50)).astype(kind)


@given(_described())
def test_renumbering_keeps_each_label_where_it_is(described: tuple[list[int], LabelMap]) -> None:
    values, labels = described
    before = labels.copy()
    numbered = segment_numbers(labels, [replace(LIVER, label_value=value) for value in values])
    assert numbered.dtype == (np.uint8 if len(values) < 256 else np.uint16)
    assert np.array_equal(numbered == 0, labels == 0)
    for number, value in enumerate(values, start=1):
        assert np.array_equal(numbered == number, labels == value)
    assert np.array_equal(labels, before)


@given(_described(), st.data())
def test_renumbering_names_what_no_segment_describes(
    described: tuple[list[int], LabelMap], data: st.DataObject
) -> None:
    values, labels = described
    missing = data.draw(st.sampled_from(values))
    labels.flat[0] = missing
    others = [replace(LIVER, label_value=value) for value in values if value != missing]
    with pytest.raises(OperatorError, match=rf"1 values .*: \[{missing}\]$") as caught:
        segment_numbers(labels, others)
    assert caught.value.code == "label-undescribed"


def test_an_error_names_only_the_first_of_many_labels() -> None:
    with pytest.raises(OperatorError, match=r"299 values .*: \[103, [0-9, ]*, 130\] and others$"):
        segment_numbers(many_labels((6, 10, 14)), SEGMENTS)


def test_more_segments_than_a_byte_counts_lie_where_their_labels_lie(tmp_path: Path) -> None:
    files = Phantom().write(tmp_path / "ct")
    written, _, labels = write_segmented(files, tmp_path / "seg.dcm", paint=many_labels, segments=MANY_SEGMENTS)
    read = highdicom.seg.segread(written.path)
    assert (len(read.SegmentSequence), read.SegmentSequence[-1].SegmentNumber) == (300, 300)
    frames = sum(len(set(plane.flat) - {0}) for plane in labels.array)
    assert int(read.NumberOfFrames) == frames
    found = read.get_volume(combine_segments=True, allow_missing_positions=True).match_geometry(labels)
    assert np.array_equal(found.array, segment_numbers(labels.array, MANY_SEGMENTS))


def test_the_highest_label_is_written(tmp_path: Path) -> None:
    highest = replace(LIVER, label_value=65535)
    written, _, _ = write_segmented(
        Phantom().write(tmp_path / "ct"),
        tmp_path / "seg.dcm",
        paint=lambda shape: np.full(shape, 65535, np.uint16),
        segments=[highest],
    )
    assert np.all(pydicom.dcmread(written.path).pixel_array == 1)


def test_what_no_object_can_hold_is_refused_before_it_is_made(tmp_path: Path) -> None:
    def paint(shape: tuple[int, int, int]) -> LabelMap:
        return np.broadcast_to(np.arange(shape[1] * shape[2]).astype(np.uint16).reshape(shape[1:]), shape)

    segments = [replace(LIVER, label_value=value) for value in range(1, 65536)]
    files = Phantom(slices=9, rows=256, columns=256).write(tmp_path / "ct")
    with pytest.raises(OperatorError, match=r"589815 frames, 4831764480 bytes") as caught:
        write_segmented(files, tmp_path / "seg.dcm", paint=paint, segments=segments)
    assert caught.value.code == "segmentation-too-large"
    assert not (tmp_path / "seg.dcm").exists()


# --- what it is ---


def test_it_is_binary_coded_and_says_what_made_it(tmp_path: Path) -> None:
    written, series, labels = write_segmented(Phantom().write(tmp_path / "ct"), tmp_path / "seg.dcm")
    dataset = pydicom.dcmread(written.path)
    assert dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert (dataset.SegmentationType, dataset.Modality, dataset.SegmentsOverlap) == ("BINARY", "SEG", "NO")
    assert (dataset.SeriesDescription, dataset.SeriesNumber, dataset.ContentLabel) == (
        "AI: organs",
        1003,
        "SEGMENTATION",
    )
    assert dataset.FrameOfReferenceUID == series.volume.frame_of_reference_uid
    assert [item.SegmentLabel for item in dataset.SegmentSequence] == ["Liver", "Left kidney", "Spleen"]
    kidney = dataset.SegmentSequence[1]
    assert (
        kidney.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    )
    (algorithm,) = kidney.SegmentationAlgorithmIdentificationSequence
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("Planted network", "2.1.0")
    assert algorithm.AlgorithmParameters == f"weights_sha256={ALGORITHM.weights_digest}"
    (referenced,) = dataset.ReferencedSeriesSequence
    assert {item.ReferencedSOPInstanceUID for item in referenced.ReferencedInstanceSequence} == {
        header.SOPInstanceUID for header in series.datasets
    }
    assert int(dataset.NumberOfFrames) == sum(int(np.any(plane == value)) for plane in labels.array for value in (1, 5))


def test_the_model_is_processing_equipment(tmp_path: Path) -> None:
    """IHE AI Results: one item an algorithm, with Device UID."""
    written, _, _ = write_segmented(Phantom().write(tmp_path / "ct"), tmp_path / "seg.dcm")
    equipment = pydicom.dcmread(written.path).ContributingEquipmentSequence
    assert [one.PurposeOfReferenceCodeSequence[0].CodeValue for one in equipment] == ["109101", "109102", "109102"]
    assert (equipment[1].Manufacturer, equipment[1].ManufacturerModelName, equipment[1].SoftwareVersions) == (
        "Limner",
        "Planted network",
        "2.1.0",
    )
    assert equipment[1].DeviceUID == device_uid(ALGORITHM)


def test_nothing_found_is_a_result(tmp_path: Path) -> None:
    files = Phantom().write(tmp_path / "ct")
    written, _, labels = write_segmented(files, tmp_path / "seg.dcm", paint=no_labels)
    dataset = pydicom.dcmread(written.path)
    assert len(dataset.SegmentSequence) == len(SEGMENTS)
    assert int(dataset.NumberOfFrames) == 1  # the fewest that are possible: as many as voxels would be gigabytes
    assert not np.any(dataset.pixel_array)
    assert not np.any(labels.array)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("Liver", "AI: Liver"),
        ("AI liver", "AI liver"),
        ("Liver (AI)", "Liver (AI)"),
        ("Paired kidneys", "AI: Paired kidneys"),
        ("AI: x", "AI: x"),
        ("y" * 80, "AI: " + "y" * 60),
    ],
)
def test_its_description_says_that_a_machine_made_it(given: str, said: str) -> None:
    assert say_ai(given) == said


# --- whose it is ---


@pytest.mark.parametrize("name", NAMES)
def test_the_patients_name_is_kept_in_its_own_characters(name: str, tmp_path: Path) -> None:
    character_set, patient = NAMES[name]
    phantom = Phantom(character_set=character_set, patient_name=patient)
    files = phantom.write(tmp_path / "ct")
    written, _, _ = write_segmented(files, tmp_path / "seg.dcm")
    source, result = pydicom.dcmread(files[0]), pydicom.dcmread(written.path)
    assert str(source.PatientName) == patient
    assert str(result.PatientName) == patient
    assert result.get("SpecificCharacterSet") == source.get("SpecificCharacterSet")
    assert result.PatientName.original_string == source.PatientName.original_string


def test_other_text_of_the_study_is_kept_too(tmp_path: Path) -> None:
    character_set, patient = NAMES["japanese"]
    files = Phantom(character_set=character_set, patient_name=patient).write(
        tmp_path / "ct", edit=setting(StudyDescription="腹部 CT", ReferringPhysicianName="Suzuki=鈴木")
    )
    result = pydicom.dcmread(write_segmented(files, tmp_path / "seg.dcm")[0].path)
    assert (result.StudyDescription, str(result.ReferringPhysicianName)) == ("腹部 CT", "Suzuki=鈴木")


def test_own_text_that_the_sources_character_set_lacks_makes_it_utf_8(tmp_path: Path) -> None:
    character_set, patient = NAMES["japanese"]
    files = Phantom(character_set=character_set, patient_name=patient).write(tmp_path / "ct")
    written, _, _ = write_segmented(files, tmp_path / "seg.dcm", series_description="Würfel")
    result = pydicom.dcmread(written.path)
    assert result.SpecificCharacterSet == "ISO_IR 192"
    assert (str(result.PatientName), result.SeriesDescription) == (patient, "AI: Würfel")


@pytest.mark.parametrize(
    "keyword",
    [
        "PatientName",
        "PatientID",
        "PatientBirthDate",
        "PatientSex",
        "StudyDate",
        "StudyTime",
        "AccessionNumber",
        "StudyID",
        "ReferringPhysicianName",
        "SeriesNumber",
        "SpecificCharacterSet",
    ],
)
def test_a_source_without_a_type_2_attribute(keyword: str, tmp_path: Path) -> None:
    files = Phantom().write(tmp_path / "ct", edit=setting(**{keyword: None}))
    written, series, _ = write_segmented(files, tmp_path / "seg.dcm")
    result = pydicom.dcmread(written.path)
    if keyword not in ("SeriesNumber", "SpecificCharacterSet"):
        assert keyword in result
        assert not result[keyword].value
    assert keyword not in series.datasets[0]  # the source's header is as it was


def test_the_sources_headers_are_not_changed(tmp_path: Path) -> None:
    files = Phantom().write(tmp_path / "ct")
    before = read_series(files).datasets
    _, series, _ = write_segmented(files, tmp_path / "seg.dcm")
    assert series.datasets == before


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_values_that_are_none_of_their_kind_are_passed_on_as_they_are(tmp_path: Path) -> None:
    def edit(index: int, dataset: Dataset) -> Dataset:
        dataset.PatientSex = "U"
        for keyword, value in (("PatientBirthDate", "19609999"), ("StudyTime", "late")):
            dataset[keyword]._value = value  # what pydicom would not let in, and senders do write
        return dataset

    files = Phantom().write(tmp_path / "ct", edit=edit)
    result = pydicom.dcmread(write_segmented(files, tmp_path / "seg.dcm")[0].path)
    assert (result.PatientSex, result.PatientBirthDate, result.StudyTime) == ("U", "19609999", "late")


# --- the same each time ---


def test_the_same_job_writes_the_same_bytes(tmp_path: Path) -> None:
    files = Phantom().write(tmp_path / "ct")
    first, _, _ = write_segmented(files, tmp_path / "1.dcm")
    second, _, _ = write_segmented(files[::-1], tmp_path / "2.dcm")
    assert first.digest == second.digest == hashlib.sha256(first.path.read_bytes()).hexdigest()
    assert replace(first, path=second.path) == second
    assert list(tmp_path.glob("*.part")) == []


def test_another_job_writes_another_object(tmp_path: Path) -> None:
    files = Phantom().write(tmp_path / "ct")
    first, _, _ = write_segmented(files, tmp_path / "1.dcm", identity="one")
    second, _, _ = write_segmented(files, tmp_path / "2.dcm", identity="two")
    assert first.sop_instance_uid != second.sop_instance_uid
    assert first.series_instance_uid != second.series_instance_uid
    assert first.sop_instance_uid == instance_uid("one")


def test_its_times_are_the_latest_of_its_source(tmp_path: Path) -> None:
    result = pydicom.dcmread(write_segmented(Phantom().write(tmp_path / "ct"), tmp_path / "seg.dcm")[0].path)
    assert (result.ContentDate, result.ContentTime) == ("20240305", "101500")
    assert (result.SeriesDate, result.InstanceCreationTime) == ("20240305", "101500")


def test_codes_are_told_as_the_standard_writes_them() -> None:
    assert str(Code("1", "SCT", "Thing")) == '(1, SCT, "Thing")'


# --- what guided it ---


def _written(folder: Path, **options: Any) -> Dataset:
    series = read_series(Phantom().write(folder / "ct"))
    written = write_segmentation(
        label_volume(series),
        series,
        SEGMENTS,
        replace(ALGORITHM, parameters={"prompts": "boxes"}),
        identity="identity",
        series_description="organs",
        path=folder / "seg.dcm",
        **options,
    )
    return pydicom.dcmread(written.path)


@pytest.mark.parametrize(("is_automatic", "kind"), [(True, "AUTOMATIC"), (False, "SEMIAUTOMATIC")])
def test_it_says_whether_a_person_guided_it(is_automatic: bool, kind: str, tmp_path: Path) -> None:
    dataset = _written(tmp_path, is_automatic=is_automatic)
    assert {item.SegmentAlgorithmType for item in dataset.SegmentSequence} == {kind}
    (algorithm,) = dataset.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence
    assert algorithm.AlgorithmParameters == f"weights_sha256={ALGORITHM.weights_digest},prompts=boxes"


def test_it_names_the_segmentation_that_prompted_it(tmp_path: Path) -> None:
    plain, prompted = _written(tmp_path / "plain"), _written(tmp_path, prompted_by=[PromptingObject.of("first")])
    *sources, prompting = prompted.SourceImageSequence
    assert "SourceImageSequence" not in plain  # the instances that it refers to are all
    assert [one.ReferencedSOPInstanceUID for one in sources] == [
        one.ReferencedSOPInstanceUID for one in plain.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    ]
    assert prompting.ReferencedSOPInstanceUID == instance_uid("first")
    assert prompting.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    own, others = prompted.ReferencedSeriesSequence
    assert own == plain.ReferencedSeriesSequence[0]
    assert others.SeriesInstanceUID == series_uid("first")
    assert [item.ReferencedSOPInstanceUID for item in others.ReferencedInstanceSequence] == [instance_uid("first")]
    assert prompted.PerFrameFunctionalGroupsSequence == plain.PerFrameFunctionalGroupsSequence


def test_a_generalists_uids_are_others_than_the_specialists() -> None:
    own = generalist_identity("identity")
    assert len({series_uid("identity"), series_uid(own), instance_uid("identity"), instance_uid(own)}) == 4


@given(st.text("abAI :()", max_size=80), st.text("abLS ", min_size=1, max_size=50))
def test_a_description_says_whose_it_is_however_long_it_was(description: str, name: str) -> None:
    said = say_whose(description, name)
    assert said.endswith(f"({name[:32]})")
    assert len(said) <= 64
    assert say_ai(said) == said


def test_a_short_description_is_kept_whole() -> None:
    assert say_whose("organs", "LiteMedSAM") == "AI: organs (LiteMedSAM)"


def test_what_prompted_it_is_named_where_the_standard_has_places(tmp_path: Path) -> None:
    series = read_series(Phantom().write(tmp_path / "ct"))
    image = series.datasets[0]
    prompting = [
        PromptingObject("2.25.1", "2.25.11"),
        PromptingObject("2.25.2", "2.25.21", ComprehensiveSRStorage),
        PromptingObject("2.25.2", "2.25.22", GrayscaleSoftcopyPresentationStateStorage),
    ]
    path = tmp_path / "segmentation.dcm"
    write_segmentation(
        label_volume(series), series, SEGMENTS, ALGORITHM, identity="one", series_description="organs", path=path,
        prompted_by=prompting,
    )  # fmt: skip
    dataset = pydicom.dcmread(path)
    referenced = {
        one.SeriesInstanceUID: [item.ReferencedSOPInstanceUID for item in one.ReferencedInstanceSequence]
        for one in dataset.ReferencedSeriesSequence
    }
    assert len(referenced.pop(image.SeriesInstanceUID)) == len(series.datasets)
    assert referenced == {"2.25.1": ["2.25.11"], "2.25.2": ["2.25.21", "2.25.22"]}
    assert dataset.SourceImageSequence[-1].ReferencedSOPInstanceUID == "2.25.11"
    assert len(dataset.SourceImageSequence) == len(series.datasets) + 1
    report, state = dataset.SourceInstanceSequence
    assert report.PurposeOfReferenceCodeSequence[0].CodeValue == "128225"
    assert (state.ReferencedSOPInstanceUID, "PurposeOfReferenceCodeSequence" in state) == ("2.25.22", False)


def test_a_segment_is_tracked_as_it_says(tmp_path: Path) -> None:
    tracked = replace(LIVER, tracking_id="liver 3", tracking_uid="2.25.33")
    written, _, _ = write_segmented(
        Phantom().write(tmp_path / "ct"),
        tmp_path / "segmentation.dcm",
        paint=lambda shape: np.ones(shape, np.uint8),
        segments=[tracked],
    )
    (segment,) = pydicom.dcmread(written.path).SegmentSequence
    assert (segment.TrackingID, segment.TrackingUID) == ("liver 3", "2.25.33")
