"""A result that is not what was computed, where it lies or whose it is, is caught, whatever is wrong with it."""

from __future__ import annotations

import errno
import hashlib
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from app.errors import VerificationFailed
from app.graph import (
    GENERALIST_LABELS_FILE,
    LABELS_FILE,
    AgreementRecord,
    CompletionRecord,
    FailureRecord,
    FindingRecord,
    LabelsRecord,
    ModelRecord,
    Role,
)
from app.jobs.verification import verify_results
from app.recording import object_records, segment_records, write_labels
from operators.derived_uids import generalist_identity
from operators.gate.notes import GateNote
from operators.label_maps import LabelMap
from operators.results.finding import Algorithm, PromptingObject
from operators.segments import SegmentSpec
from operators.series_volume import read_series
from tests.gate_fixture import localizer, write_beside
from tests.multi_frame import write_concatenation, write_enhanced, write_legacy_converted
from tests.phantom import Phantom, variants
from tests.segmented_phantom import (
    ALGORITHM,
    MANY_SEGMENTS,
    SEGMENTS,
    asymmetric_labels,
    many_labels,
    no_labels,
    write_segmented,
)
from tests.written_segmentation import write_segmentation

PHANTOM = Phantom()
NOTE = GateNote("localizer", "repair", "left out")


@dataclass(frozen=True)
class _Results:
    record: CompletionRecord
    folder: Path
    files: list[Path]

    def verify(self) -> None:
        verify_results(self.record, self.folder, self.files)

    @property
    def finding(self) -> FindingRecord:
        """The last one."""
        return self.record.findings[-1]

    def with_finding(self, finding: FindingRecord) -> _Results:
        """The results with another last finding."""
        findings = (*self.record.findings[:-1], finding)
        return replace(self, record=replace(self.record, findings=findings))


def _results(
    folder: Path,
    phantom: Phantom = PHANTOM,
    *,
    paint: Callable[[tuple[int, int, int]], LabelMap] = asymmetric_labels,
    segments: Sequence[SegmentSpec] = SEGMENTS,
    write: Callable[[Phantom, Path], list[Path]] = Phantom.write,
) -> _Results:
    files = write(phantom, folder / "ct")
    written, _, labels = write_segmented(files, folder / "segmentation.dcm", paint=paint, segments=segments)
    finding = FindingRecord(
        role="specialist",
        objects=object_records({"segmentation": (written,)}),
        labels=LabelsRecord(LABELS_FILE, write_labels(folder / LABELS_FILE, labels)),
        segments=segment_records(labels, segments),
        model=ModelRecord("planted", ALGORITHM.version, ALGORITHM.weights_digest),
    )
    record = CompletionRecord("identity", (finding,))
    return _Results(record, folder, files)


def _with_localizer(folder: Path) -> _Results:
    """Results of the series, of which the gate left a localizer out."""
    results = _results(folder)
    files = [*results.files, *write_beside(folder / "ct", [localizer(PHANTOM)])]
    series = read_series(files)
    return _Results(replace(results.record, notes=series.notes, dropped=series.dropped), results.folder, files)


def test_what_the_gate_left_out_is_no_source(tmp_path: Path) -> None:
    _with_localizer(tmp_path).verify()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"dropped": {}}, "another number of slices"),
        ({"notes": ()}, "no note says why"),
        ({"notes": (GateNote("prompts-overlap", "warn", "of a prompt"),)}, "no note says why"),
        ({"dropped": {str(PHANTOM.dataset(index).SOPInstanceUID): () for index in range(6)}}, "number of slices"),
    ],
)
def test_what_is_left_out_otherwise_than_the_record_says_is_caught(
    change: dict[str, object], told: str, tmp_path: Path
) -> None:
    results = _with_localizer(tmp_path)
    record = replace(results.record, **change)  # type: ignore[arg-type]
    with pytest.raises(VerificationFailed, match=told):
        replace(results, record=record).verify()


def test_leaving_everything_out_is_caught(tmp_path: Path) -> None:
    results = _results(tmp_path)
    dropped = {str(pydicom.dcmread(path).SOPInstanceUID): () for path in results.files}
    with pytest.raises(VerificationFailed, match="left every instance out"):
        replace(results, record=replace(results.record, dropped=dropped, notes=(NOTE,))).verify()


@pytest.mark.parametrize(("rows", "columns"), [(5, 7), (9, 3), (4, 6), (1, 13)])
def test_frames_that_do_not_end_with_a_byte(tmp_path: Path, rows: int, columns: int) -> None:
    """Frames of bits follow each other without padding (PS3.5 section 8.1.1): the second begins within a byte."""
    results = _results(tmp_path, replace(PHANTOM, rows=rows, columns=columns), paint=speckles)
    results.verify()


def speckles(shape: tuple[int, int, int]) -> LabelMap:
    labels: LabelMap = np.random.default_rng(0).choice(np.array([0, 1, 5], np.uint8), shape)
    return labels


def _changed(results: _Results, change: Callable[[Dataset], None]) -> _Results:
    """The results with another object, whose digest the record has: as if the graph itself had written it so."""
    path = results.folder / results.finding.objects[0].file
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path, enforce_file_format=True)
    one = replace(results.finding.objects[0], digest=hashlib.sha256(path.read_bytes()).hexdigest())
    return results.with_finding(replace(results.finding, objects=(one,)))


def _frames(dataset: Dataset) -> np.ndarray:
    return np.array(dataset.pixel_array).reshape(-1, dataset.Rows, dataset.Columns)


def _set_frames(dataset: Dataset, frames: np.ndarray) -> None:
    packed = np.packbits(frames.reshape(-1), bitorder="little").tobytes()
    dataset.PixelData = packed + b"\0" * (len(packed) % 2)


@pytest.mark.parametrize("name", variants(PHANTOM))
def test_what_was_written_verifies(name: str, tmp_path: Path) -> None:
    results = _results(tmp_path, variants(PHANTOM)[name])
    (one,) = verify_results(results.record, tmp_path, results.files)
    assert one.path == tmp_path / "segmentation.dcm"
    assert (one.digest, one.sop_instance_uid) == (
        results.finding.objects[0].digest,
        results.finding.objects[0].sop_instance_uid,
    )
    assert str(one.transfer_syntax_uid) == str(ExplicitVRLittleEndian)


@pytest.mark.parametrize("write", [write_enhanced, write_concatenation, write_legacy_converted])
@pytest.mark.parametrize("name", ["axial", "oblique-against-normal"])
def test_what_was_written_of_multi_frame_images_verifies(
    name: str, write: Callable[[Phantom, Path], list[Path]], tmp_path: Path
) -> None:
    _results(tmp_path, variants(PHANTOM)[name], write=write).verify()


def _derivations(dataset: Dataset) -> list[Dataset]:
    return [
        groups.DerivationImageSequence[0].SourceImageSequence[0] for groups in dataset.PerFrameFunctionalGroupsSequence
    ]


def _name_the_next_frame(dataset: Dataset) -> None:
    _derivations(dataset)[0].ReferencedFrameNumber = int(_derivations(dataset)[0].ReferencedFrameNumber) % 6 + 1


def _name_no_frame(dataset: Dataset) -> None:
    del _derivations(dataset)[0].ReferencedFrameNumber


def _name_another_part(dataset: Dataset) -> None:
    named = {str(item.ReferencedSOPInstanceUID) for item in _derivations(dataset)}
    first = _derivations(dataset)[0]
    first.ReferencedSOPInstanceUID = min(named - {str(first.ReferencedSOPInstanceUID)})


def _name_another_slice(dataset: Dataset) -> None:
    first, *_, last = _derivations(dataset)
    first.ReferencedSOPInstanceUID = last.ReferencedSOPInstanceUID


@pytest.mark.parametrize(
    ("write", "change"),
    [
        (write_enhanced, _name_the_next_frame),
        (write_enhanced, _name_no_frame),
        (write_concatenation, _name_another_part),
        (Phantom.write, _name_another_slice),
    ],
)
def test_a_frame_derived_from_another_slice_is_found(
    write: Callable[[Phantom, Path], list[Path]], change: Callable[[Dataset], None], tmp_path: Path
) -> None:
    results = _changed(_results(tmp_path, write=write), change)
    with pytest.raises(VerificationFailed, match="names another source slice"):
        results.verify()


def _name_one_slice_less(dataset: Dataset) -> None:
    del dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0]


def _name_one_source_image(dataset: Dataset) -> None:
    dataset.SourceImageSequence = dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence[:1]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (_name_one_slice_less, "does not refer to exactly its source instances"),
        (_name_one_source_image, "source images are not the slices that were read"),
    ],
)
def test_a_result_of_which_not_all_slices_are_the_source_is_found(
    change: Callable[[Dataset], None], found: str, tmp_path: Path
) -> None:
    results = _changed(_results(tmp_path), change)
    with pytest.raises(VerificationFailed, match=found):
        results.verify()


def test_a_source_whose_frames_lie_elsewhere_is_found(tmp_path: Path) -> None:
    results = _results(tmp_path, write=write_enhanced)
    source = pydicom.dcmread(results.files[0])
    frames = source.PerFrameFunctionalGroupsSequence
    frames[0].PlanePositionSequence, frames[1].PlanePositionSequence = (
        frames[1].PlanePositionSequence,
        frames[2].PlanePositionSequence,
    )
    source.save_as(results.files[0])
    with pytest.raises(VerificationFailed, match="two source slices fall on one slice"):
        results.verify()


def test_more_segments_than_a_byte_counts_verify(tmp_path: Path) -> None:
    results = _results(tmp_path, paint=many_labels, segments=MANY_SEGMENTS)
    assert [segment.voxels > 0 for segment in results.finding.segments] == [True] * 299 + [False]
    results.verify()


def test_nothing_found_verifies(tmp_path: Path) -> None:
    _results(tmp_path, paint=no_labels).verify()


def test_no_volume_is_held_for_each_segment(tmp_path: Path) -> None:
    phantom = Phantom(slices=2, rows=512, columns=512)
    results = _results(tmp_path, phantom, paint=many_labels, segments=MANY_SEGMENTS)
    volume = phantom.slices * phantom.rows * phantom.columns
    tracemalloc.start()
    try:
        results.verify()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < len(MANY_SEGMENTS) * volume / 2


def test_a_record_survives_its_way_through_json(tmp_path: Path) -> None:
    agreement = (
        AgreementRecord(1, "Liver", 0.9, 2.5, -3.0, -4.0, ("dice", "volume")),
        AgreementRecord(2, "Spleen", 0.0, None, 1.0, None, ("one-empty",)),
    )
    plain = _results(tmp_path).record
    failure = FailureRecord("model-missing", "it is not there")
    for record in (plain, replace(plain, agreement=agreement), replace(plain, generalist_failure=failure)):
        assert CompletionRecord.from_json(record.to_json()) == record


# --- planted faults in the object ---


def _flip_rows(dataset: Dataset) -> None:
    _set_frames(dataset, _frames(dataset)[:, ::-1])


def _flip_columns(dataset: Dataset) -> None:
    _set_frames(dataset, _frames(dataset)[:, :, ::-1])


def _flip_slices(dataset: Dataset) -> None:
    _set_frames(dataset, _frames(dataset)[::-1])


def _one_voxel(dataset: Dataset) -> None:
    frames = _frames(dataset)
    frames[0, 3, 3] ^= 1
    _set_frames(dataset, frames)


def _shift(dataset: Dataset) -> None:
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        x, y, z = groups.PlanePositionSequence[0].ImagePositionPatient
        groups.PlanePositionSequence[0].ImagePositionPatient = [x, y, z + 2.5]


def _shift_in_plane(dataset: Dataset) -> None:
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        x, y, z = groups.PlanePositionSequence[0].ImagePositionPatient
        groups.PlanePositionSequence[0].ImagePositionPatient = [x + 0.1, y, z]


def _swap_spacing(dataset: Dataset) -> None:
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.PixelSpacing = measures.PixelSpacing[::-1]


def _turn(dataset: Dataset) -> None:
    orientation = dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    orientation.ImageOrientationPatient = [-1, 0, 0, 0, 1, 0]


def _swap_segments(dataset: Dataset) -> None:
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        item = groups.SegmentIdentificationSequence[0]
        number = int(item.ReferencedSegmentNumber)
        item.ReferencedSegmentNumber = {1: 2, 2: 1}.get(number, number)


def _swap_labels(dataset: Dataset) -> None:
    first, second = dataset.SegmentSequence[:2]
    first.SegmentLabel, second.SegmentLabel = second.SegmentLabel, first.SegmentLabel


def _swap_codes(dataset: Dataset) -> None:
    first, second = dataset.SegmentSequence[:2]
    kinds = first.SegmentedPropertyTypeCodeSequence, second.SegmentedPropertyTypeCodeSequence
    second.SegmentedPropertyTypeCodeSequence, first.SegmentedPropertyTypeCodeSequence = kinds


def _drop_frame(dataset: Dataset) -> None:
    _set_frames(dataset, _frames(dataset)[:-1])
    del dataset.PerFrameFunctionalGroupsSequence[-1]
    dataset.NumberOfFrames = int(dataset.NumberOfFrames) - 1


def _double_frame(dataset: Dataset) -> None:
    frames = _frames(dataset)
    _set_frames(dataset, np.concatenate([frames, frames[:1]]))
    dataset.PerFrameFunctionalGroupsSequence.append(dataset.PerFrameFunctionalGroupsSequence[0])
    dataset.NumberOfFrames = int(dataset.NumberOfFrames) + 1


def _cut(dataset: Dataset) -> None:
    dataset.PixelData = dataset.PixelData[:10]


def _other_weights(dataset: Dataset) -> None:
    for item in dataset.SegmentSequence:
        item.SegmentationAlgorithmIdentificationSequence[0].AlgorithmParameters = "weights_sha256=ffff"


def _unreferenced(dataset: Dataset) -> None:
    del dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0]


def _setting(keyword: str, value: object) -> Callable[[Dataset], None]:
    def change(dataset: Dataset) -> None:
        setattr(dataset, keyword, value)

    return change


FAULTS: dict[str, Callable[[Dataset], None]] = {
    "rows flipped": _flip_rows,
    "columns flipped": _flip_columns,
    "slices flipped": _flip_slices,
    "one voxel": _one_voxel,
    "shifted by a slice": _shift,
    "shifted in the plane": _shift_in_plane,
    "spacing swapped": _swap_spacing,
    "turned": _turn,
    "segments swapped": _swap_segments,
    "labels swapped": _swap_labels,
    "codes swapped": _swap_codes,
    "a frame missing": _drop_frame,
    "a frame doubled": _double_frame,
    "pixel data cut": _cut,
    "other weights": _other_weights,
    "a source not referred to": _unreferenced,
    "another patient": _setting("PatientID", "PHANTOM-2"),
    "another name": _setting("PatientName", "Other^Name"),
    "another birth date": _setting("PatientBirthDate", "19600103"),
    "another accession number": _setting("AccessionNumber", "A2"),
    "another study": _setting("StudyInstanceUID", "1.2.3"),
    "another frame of reference": _setting("FrameOfReferenceUID", "1.2.3"),
    "another instance": _setting("SOPInstanceUID", "1.2.3"),
    "its source's series": _setting("SeriesInstanceUID", PHANTOM.uid("series")),
    "no frame of reference": _setting("FrameOfReferenceUID", None),
}


@pytest.mark.parametrize("fault", ["one voxel", "segments swapped", "a frame missing", "a frame doubled"])
def test_a_planted_fault_among_many_segments_is_caught(fault: str, tmp_path: Path) -> None:
    results = _results(tmp_path, paint=many_labels, segments=MANY_SEGMENTS)
    with pytest.raises(VerificationFailed):
        _changed(results, FAULTS[fault]).verify()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(fault: str, tmp_path: Path) -> None:
    results = _changed(_results(tmp_path), FAULTS[fault])
    with pytest.raises(VerificationFailed) as caught:
        results.verify()
    for secret in ("Phantom^Limner", "PHANTOM", "1960"):
        assert secret not in str(caught.value)


def test_rewriting_alone_is_no_fault(tmp_path: Path) -> None:
    _changed(_results(tmp_path), lambda dataset: None).verify()


# --- planted faults around it ---


def test_a_file_that_changed_after_it_was_recorded(tmp_path: Path) -> None:
    results = _results(tmp_path)
    path = tmp_path / "segmentation.dcm"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(VerificationFailed, match="not the file that was written"):
        results.verify()


@pytest.mark.parametrize("name", ["segmentation.dcm", LABELS_FILE])
def test_a_file_that_is_missing(name: str, tmp_path: Path) -> None:
    results = _results(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(VerificationFailed):
        results.verify()


@pytest.mark.parametrize("name", ["segmentation.dcm", LABELS_FILE])
def test_a_file_that_the_disk_does_not_give_is_the_hosts_fault(name: str, tmp_path: Path) -> None:
    results = _results(tmp_path)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/proc/self/mem")  # a file whose first bytes can't be read
    with pytest.raises(OSError, match="Input/output error") as caught:
        results.verify()
    assert caught.value.errno == errno.EIO


def test_labels_that_do_not_lie_on_the_source(tmp_path: Path) -> None:
    results = _results(tmp_path)
    with np.load(tmp_path / LABELS_FILE) as stored:
        content = dict(stored)
    content["affine"] = content["affine"] @ np.diag([-1.0, 1, 1, 1])
    np.savez_compressed(tmp_path / LABELS_FILE, **content)
    digest = hashlib.sha256((tmp_path / LABELS_FILE).read_bytes()).hexdigest()
    finding = replace(results.finding, labels=LabelsRecord(LABELS_FILE, digest))
    with pytest.raises(VerificationFailed, match="does not lie on the source"):
        results.with_finding(finding).verify()


def test_the_series_of_another_patient(tmp_path: Path) -> None:
    results = _results(tmp_path)
    other = replace(PHANTOM, patient_id="PHANTOM-2", patient_name="Other^Name").write(tmp_path / "other")
    with pytest.raises(VerificationFailed):
        replace(results, files=other).verify()


def test_a_series_of_more_slices(tmp_path: Path) -> None:
    results = _results(tmp_path)
    other = replace(PHANTOM, slices=7).write(tmp_path / "other")
    with pytest.raises(VerificationFailed):
        replace(results, files=other).verify()


def test_a_record_with_other_counts(tmp_path: Path) -> None:
    results = _results(tmp_path)
    first, *others = results.finding.segments
    finding = replace(results.finding, segments=(replace(first, voxels=first.voxels + 1), *others))
    with pytest.raises(VerificationFailed):
        results.with_finding(finding).verify()


def test_uids_that_follow_from_another_job(tmp_path: Path) -> None:
    results = _results(tmp_path)
    with pytest.raises(VerificationFailed, match="do not follow from its job"):
        replace(results, record=replace(results.record, identity="another")).verify()


@pytest.mark.parametrize("roles", [(), ("generalist",), ("specialist", "specialist")])
def test_a_record_of_other_findings_than_a_specialists_first(roles: tuple[Role, ...], tmp_path: Path) -> None:
    results = _results(tmp_path)
    findings = tuple(replace(results.finding, role=role) for role in roles)
    with pytest.raises(VerificationFailed):
        replace(results, record=replace(results.record, findings=findings)).verify()


def test_names_in_the_record_do_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    results = _results(tmp_path / "in")
    one = replace(results.finding.objects[0], file="../../etc/passwd")
    with pytest.raises(VerificationFailed):
        results.with_finding(replace(results.finding, objects=(one,))).verify()


# --- a generalist beside the specialist ---

GENERALIST = Algorithm("Planted generalist", "0.3", "fedcba9876543210" * 4, {"prompts": "boxes"})


PROMPTING = PromptingObject.of("identity")


def _with_generalist(folder: Path, prompting: PromptingObject | None = PROMPTING) -> _Results:
    """The results of both models, the generalist's without the single voxels in the corners."""
    results = _results(folder)
    series = read_series(results.files)
    array = asymmetric_labels(series.volume.spatial_shape)
    array[0, 0, 0] = array[-1, -1, -1] = 0
    labels = series.volume.with_array(array)
    written = write_segmentation(
        labels,
        series,
        SEGMENTS,
        GENERALIST,
        identity=generalist_identity("identity"),
        series_description="organs (Planted generalist)",
        path=folder / "generalist.dcm",
        prompted_by=[] if prompting is None else [prompting],
    )
    finding = FindingRecord(
        role="generalist",
        objects=object_records({"segmentation": (written,)}),
        labels=LabelsRecord(GENERALIST_LABELS_FILE, write_labels(folder / GENERALIST_LABELS_FILE, labels)),
        segments=segment_records(labels, SEGMENTS),
        model=ModelRecord("generalist", GENERALIST.version, GENERALIST.weights_digest),
    )
    return replace(results, record=replace(results.record, findings=(*results.record.findings, finding)))


def test_both_findings_are_read_back(tmp_path: Path) -> None:
    results = _with_generalist(tmp_path)
    specialist, generalist = verify_results(results.record, tmp_path, results.files)
    assert (specialist.role, generalist.role) == ("specialist", "generalist")
    assert specialist.series_instance_uid != generalist.series_instance_uid
    assert generalist.path == tmp_path / "generalist.dcm"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_in_the_generalists_object_is_caught(fault: str, tmp_path: Path) -> None:
    results = _changed(_with_generalist(tmp_path), FAULTS[fault])
    with pytest.raises(VerificationFailed):
        results.verify()


@pytest.mark.parametrize("prompting", [None, PromptingObject.of("another job")])
def test_a_generalists_object_that_does_not_name_what_prompted_it(
    prompting: PromptingObject | None, tmp_path: Path
) -> None:
    with pytest.raises(VerificationFailed, match="what prompted it"):
        _with_generalist(tmp_path, prompting).verify()


def test_the_generalists_labels_are_not_the_specialists(tmp_path: Path) -> None:
    results = _with_generalist(tmp_path)
    finding = replace(results.finding, labels=results.record.findings[0].labels)
    with pytest.raises(VerificationFailed):
        results.with_finding(finding).verify()


def test_prompts_that_it_does_not_refer_to_are_caught(tmp_path: Path) -> None:
    results = _results(tmp_path)
    results.verify()
    with pytest.raises(VerificationFailed, match="what prompted it"):
        replace(results, record=replace(results.record, prompted_by={"2.25.1": "2.25.2"})).verify()
