"""Results read back from disk and held against what was computed, where it lies in the patient, and whose it is.

Each finding has an object and a label map of its own, and both are read: a generalist's as a specialist's.

Placement is checked by the numbers of the file alone (PS3.3 C.7.6.2.1.1), not through the library that wrote it: each
frame's corners must fall on the label map's grid, the label map's grid on the source's slices, and every voxel of
every segment must be the label map's.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.uid import SegmentationStorage

from app.errors import VerificationFailed
from app.graph import CompletionRecord, FindingRecord, ObjectRecord, Role, SegmentRecord
from app.identifiers import UID
from operators.derived_uids import generalist_identity, instance_uid, series_uid
from operators.instances import PARSE_ERRORS
from operators.label_maps import LabelMap, is_label_type, label_counts, labels_on

_TOLERANCE_VOXELS = 0.02
"""Of a voxel: positions are stored as decimal strings of 16 characters."""
_SLICE_TOLERANCE_VOXELS = 0.2
"""Of a source slice from its place on an even grid; the series was accepted with less."""
_SOURCE_KEYWORDS = (
    "SpecificCharacterSet",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
)
_SAME_AS_SOURCE = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyInstanceUID",
    "FrameOfReferenceUID",
)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class VerifiedObject:
    """An object that was read back and is what it should be."""

    path: Path
    role: Role
    """The model's that made it."""
    digest: str
    """SHA-256 of the file, 64 hexadecimal digits."""
    sop_class_uid: UID
    sop_instance_uid: UID
    series_instance_uid: UID
    transfer_syntax_uid: UID


@dataclass(frozen=True)
class _Labels:
    """The label map as the graph computed it."""

    array: LabelMap
    affine: Floats
    frame_of_reference_uid: str

    def indices(self, positions: Floats) -> Floats:
        """Slice, row and column, not rounded, of positions (n, 3) in patient coordinates."""
        homogeneous = np.concatenate([positions, np.ones((len(positions), 1))], axis=1)
        found: Floats = (homogeneous @ np.linalg.inv(self.affine).T)[:, :3]
        return found


def verify_results(record: CompletionRecord, folder: Path, source_files: Sequence[Path]) -> tuple[VerifiedObject, ...]:
    """Read back every object of `record` in `folder`, and return them if each is what the graph computed.

    Parameters
    ----------
    source_files
        The instances that the graph read.

    Raises
    ------
    VerificationFailed
        If a file is missing, changed or unreadable; if patient, study or frame of reference are not the source's; if
        a segment, voxel or position is not what was computed.
    """
    if [finding.role for finding in record.findings] not in (["specialist"], ["specialist", "generalist"]):
        raise VerificationFailed(
            "the completion record must name a specialist's finding, and after it at most a generalist's; a graph that "
            "found nothing still writes an object"
        )
    try:
        sources = [pydicom.dcmread(path, specific_tags=list(_SOURCE_KEYWORDS)) for path in source_files]
        return tuple(_verify_finding(one, record, folder, sources) for one in record.findings)
    except (OSError, IndexError, *PARSE_ERRORS) as error:
        # what is missing or mangled shows as any of these; the text of some holds values
        raise VerificationFailed(
            f"a result can't be read back as what it should be ({type(error).__name__})"
        ) from error


def _require(holds: bool | np.bool_, what: str) -> None:
    if not holds:
        raise VerificationFailed(f"a result, read back, is not what was computed: {what}")


def _read_checked(path: Path, digest: str) -> bytes:
    content = path.read_bytes()
    _require(hashlib.sha256(content).hexdigest() == digest, f"{path.name} is not the file that was written")
    return content


def _read_labels(finding: FindingRecord, folder: Path) -> _Labels:
    content = _read_checked(folder / Path(finding.labels.file).name, finding.labels.digest)
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        labels = _Labels(stored["labels"], stored["affine"], str(stored["frame_of_reference_uid"]))
    _require(is_label_type(labels.array.dtype), "the label map is neither of type uint8 nor of type uint16")
    counts = label_counts(labels.array)
    for segment in finding.segments:
        same = int(counts[segment.label_value]) == segment.voxels
        _require(same, f"the record counts other voxels of segment {segment.number}")
    return labels


def _check_grid(labels: _Labels, sources: Sequence[pydicom.Dataset]) -> None:
    """Every source slice must be a slice of the label map: same rows, same columns, same place."""
    _require(len(sources) == labels.array.shape[0], "the label map has another number of slices than the series")
    planes = set()
    for source in sources:
        _require((source.Rows, source.Columns) == labels.array.shape[1:], "the label map's matrix is not the source's")
        _require(str(source.FrameOfReferenceUID) == labels.frame_of_reference_uid, "the frame of reference")
        corners = _corners(source.ImagePositionPatient, source.ImageOrientationPatient, source.PixelSpacing, source)
        planes.add(_plane(labels, corners, _SLICE_TOLERANCE_VOXELS, "the label map does not lie on the source"))
    _require(len(planes) == len(sources), "two source slices fall on one slice of the label map")


def _corners(position: Any, orientation: Any, spacing: Any, matrix: pydicom.Dataset) -> Floats:
    """Patient coordinates of the centres of three corner pixels: first, last of the first column, last of the row."""
    first = np.array(position, dtype=np.float64)
    cosines = np.array(orientation, dtype=np.float64)
    right = cosines[:3] * float(spacing[1]) * (matrix.Columns - 1)
    down = cosines[3:] * float(spacing[0]) * (matrix.Rows - 1)
    return np.array([first, first + down, first + right])


def _plane(labels: _Labels, corners: Floats, slice_tolerance: float, what: str) -> int:
    """The slice of the label map on which these corners lie, as its own corners do."""
    found = labels.indices(corners)
    plane = int(np.rint(found[0, 0]))
    _, rows, columns = labels.array.shape
    expected = np.array([[plane, 0, 0], [plane, rows - 1, 0], [plane, 0, columns - 1]], dtype=np.float64)
    off = np.abs(found - expected)
    _require(bool(np.all(off[:, 1:] <= _TOLERANCE_VOXELS) and np.all(off[:, 0] <= slice_tolerance)), what)
    _require(0 <= plane < labels.array.shape[0], what)
    return plane


def _verify_finding(
    finding: FindingRecord, record: CompletionRecord, folder: Path, sources: Sequence[pydicom.Dataset]
) -> VerifiedObject:
    labels, one = _read_labels(finding, folder), finding.object
    _check_grid(labels, sources)
    path = folder / Path(one.file).name
    dataset = pydicom.dcmread(io.BytesIO(_read_checked(path, one.digest)))
    _check_identity(dataset, one, sources)
    _check_place_in_job(dataset, finding, record, sources)
    _check_segments(dataset, finding)
    _check_voxels(dataset, labels, finding.segments)
    return VerifiedObject(
        path=path,
        role=finding.role,
        digest=one.digest,
        sop_class_uid=UID(one.sop_class_uid),
        sop_instance_uid=UID(one.sop_instance_uid),
        series_instance_uid=UID(one.series_instance_uid),
        transfer_syntax_uid=UID(str(dataset.file_meta.TransferSyntaxUID)),
    )


def _check_identity(dataset: pydicom.Dataset, one: ObjectRecord, sources: Sequence[pydicom.Dataset]) -> None:
    """UIDs are the record's and new; patient, study and place are the source's."""
    meta = dataset.file_meta
    for keyword, expected in (
        ("SOPClassUID", one.sop_class_uid),
        ("SOPInstanceUID", one.sop_instance_uid),
        ("SeriesInstanceUID", one.series_instance_uid),
    ):
        _require(dataset[keyword].value == expected, f"its {keyword} is not the record's")
    _require(dataset.SOPClassUID == SegmentationStorage, "it is no Segmentation")
    _require(
        (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID) == (one.sop_class_uid, one.sop_instance_uid),
        "its file meta information names another instance",
    )
    for source in sources:
        for keyword in _SAME_AS_SOURCE:
            same = str(dataset.get(keyword, "") or "") == str(source.get(keyword, "") or "")
            _require(same, f"its {keyword} is not the source's")
        _require(dataset.SeriesInstanceUID != source.SeriesInstanceUID, "it has its source's series UID")
    known = {str(source.SOPInstanceUID) for source in sources}
    _require(str(dataset.SOPInstanceUID) not in known, "it has a source's instance UID")


def _check_place_in_job(
    dataset: pydicom.Dataset, finding: FindingRecord, record: CompletionRecord, sources: Sequence[pydicom.Dataset]
) -> None:
    """UIDs follow from the job; it refers to exactly its source instances, and to what prompted it."""
    identity, is_second = record.identity, finding.role == "generalist"
    own = generalist_identity(identity) if is_second else identity
    found = (finding.object.series_instance_uid, finding.object.sop_instance_uid)
    _require(found == (series_uid(own), instance_uid(own)), "its UIDs do not follow from its job")
    expected = {str(sources[0].SeriesInstanceUID): {str(source.SOPInstanceUID) for source in sources}}
    prompts = {instance_uid(identity): series_uid(identity)} if is_second else record.prompted_by
    for instance, series in prompts.items():
        expected.setdefault(str(series), set()).add(str(instance))
    referenced = {
        str(series.SeriesInstanceUID): {
            str(item.ReferencedSOPInstanceUID) for item in series.ReferencedInstanceSequence
        }
        for series in dataset.ReferencedSeriesSequence
    }
    _require(len(referenced) == len(dataset.ReferencedSeriesSequence), "it refers to a series twice")
    _require(referenced == expected, "it does not refer to exactly its source instances and what prompted it")


def _check_segments(dataset: pydicom.Dataset, finding: FindingRecord) -> None:
    """Numbers, labels and codes are the record's, and the algorithm is the model whose weights computed it."""
    found = [
        (int(item.SegmentNumber), str(item.SegmentLabel), _code_text(item.SegmentedPropertyTypeCodeSequence[0]))
        for item in dataset.SegmentSequence
    ]
    expected = [(segment.number, segment.label, segment.code) for segment in finding.segments]
    _require(found == expected, "its segments are not the record's")
    for item in dataset.SegmentSequence:
        (algorithm,) = item.SegmentationAlgorithmIdentificationSequence
        _require(algorithm.AlgorithmVersion == finding.model.version, "it names another version of the model")
        _require(finding.model.weights_digest in algorithm.AlgorithmParameters, "it names other weights")


def _code_text(code: pydicom.Dataset) -> str:
    return f'({code.CodeValue}, {code.CodingSchemeDesignator}, "{code.CodeMeaning}")'


def _check_voxels(dataset: pydicom.Dataset, labels: _Labels, segments: Sequence[SegmentRecord]) -> None:
    """Each frame is its slice of the label map, and what has no frame is empty."""
    (shared,) = dataset.SharedFunctionalGroupsSequence
    values = {segment.number: segment.label_value for segment in segments}
    shown: list[set[int]] = [set() for _ in labels.array]
    for groups, frame in zip(dataset.PerFrameFunctionalGroupsSequence, _frames(dataset), strict=True):
        orientation = _group(groups, shared, "PlaneOrientationSequence").ImageOrientationPatient
        spacing = _group(groups, shared, "PixelMeasuresSequence").PixelSpacing
        position = _group(groups, shared, "PlanePositionSequence").ImagePositionPatient
        number = int(_group(groups, shared, "SegmentIdentificationSequence").ReferencedSegmentNumber)
        corners = _corners(position, orientation, spacing, dataset)
        plane = _plane(labels, corners, _TOLERANCE_VOXELS, "a frame lies elsewhere than the label map's slices")
        _require(values[number] not in shown[plane], "two frames show one slice of a segment")
        shown[plane].add(values[number])
        same = np.array_equal(frame, labels.array[plane] == values[number])
        _require(same, f"the voxels of segment {number} differ")
    described = set(values.values())
    for computed, there in zip(labels.array, shown, strict=True):
        found = set(labels_on(computed).tolist())
        _require(found <= described, "the label map holds a label without a segment")
        _require(found <= there, f"frames of the label values {sorted(found - there)[:10]} are missing")


def _frames(dataset: pydicom.Dataset) -> Iterator[NDArray[np.bool_]]:
    """Yield the frames of a BINARY Segmentation, one at a time.

    They are bits, the lowest of a byte first, and follow each other without padding (PS3.5 sections 8.1.1 and 8.2):
    only the first is sure to begin with a byte, which pydicom's own frame by frame reading takes for granted.
    """
    size = dataset.Rows * dataset.Columns
    pixels = np.frombuffer(dataset.PixelData, np.uint8)
    _require(dataset.BitsAllocated == 1, "its pixels are not bits")
    _require(len(pixels) >= -(-size * dataset.NumberOfFrames // 8), "its pixel data is cut off")
    for start in range(0, size * dataset.NumberOfFrames, size):
        bits = np.unpackbits(pixels[start // 8 : -(-(start + size) // 8)], bitorder="little")
        yield bits[start % 8 : start % 8 + size].reshape(dataset.Rows, dataset.Columns).astype(np.bool_)


def _group(groups: pydicom.Dataset, shared: pydicom.Dataset, keyword: str) -> pydicom.Dataset:
    item: pydicom.Dataset = (groups if keyword in groups else shared)[keyword].value[0]
    return item
