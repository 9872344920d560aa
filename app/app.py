"""The operator graph: a series in (or one a channel of the model), DICOM objects and the completion record out.

::

    SeriesVolumeOperator        --series-->           NnUNetOperator, ResultsWriterOperator
    SeriesVolumeOperator        --series-->           CompletionRecordOperator, for what the gate noted
    NnUNetOperator              --labels-->           ResultsWriterOperator, CompletionRecordOperator
    ResultsWriterOperator       --written-->          CompletionRecordOperator

and, where the request names a generalist, the same of what that finds and how far the two agree::

    SeriesVolumeOperator        --series-->           GeneralistOperator, GeneralistRecordOperator
    CompletionRecordOperator    --labels-->           GeneralistOperator, GeneralistRecordOperator
    CompletionRecordOperator    --record-->           GeneralistRecordOperator
    GeneralistOperator          --labels, package-->  GeneralistRecordOperator

Each operator receives every port and emits on every path: Holoscan's ``run()`` returns normally though an operator
never ran, so a run has succeeded only when the record that the last one writes is there.
"""

from __future__ import annotations

import sys

import operators.sdk as sdk  # first: it prepares what must be true before the SDK is imported
from app.graph import GeneralistRequest, GraphRequest
from app.recording import CompletionRecordOperator, GeneralistRecordOperator, Progress, Steps
from operators.gate.gate import Gate
from operators.gate.policies import GatePolicies
from operators.model_package import ModelPackage
from operators.nnunet.fingerprint import intensity_ranges
from operators.nnunet.operator import NnUNetOperator
from operators.results.finding import Algorithm
from operators.results.operator import ResultsWriterOperator
from operators.sam.operator import KEEP_NOTHING, GeneralistOperator
from operators.segments import SegmentSpec, load_segments, load_series_description
from operators.series_volume_operator import SeriesVolumeOperator

__all__ = ["GraphRequest", "SegmentationApp"]


class SegmentationApp(sdk.Application):
    """One series, or one a channel, through one model; and through a generalist that its result prompts.

    Parameters
    ----------
    request
        What to run.
    progress
        Told how far it is.
    """

    def __init__(self, request: GraphRequest, progress: Progress) -> None:
        self._request = request
        self._steps = Steps(progress)
        # given a command line of its own: Holoscan would parse the server's otherwise
        super().__init__(argv=[sys.executable, "limner"])

    def compose(self) -> None:
        """Make the operators and join them. Raises what loading the specialist raises."""
        request = self._request
        package = ModelPackage.load(request.model_folder)
        segments = load_segments(package.segments_path)
        described = load_series_description(package.segments_path) or package.algorithm_name
        read = SeriesVolumeOperator(
            self,
            sdk.CountCondition(self, 1),  # a source without it repeats for ever
            inputs={one.channel: one.files for one in request.inputs},
            progress=self._steps.of("read"),
            gate=_gate(request, package),
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
            probabilities_path=request.probabilities_path,
            name="infer",
        )
        algorithm = Algorithm(package.algorithm_name, package.version, package.weights_digest)
        write = ResultsWriterOperator(
            self,
            segments=segments,
            algorithm=algorithm,
            identity=request.identity,
            series_description=request.described(described),
            replaces=request.replaces.get("specialist", ()),
            kinds=request.kinds,
            folder=request.output_folder,
            probabilities_path=request.probabilities_path,
            progress=self._steps.of("write"),
            name="write",
        )
        complete = CompletionRecordOperator(
            self, request=request, package=package, segments=segments, steps=self._steps, name="complete"
        )
        self.add_flow(read, infer, {("series", "series")})
        self.add_flow(read, write, {("series", "series")})
        self.add_flow(read, complete, {("series", "series")})
        self.add_flow(infer, write, {("labels", "labels")})
        self.add_flow(infer, complete, {("labels", "labels")})
        self.add_flow(write, complete, {("written", "written")})
        if request.generalist is not None:
            description = request.described(described)
            self._follow(request.generalist, read, complete, algorithm, segments, description)

    def _follow(
        self,
        generalist: GeneralistRequest,
        read: SeriesVolumeOperator,
        complete: CompletionRecordOperator,
        algorithm: Algorithm,
        segments: tuple[SegmentSpec, ...],
        series_description: str,
    ) -> None:
        """Have a generalist segment what the specialist found, as soon as the specialist's record is on disk."""
        request = self._request
        kept = generalist.embeddings
        prompt = GeneralistOperator(
            self,
            model_folder=generalist.model_folder,
            windows={segment.label_value: generalist.window_for(segment.label) for segment in segments},
            prompts=generalist.prompts,
            box_margin_pixels=generalist.box_margin_pixels,
            triton_target=request.triton_target,
            request_seconds=request.request_seconds,
            shared_memory=request.shared_memory,
            embeddings_folder=request.output_folder / "embeddings" if kept is None else kept.folder,
            embedding_bytes=KEEP_NOTHING if kept is None else kept.most_bytes,
            progress=self._steps.of("generalist"),
            name="prompt",
        )
        compare = GeneralistRecordOperator(
            self,
            request=request,
            generalist=generalist,
            algorithm=algorithm,
            segments=segments,
            series_description=series_description,
            steps=self._steps,
            name="compare",
        )
        self.add_flow(read, prompt, {("series", "series")})
        self.add_flow(complete, prompt, {("labels", "labels")})
        self.add_flow(read, compare, {("series", "series")})
        self.add_flow(complete, compare, {("labels", "specialist"), ("record", "record")})
        self.add_flow(prompt, compare, {("labels", "labels"), ("package", "package")})


def _gate(request: GraphRequest, package: ModelPackage) -> Gate:
    """What the model's card and the pipeline want of a series."""
    return Gate(
        intended=package.intended_use,
        policies=GatePolicies(request.gate.policies),
        take=request.gate.take,
        ranges=intensity_ranges(package),
    )
