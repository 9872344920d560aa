"""Results read back from disk and held against what was computed, where it lies in the patient, and whose it is.

Each finding has an object and a label map of its own, and both are read: a generalist's as a specialist's.

Placement is checked by the numbers of the file alone (PS3.3 C.7.6.2.1.1), not through the library that wrote it: each
frame's corners must fall on the label map's grid, the label map's grid on the source's slices, every voxel of every
segment must be the label map's, and a frame must name the source's slice of its place as what it was derived from.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import pydicom
from pydicom.uid import ImplicitVRLittleEndian

from app.errors import VerificationFailed
from app.graph import CompletionRecord, FindingRecord, ObjectRecord, Role
from app.identifiers import UID
from app.jobs.host_faults import is_of_the_host
from app.jobs.readback.computed import ComputedLabels, require
from app.jobs.readback.objects import Proof
from app.jobs.readback.sources import SOURCE_KEYWORDS, check_grid
from operators.derived_uids import (
    generalist_identity,
    instance_uid,
    object_instance_uid,
    object_series_uid,
    series_uid,
)
from operators.gate.policies import CHECKS
from operators.headers import read_before_pixels
from operators.label_maps import is_label_type, label_counts
from operators.model_folder import file_digest
from operators.object_kinds import NEEDS, REPORTS, SEGMENTATIONS, Kind
from operators.parse_errors import PARSE_ERRORS

_SOURCE_KEYWORDS = (
    "SpecificCharacterSet",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    *SOURCE_KEYWORDS,
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
_PLACED_BY_REFERENCE: tuple[Kind, ...] = (*REPORTS, "presentation-state", "capture")
"""Kinds that may have no frame of reference of their own: what they refer to lies in it."""


@dataclass(frozen=True)
class VerifiedObject:
    """An object that was read back and is what it should be."""

    path: Path
    kind: Kind
    role: Role
    """The model's that made it."""
    digest: str
    """SHA-256 of the file, 64 hexadecimal digits."""
    sop_class_uid: UID
    sop_instance_uid: UID
    series_instance_uid: UID
    transfer_syntax_uid: UID


def verify_results(record: CompletionRecord, folder: Path, source_files: Sequence[Path]) -> tuple[VerifiedObject, ...]:
    """Read back every object of `record` in `folder`, and return them if each is what the graph computed.

    Parameters
    ----------
    source_files
        The instances that the graph was given.

    Raises
    ------
    VerificationFailed
        If a file is missing, changed or unreadable; if patient, study or frame of reference are not the source's; if
        a segment, voxel, position or figure is not what was computed.
    OSError, MemoryError
        If this host can't read it now.
    """
    if [finding.role for finding in record.findings] not in (["specialist"], ["specialist", "generalist"]):
        raise VerificationFailed(
            "the completion record must name a specialist's finding, and after it at most a generalist's; a graph that "
            "found nothing still writes an object"
        )
    try:
        sources = _kept([read_before_pixels(path, _SOURCE_KEYWORDS) for path in source_files], record)
        return tuple(one for finding in record.findings for one in _verify_finding(finding, record, folder, sources))
    except (OSError, IndexError, *PARSE_ERRORS) as error:
        if is_of_the_host(error):
            raise  # it says nothing of the result, which may be good
        # what is missing or mangled shows as any of these; the text of some holds values
        raise VerificationFailed(
            f"a result can't be read back as what it should be ({type(error).__name__})"
        ) from error


def _kept(sources: Sequence[pydicom.Dataset], record: CompletionRecord) -> list[pydicom.Dataset]:
    """The sources without the instances that the gate left out of the series; of others, frames may be left out."""
    touched = [source for source in sources if str(source.SOPInstanceUID) in record.dropped]
    says_why = any(note.code in CHECKS for note in record.notes)
    require(not touched or says_why, "instances were left out, and no note says why")
    kept = [source for source in sources if record.dropped.get(str(source.SOPInstanceUID)) != ()]
    require(bool(kept), "the record says that the gate left every instance out")
    return kept


def _read_checked(path: Path, digest: str) -> bytes:
    content = path.read_bytes()
    require(hashlib.sha256(content).hexdigest() == digest, f"{path.name} is not the file that was written")
    return content


def _read_labels(finding: FindingRecord, folder: Path) -> ComputedLabels:
    content = _read_checked(folder / Path(finding.labels.file).name, finding.labels.digest)
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        labels = ComputedLabels(stored["labels"], stored["affine"], str(stored["frame_of_reference_uid"]))
    require(is_label_type(labels.array.dtype), "the label map is neither of type uint8 nor of type uint16")
    counts = label_counts(labels.array)
    for segment in finding.segments:
        same = int(counts[segment.label_value]) == segment.voxels
        require(same, f"the record counts other voxels of segment {segment.number}")
    return labels


def _verify_finding(
    finding: FindingRecord, record: CompletionRecord, folder: Path, sources: Sequence[pydicom.Dataset]
) -> Iterator[VerifiedObject]:
    labels = _read_labels(finding, folder)
    slices = check_grid(labels, sources, record.dropped)
    require(finding.objects[0].kind == "segmentation", "its first object is no BINARY Segmentation")
    proof = Proof(labels, finding, sources, slices, list(_prompts(finding, record)), _probabilities(finding, folder))
    by_kind: dict[Kind, list[ObjectRecord]] = {}
    for one in sorted(finding.objects, key=lambda each: each.kind in REPORTS):  # these refer to others
        by_kind.setdefault(one.kind, []).append(one)
    for kind, objects in by_kind.items():
        datasets = _Objects(objects, folder)
        syntaxes = []
        for number, (one, dataset) in enumerate(zip(objects, datasets, strict=True), start=1):
            _check_identity(dataset, one, sources)
            _check_place_in_job(dataset, finding, one, number, record, sources)
            syntaxes.append(UID(str(dataset.file_meta.TransferSyntaxUID)))
        proof.check(kind, datasets)
        for one, transfer_syntax_uid in zip(objects, syntaxes, strict=True):
            yield VerifiedObject(
                path=_path_of(one, folder),
                kind=kind,
                role=finding.role,
                digest=one.digest,
                sop_class_uid=UID(one.sop_class_uid),
                sop_instance_uid=UID(one.sop_instance_uid),
                series_instance_uid=UID(one.series_instance_uid),
                transfer_syntax_uid=transfer_syntax_uid,
            )


def _probabilities(finding: FindingRecord, folder: Path) -> Path | None:
    """The file of probabilities, if there is one and it is what was written."""
    if finding.probabilities is None:
        return None
    path = folder / Path(finding.probabilities.file).name
    require(file_digest(path) == finding.probabilities.digest, f"{path.name} is not the file that was written")
    return path


class _Objects(Sequence[pydicom.Dataset]):
    """Objects that are read when they are looked at: pictures together are hundreds of megabytes."""

    def __init__(self, objects: Sequence[ObjectRecord], folder: Path) -> None:
        self._objects = objects
        self._folder = folder
        self._last: tuple[int, pydicom.Dataset] | None = None

    def __len__(self) -> int:
        return len(self._objects)

    @overload
    def __getitem__(self, index: int) -> pydicom.Dataset: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[pydicom.Dataset]: ...
    def __getitem__(self, index: int | slice) -> pydicom.Dataset | Sequence[pydicom.Dataset]:
        if isinstance(index, slice):
            return _Objects(self._objects[index], self._folder)
        if self._last is None or self._last[0] != index:
            one = self._objects[index]
            content = _read_checked(_path_of(one, self._folder), one.digest)
            self._last = index, pydicom.dcmread(io.BytesIO(content))
        return self._last[1]


def _path_of(one: ObjectRecord, folder: Path) -> Path:
    return folder / Path(one.file).name


def _check_identity(dataset: pydicom.Dataset, one: ObjectRecord, sources: Sequence[pydicom.Dataset]) -> None:
    """UIDs are the record's and new; patient, study and place are the source's."""
    meta = dataset.file_meta
    for keyword, expected in (
        ("SOPClassUID", one.sop_class_uid),
        ("SOPInstanceUID", one.sop_instance_uid),
        ("SeriesInstanceUID", one.series_instance_uid),
    ):
        require(dataset[keyword].value == expected, f"its {keyword} is not the record's")
    sop_class, transfer_syntax = NEEDS[one.kind]
    syntaxes = (transfer_syntax, ImplicitVRLittleEndian)  # contours may be too long for an explicit VR
    same_kind = dataset.SOPClassUID == sop_class and meta.TransferSyntaxUID in syntaxes
    require(same_kind, f"it is no {one.kind} as the receivers are asked for")
    require(
        (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID) == (one.sop_class_uid, one.sop_instance_uid),
        "its file meta information names another instance",
    )
    for source in sources:
        for keyword in _SAME_AS_SOURCE:
            if keyword == "FrameOfReferenceUID" and keyword not in dataset and one.kind in _PLACED_BY_REFERENCE:
                continue
            same = str(dataset.get(keyword, "") or "") == str(source.get(keyword, "") or "")
            require(same, f"its {keyword} is not the source's")
        require(dataset.SeriesInstanceUID != source.SeriesInstanceUID, "it has its source's series UID")
    known = {str(source.SOPInstanceUID) for source in sources}
    require(str(dataset.SOPInstanceUID) not in known, "it has a source's instance UID")


def _prompts(finding: FindingRecord, record: CompletionRecord) -> Mapping[str, str]:
    """What prompted the model: Series Instance UID by SOP Instance UID."""
    if finding.role == "generalist":
        return {str(instance_uid(record.identity)): str(series_uid(record.identity))}
    return record.prompted_by


def _check_place_in_job(
    dataset: pydicom.Dataset,
    finding: FindingRecord,
    one: ObjectRecord,
    number: int,
    record: CompletionRecord,
    sources: Sequence[pydicom.Dataset],
) -> None:
    """UIDs follow from the job; a Segmentation refers to exactly its source instances, and to what prompted it."""
    identity, is_second = record.identity, finding.role == "generalist"
    own = generalist_identity(identity) if is_second else identity
    found = (one.series_instance_uid, one.sop_instance_uid)
    derived = (object_series_uid(own, one.kind), object_instance_uid(own, one.kind, number))
    require(found == derived, "its UIDs do not follow from its job")
    if one.kind not in SEGMENTATIONS:
        return
    expected = {str(sources[0].SeriesInstanceUID): {str(source.SOPInstanceUID) for source in sources}}
    for instance, series in _prompts(finding, record).items():
        expected.setdefault(str(series), set()).add(str(instance))
    referenced = {
        str(series.SeriesInstanceUID): {
            str(item.ReferencedSOPInstanceUID) for item in series.ReferencedInstanceSequence
        }
        for series in dataset.ReferencedSeriesSequence
    }
    require(len(referenced) == len(dataset.ReferencedSeriesSequence), "it refers to a series twice")
    require(referenced == expected, "it does not refer to exactly its source instances and what prompted it")
