"""A generalist as a step of a MONAI Deploy graph: a series and a specialist's labels in, its own labels out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import highdicom

from operators.label_maps import check_place
from operators.sam.embeddings import EmbeddingCache
from operators.sam.guided import check_prompts, guided_labels
from operators.sam.network import open_networks, served_predictor
from operators.sam.package import GeneralistPackage
from operators.sam.prompts import SegmentPrompts
from operators.sam.showing import shown_segments
from operators.sdk import Fragment, Operator, OperatorSpec
from operators.series_volume import SeriesVolume

KEEP_NOTHING = 0
"""Of embeddings, for a run by itself: it asks about each slice once in each window, with all its segments there."""


class GeneralistOperator(Operator):
    """Segment anew what a specialist found, with a model of the SAM family that its segments prompt.

    Input ports ``series``: a `SeriesVolume`, of which the first channel is shown; ``labels``: the specialist's, a
    ``highdicom.Volume`` of uint8 or uint16 on its grid.
    Output ports ``labels``: the generalist's, of the same geometry and type; ``package``: the `GeneralistPackage`.

    The model's folder is read when the labels are there, and not before: a folder that can't be used does not stop the
    specialist.

    Parameters
    ----------
    model_folder
        Of the generalist.
    windows
        By the label values of the specialist's segments, what the series is shown in for each, as settings have it
        (`operators.sam.windowing.asked_window`).
    prompts
        What each segment is shown by.
    box_margin_pixels
        How much larger than what the specialist found a box is, on each side.
    triton_target, request_seconds, shared_memory
        Where and how the networks are asked.
    embeddings_folder, embedding_bytes
        Where embeddings are kept, and what all in that folder may take on disk: a server's, for a person who prompts on
        one of the slices later, and for a run that is repeated.
    progress
        Told the slices done and the slices in all.
    """

    def __init__(
        self,
        fragment: Fragment,
        *args: Any,
        model_folder: Path,
        windows: Mapping[int, str],
        prompts: SegmentPrompts,
        box_margin_pixels: float,
        triton_target: str,
        request_seconds: float,
        shared_memory: bool,
        embeddings_folder: Path,
        embedding_bytes: int,
        progress: Callable[[int, int], None],
        **kwargs: Any,
    ) -> None:
        self._model_folder = model_folder
        self._windows = dict(windows)
        self._prompts = prompts
        self._margin = box_margin_pixels
        self._triton_target = triton_target
        self._request_seconds = request_seconds
        self._shared_memory = shared_memory
        self._embeddings_folder = embeddings_folder
        self._embedding_bytes = embedding_bytes
        self._progress = progress
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """Declare the ports."""
        spec.input("series")
        spec.input("labels")
        spec.output("labels")
        spec.output("package")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Receive series and labels, prompt with them, emit labels and package."""
        series: SeriesVolume = op_input.receive("series")
        labels: highdicom.Volume = op_input.receive("labels")
        check_place(labels, series.volume)
        package = GeneralistPackage.load(self._model_folder)
        check_prompts(package, self._prompts)
        with open_networks(
            package,
            self._triton_target,
            deadline_seconds=self._request_seconds,
            shared_memory=self._shared_memory,
        ) as networks:
            cache = EmbeddingCache(self._embeddings_folder, most_bytes=self._embedding_bytes)
            found = guided_labels(
                labels,
                shown_segments(series, self._windows),
                served_predictor(package, networks, cache),
                prompts=self._prompts,
                margin=self._margin,
                progress=self._progress,
            )
        op_output.emit(found, "labels")
        op_output.emit(package, "package")
