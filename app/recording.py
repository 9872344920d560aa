"""The operators at the end of a graph: label maps, completion records, and a generalist's result with its agreement.

A run has succeeded when its completion record is there, whatever ``run()`` returned. Where a generalist follows, the
specialist's own record is on disk before the generalist begins (`app.graph.specialist_alone`).
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom
import numpy as np

import operators.sdk as sdk  # first: it prepares what must be true before the SDK is imported
from app.graph import (
    GENERALIST_LABELS_FILE,
    LABELS_FILE,
    RECORD_FILE,
    SPECIALIST_RECORD_FILE,
    AgreementRecord,
    CompletionRecord,
    FindingRecord,
    GeneralistRequest,
    GraphRequest,
    LabelsRecord,
    ModelRecord,
    ObjectRecord,
    SegmentRecord,
)
from operators.agreement import compare_labels
from operators.agreement_limits import AgreementLimits
from operators.derived_uids import generalist_identity
from operators.durable import write_durably
from operators.label_maps import label_counts, voxel_millilitres
from operators.model_folder import file_digest
from operators.model_package import ModelPackage
from operators.object_kinds import REPORTED, REPORTS
from operators.results.finding import Algorithm, Finding, PromptingObject, WrittenObject
from operators.results.report import write_report
from operators.results.series_description import say_whose
from operators.results.writing import Written, write_results
from operators.sam.objects.labels import shows_boxes
from operators.sam.package import GeneralistPackage
from operators.segments import SegmentSpec
from operators.series_volume import SeriesVolume

Progress = Callable[[str, int, int], None]
"""Told the step (``read``, ``infer``, ``write``, ``generalist``), what is done of it and how much there is."""
STEPS = ("read", "infer", "write", "generalist")
BY_MODALITY = "by modality"
"""How results name the window where settings name none (`operators.sam.showing.shown_series`)."""
GENERALIST_PREFIX = "generalist-"
"""Of the files of its objects."""


class Steps:
    """Passes progress on, and notes when: steps end where the next begins."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._began = time.monotonic()
        self._reports: dict[str, list[float]] = {step: [] for step in STEPS}

    def of(self, step: str) -> Callable[[int, int], None]:
        """Return the function that one operator reports to."""

        def report(done: int, total: int) -> None:
            self._reports[step].append(time.monotonic())
            self._progress(step, done, total)

        return report

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each step; called when all have reported, during the last."""
        now = time.monotonic()
        read_end = max(self._reports["read"], default=now)
        infer_end = min(self._reports["write"], default=now)  # what follows the last tile belongs to it
        write_end = min(self._reports["generalist"], default=now)
        seconds = {
            "read": round(read_end - self._began, 3),
            "infer": round(infer_end - read_end, 3),
            "write": round(write_end - infer_end, 3),
        }
        return {**seconds, "generalist": round(now - write_end, 3)} if self._reports["generalist"] else seconds


class CompletionRecordOperator(sdk.Operator):
    """Write the specialist's label map and record: the sink of the graph, or what a generalist waits for.

    Input ports ``series``: a `SeriesVolume`; ``labels``: a ``highdicom.Volume`` of uint8 or uint16; ``written``: the
    objects made of it, by kind.
    Output ports, where a generalist follows, ``labels``: the same, and ``record``: the `CompletionRecord`.
    """

    def __init__(
        self,
        fragment: sdk.Fragment,
        *args: Any,
        request: GraphRequest,
        package: ModelPackage,
        segments: Sequence[SegmentSpec],
        steps: Steps,
        **kwargs: Any,
    ) -> None:
        self._request = request
        self._package = package
        self._segments = tuple(segments)
        self._steps = steps
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: sdk.OperatorSpec) -> None:
        """Declare the ports."""
        spec.input("series")
        spec.input("labels")
        spec.input("written")
        if self._request.generalist is not None:
            spec.output("labels")
            spec.output("record")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Receive series, labels and objects, write label map and record."""
        series: SeriesVolume = op_input.receive("series")
        labels: highdicom.Volume = op_input.receive("labels")
        written: Written = op_input.receive("written")
        folder, package = self._request.output_folder, self._package
        finding = FindingRecord(
            role="specialist",
            objects=object_records(written),
            labels=LabelsRecord(LABELS_FILE, write_labels(folder / LABELS_FILE, labels)),
            segments=segment_records(labels, self._segments),
            model=ModelRecord(package.name, package.version, package.weights_digest),
            probabilities=_probabilities_record(self._request.probabilities_path),
        )
        record = CompletionRecord(
            self._request.identity,
            (finding,),
            steps=self._steps.seconds(),
            notes=series.notes,
            dropped=series.dropped,
        )
        if self._request.generalist is None:
            write_durably(folder / RECORD_FILE, record.to_json())
            return
        write_durably(folder / SPECIALIST_RECORD_FILE, record.to_json())
        op_output.emit(labels, "labels")
        op_output.emit(record, "record")


class GeneralistRecordOperator(sdk.Operator):
    """Write what the generalist found, how far it agrees with the specialist, and the completion record: the sink.

    Input ports ``series``: a `SeriesVolume`; ``record``: the specialist's `CompletionRecord`; ``specialist``: its
    labels; ``labels``: the generalist's; ``package``: the `GeneralistPackage`.
    """

    def __init__(
        self,
        fragment: sdk.Fragment,
        *args: Any,
        request: GraphRequest,
        generalist: GeneralistRequest,
        algorithm: Algorithm,
        segments: Sequence[SegmentSpec],
        series_description: str,
        steps: Steps,
        **kwargs: Any,
    ) -> None:
        self._request = request
        self._generalist = generalist
        self._algorithm = algorithm
        self._segments = tuple(segments)
        self._series_description = series_description
        self._steps = steps
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: sdk.OperatorSpec) -> None:
        """Declare the ports."""
        for port in ("series", "record", "specialist", "labels", "package"):
            spec.input(port)

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Receive both results, compare them, write object, label map and record."""
        series: SeriesVolume = op_input.receive("series")
        record: CompletionRecord = op_input.receive("record")
        specialist: highdicom.Volume = op_input.receive("specialist")
        labels: highdicom.Volume = op_input.receive("labels")
        package: GeneralistPackage = op_input.receive("package")
        finding = self._write(series, labels, package)
        agreement = agreement_records(specialist, labels, self._segments, self._generalist.limits)
        findings = (*(self._flagged(one, series, specialist, agreement) for one in record.findings), finding)
        completed = replace(record, findings=findings, agreement=agreement, steps=self._steps.seconds())
        write_durably(self._request.output_folder / RECORD_FILE, completed.to_json())

    def _flagged(
        self,
        record: FindingRecord,
        series: SeriesVolume,
        labels: highdicom.Volume,
        agreement: Sequence[AgreementRecord],
    ) -> FindingRecord:
        """The specialist's finding, its reports saying where the generalist disagrees."""
        notes = [f"A second model disagrees: {one.in_words}" for one in agreement if one.beyond]
        if not notes:
            return record
        request = self._request
        finding = Finding(
            labels,
            series,
            self._segments,
            self._algorithm,
            request.identity,
            self._series_description,
            replaces=request.replaces.get("specialist", ()),
        )
        return with_reports(record, finding, request.output_folder, notes)

    def _write(self, series: SeriesVolume, labels: highdicom.Volume, package: GeneralistPackage) -> FindingRecord:
        request, folder = self._request, self._request.output_folder
        prompting = PromptingObject.of(request.identity)
        asked = _asked(self._generalist, prompting)
        found = Finding(
            labels=labels,
            series=series,
            segments=self._segments,
            algorithm=Algorithm(package.algorithm_name, package.version, package.weights_digest, asked),
            identity=generalist_identity(request.identity),
            series_description=say_whose(self._series_description, package.algorithm_name),
            prompted_by=[prompting],
            replaces=request.replaces.get("generalist", ()),
        )
        written = write_results(found, request.kinds, folder, prefix=GENERALIST_PREFIX)
        return FindingRecord(
            role="generalist",
            objects=object_records(written),
            labels=LabelsRecord(GENERALIST_LABELS_FILE, write_labels(folder / GENERALIST_LABELS_FILE, labels)),
            segments=segment_records(labels, self._segments),
            model=ModelRecord(package.name, package.version, package.weights_digest),
        )


def _asked(generalist: GeneralistRequest, prompting: PromptingObject) -> dict[str, str]:
    """What a generalist was asked, as its results have it among the algorithm's parameters."""
    margin = {"box_margin_pixels": f"{generalist.box_margin_pixels:g}"} if shows_boxes(generalist.prompts) else {}
    return {
        "prompts": generalist.prompts,
        "prompted_by": prompting.sop_instance_uid,
        **margin,
        "window": generalist.window or BY_MODALITY,
        **{f"window of {label}": window or BY_MODALITY for label, window in generalist.windows.items()},
    }


def write_labels(path: Path, labels: highdicom.Volume) -> str:
    """Write a label map with its place in the patient; return the file's SHA-256."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        labels=labels.array,
        affine=labels.affine,
        frame_of_reference_uid=np.array(str(labels.frame_of_reference_uid)),
    )
    return write_durably(path, buffer.getvalue())


def _probabilities_record(path: Path | None) -> LabelsRecord | None:
    return None if path is None else LabelsRecord(path.name, file_digest(path))


def segment_records(labels: highdicom.Volume, segments: Sequence[SegmentSpec]) -> tuple[SegmentRecord, ...]:
    """Return each segment with what was found of it; numbers count as the Segmentation's do."""
    counts = label_counts(labels.array)
    voxel_ml = voxel_millilitres(labels)
    return tuple(
        SegmentRecord(
            number=number,
            label_value=segment.label_value,
            label=segment.label,
            code=str(segment.type),
            voxels=int(counts[segment.label_value]),
            volume_ml=round(float(counts[segment.label_value]) * voxel_ml, 3),
        )
        for number, segment in enumerate(segments, start=1)
    )


def agreement_records(
    specialist: highdicom.Volume, generalist: highdicom.Volume, segments: Sequence[SegmentSpec], limits: AgreementLimits
) -> tuple[AgreementRecord, ...]:
    """Return how far two label maps agree on each segment, and which limits it lies beyond."""
    found = compare_labels(specialist, generalist, [segment.label_value for segment in segments])
    return tuple(
        AgreementRecord(
            number=number,
            label=segment.label,
            dice=round(one.dice, 6),
            distance_mm=None if one.distance_mm is None else round(one.distance_mm, 3),
            difference_ml=round(one.difference_ml, 3),
            difference_percent=None if one.difference_percent is None else round(one.difference_percent, 3),
            beyond=limits.exceeded_by(one),
        )
        for number, (segment, one) in enumerate(zip(segments, found, strict=True), start=1)
    )


def with_reports(record: FindingRecord, finding: Finding, folder: Path, notes: Sequence[str]) -> FindingRecord:
    """Write the reports among a finding's objects once more, with `notes`, beside the first ones, and return it so."""
    there = {one.kind: one for one in record.objects}
    written: Written = {}
    for kind in there:
        if kind in REPORTS:
            referred = _written(there.get(REPORTED.get(kind, kind)), folder)
            path = folder / f"flagged-{kind}.dcm"
            written[kind] = (write_report(finding, referred, path, kind=kind, notes=notes),)
    flagged = {one.kind: one for one in object_records(written)}
    return replace(record, objects=tuple(flagged.get(one.kind, one) for one in record.objects))


def _written(one: ObjectRecord | None, folder: Path) -> WrittenObject | None:
    if one is None or one.kind in REPORTS:
        return None
    return WrittenObject(
        path=folder / one.file,
        digest=one.digest,
        sop_class_uid=one.sop_class_uid,
        sop_instance_uid=one.sop_instance_uid,
        series_instance_uid=one.series_instance_uid,
    )


def object_records(written: Written) -> tuple[ObjectRecord, ...]:
    """Return what the completion record says of objects."""
    return tuple(
        ObjectRecord(
            file=one.path.name,
            kind=kind,
            sop_class_uid=one.sop_class_uid,
            sop_instance_uid=one.sop_instance_uid,
            series_instance_uid=one.series_instance_uid,
            digest=one.digest,
        )
        for kind, some in written.items()
        for one in some
    )
