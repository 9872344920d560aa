"""The operator graph: a series in (or one a channel of the model), a DICOM Segmentation and the completion record out.

::

    SeriesVolumeOperator      --series-->           NnUNetOperator, SegmentationWriterOperator
    NnUNetOperator            --labels-->           SegmentationWriterOperator, CompletionRecordOperator
    SegmentationWriterOperator  --written-->        CompletionRecordOperator

Each operator receives every port and emits on every path: Holoscan's ``run()`` returns normally though an operator
never ran, so a run has succeeded only when the record that the last one writes is there.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import highdicom
import numpy as np

import operators.sdk as sdk  # first: it prepares what must be true before the SDK is imported
from app.graph import (
    LABELS_FILE,
    RECORD_FILE,
    CompletionRecord,
    GraphRequest,
    LabelsRecord,
    ModelRecord,
    ObjectRecord,
    SegmentRecord,
)
from operators.durable import write_durably
from operators.label_maps import label_counts, voxel_millilitres
from operators.model_package import ModelPackage
from operators.nnunet.operator import NnUNetOperator
from operators.segmentation_writer import Algorithm, SegmentationWriterOperator, WrittenObject
from operators.segments import SegmentSpec, load_segments, load_series_description
from operators.series_volume import SeriesVolumeOperator

__all__ = ["CompletionRecordOperator", "GraphRequest", "SegmentationApp"]

Progress = Callable[[str, int, int], None]
"""Told the step (``read``, ``infer``, ``write``), what is done of it and how much there is."""
STEPS = ("read", "infer", "write")


class SegmentationApp(sdk.Application):
    """One series, or one a channel, through one model.

    Parameters
    ----------
    request
        What to run.
    progress
        Told how far it is.
    """

    def __init__(self, request: GraphRequest, progress: Progress) -> None:
        self._request = request
        self._steps = _Steps(progress)
        # given a command line of its own: Holoscan would parse the server's otherwise
        super().__init__(argv=[sys.executable, "limner"])

    def compose(self) -> None:
        """Make the operators and join them. Raises what loading the model raises."""
        request = self._request
        package = ModelPackage.load(request.model_folder)
        segments = load_segments(package.segments_path)
        described = load_series_description(package.segments_path) or package.algorithm_name
        read = SeriesVolumeOperator(
            self,
            sdk.CountCondition(self, 1),  # a source without it repeats for ever
            inputs={one.channel: one.files for one in request.inputs},
            progress=self._steps.of("read"),
            name="read",
        )
        infer = NnUNetOperator(
            self,
            package=package,
            triton_target=request.triton_target,
            request_seconds=request.request_seconds,
            shared_memory=request.shared_memory,
            progress=self._steps.of("infer"),
            scratch_folder=request.output_folder,
            name="infer",
        )
        write = SegmentationWriterOperator(
            self,
            segments=segments,
            algorithm=Algorithm(package.algorithm_name, package.version, package.weights_digest),
            identity=request.identity,
            series_description=request.series_description or described,
            folder=request.output_folder,
            progress=self._steps.of("write"),
            name="write",
        )
        complete = CompletionRecordOperator(
            self, request=request, package=package, segments=segments, steps=self._steps, name="complete"
        )
        self.add_flow(read, infer, {("series", "series")})
        self.add_flow(read, write, {("series", "series")})
        self.add_flow(infer, write, {("labels", "labels")})
        self.add_flow(infer, complete, {("labels", "labels")})
        self.add_flow(write, complete, {("written", "written")})


class CompletionRecordOperator(sdk.Operator):
    """Write the label map, then the completion record: the sink of the graph.

    Input ports ``labels``: a ``highdicom.Volume`` of uint8 or uint16; ``written``: the object made of it.
    """

    def __init__(
        self,
        fragment: sdk.Fragment,
        *args: Any,
        request: GraphRequest,
        package: ModelPackage,
        segments: Sequence[SegmentSpec],
        steps: _Steps,
        **kwargs: Any,
    ) -> None:
        self._request = request
        self._package = package
        self._segments = tuple(segments)
        self._steps = steps
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: sdk.OperatorSpec) -> None:
        """Declare the ports."""
        spec.input("labels")
        spec.input("written")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Receive labels and object, write label map and record."""
        labels: highdicom.Volume = op_input.receive("labels")
        written: WrittenObject = op_input.receive("written")
        folder, package = self._request.output_folder, self._package
        record = CompletionRecord(
            identity=self._request.identity,
            objects=(object_record(written),),
            labels=LabelsRecord(LABELS_FILE, write_labels(folder / LABELS_FILE, labels)),
            segments=segment_records(labels, self._segments),
            model=ModelRecord(package.name, package.version, package.weights_digest),
            steps=self._steps.seconds(),
        )
        write_durably(folder / RECORD_FILE, record.to_json())


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


def object_record(written: WrittenObject) -> ObjectRecord:
    """Return what the completion record says of an object."""
    return ObjectRecord(
        file=written.path.name,
        sop_class_uid=written.sop_class_uid,
        sop_instance_uid=written.sop_instance_uid,
        series_instance_uid=written.series_instance_uid,
        digest=written.digest,
    )


class _Steps:
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
        return {
            "read": round(read_end - self._began, 3),
            "infer": round(infer_end - read_end, 3),
            "write": round(now - infer_end, 3),
        }
