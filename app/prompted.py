"""The operator graph that annotations prompt: a series and prompt objects in, DICOM objects out.

::

    SeriesVolumeOperator   --series-->   PromptedOperator, PromptedRecordOperator
    PromptedOperator       --found-->    PromptedRecordOperator

A run has succeeded when its completion record is there (`app.app`).
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import operators.sdk as sdk  # first: it prepares what must be true before the SDK is imported
from app.graph import (
    IMAGES_CHANNEL,
    LABELS_FILE,
    PROMPT_CHANNEL,
    RECORD_FILE,
    CompletionRecord,
    FindingRecord,
    GraphRequest,
    LabelsRecord,
    ModelRecord,
)
from app.recording import BY_MODALITY, Progress, Steps, object_records, segment_records, write_labels
from operators.durable import write_durably
from operators.gate.gate import Gate
from operators.gate.policies import GatePolicies
from operators.results.finding import Algorithm, Finding
from operators.results.writing import Written, write_results
from operators.sam.package import GeneralistPackage
from operators.sam.prompted import PromptedLabels
from operators.sam.prompted_operator import RUN_EMBEDDING_BYTES, PromptedOperator
from operators.sam.windowing import asked_window
from operators.series_volume import SeriesVolume
from operators.series_volume_operator import SeriesVolumeOperator


class PromptedApp(sdk.Application):
    """One series through a generalist, prompted by the objects that refer to it.

    Parameters
    ----------
    request
        What to run: its inputs are `app.graph.PROMPTED_CHANNELS`, and it has a `prompt`.
    progress
        Told how far it is.
    """

    def __init__(self, request: GraphRequest, progress: Progress) -> None:
        self._request = request
        self._steps = Steps(progress)
        # given a command line of its own: Holoscan would parse the server's otherwise
        super().__init__(argv=[sys.executable, "limner"])

    def compose(self) -> None:
        """Make the operators and join them. Raises what loading the model raises."""
        request = self._request
        package = GeneralistPackage.load(request.model_folder)
        files = {one.channel: one.files for one in request.inputs}
        kept = request.prompt.embeddings
        read = SeriesVolumeOperator(
            self,
            sdk.CountCondition(self, 1),  # a source without it repeats for ever
            inputs={"": files[IMAGES_CHANNEL]},
            progress=self._steps.of("read"),
            gate=Gate(
                package.intended_use, GatePolicies(request.gate.policies), request.gate.take, takes_single_slice=True
            ),
            name="read",
        )
        infer = PromptedOperator(
            self,
            package=package,
            prompt_files=files[PROMPT_CHANNEL],
            window=asked_window(request.prompt.window),
            reach=request.prompt.reach,
            form=request.prompt.form,
            triton_target=request.triton_target,
            request_seconds=request.request_seconds,
            shared_memory=request.shared_memory,
            embeddings_folder=None if kept is None else kept.folder,
            embedding_bytes=RUN_EMBEDDING_BYTES if kept is None else kept.most_bytes,
            scratch_folder=request.output_folder,
            progress=self._steps.of("infer"),
            name="infer",
        )
        record = PromptedRecordOperator(self, request=request, package=package, steps=self._steps, name="record")
        self.add_flow(read, infer, {("series", "series")})
        self.add_flow(read, record, {("series", "series")})
        self.add_flow(infer, record, {("found", "found")})


class PromptedRecordOperator(sdk.Operator):
    """Write the objects and the label map, then the completion record: the sink of the graph.

    Input ports ``series``: a `SeriesVolume`; ``found``: `PromptedLabels`.
    """

    def __init__(
        self,
        fragment: sdk.Fragment,
        *args: Any,
        request: GraphRequest,
        package: GeneralistPackage,
        steps: Steps,
        **kwargs: Any,
    ) -> None:
        self._request = request
        self._package = package
        self._steps = steps
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: sdk.OperatorSpec) -> None:
        """Declare the ports."""
        spec.input("series")
        spec.input("found")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Receive series and labels, write them, then the record."""
        found: PromptedLabels = op_input.receive("found")
        read: SeriesVolume = op_input.receive("series")
        series = replace(read, notes=(*read.notes, *found.notes))  # reports tell them, as they tell the gate's
        folder, package, report = self._request.output_folder, self._package, self._steps.of("write")
        report(0, 1)
        written = self._write(series, found)
        labels = LabelsRecord(LABELS_FILE, write_labels(folder / LABELS_FILE, found.labels))
        report(1, 1)
        finding = FindingRecord(
            role="specialist",  # the only model of its job, whoever drew what prompted it
            objects=object_records(written),
            labels=labels,
            segments=segment_records(found.labels, found.segments),
            model=ModelRecord(package.name, package.version, package.weights_digest),
        )
        record = CompletionRecord(
            identity=self._request.identity,
            findings=(finding,),
            steps=self._steps.seconds(),
            left_out=tuple(f"{one.number}: {one.code}" for one in found.left_out),
            prompted_by={one.sop_instance_uid: one.series_instance_uid for one in found.prompted_by},
            notes=series.notes,
            dropped=series.dropped,
        )
        write_durably(folder / RECORD_FILE, record.to_json())

    def _write(self, series: SeriesVolume, found: PromptedLabels) -> Written:
        request, package = self._request, self._package
        prompt = request.prompt
        asked = {"window": prompt.window or BY_MODALITY, "reach": prompt.reach, "form": prompt.form}
        finding = Finding(
            labels=found.labels,
            series=series,
            segments=found.segments,
            algorithm=Algorithm(package.algorithm_name, package.version, package.weights_digest, asked),
            identity=request.identity,
            series_description=request.described(package.algorithm_name),
            replaces=request.replaces.get("specialist", ()),
            is_automatic=found.is_automatic,
            prompted_by=found.prompted_by,
        )
        return write_results(finding, request.kinds, request.output_folder)
