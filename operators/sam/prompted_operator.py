"""A generalist that DICOM objects prompt, as a step of a MONAI Deploy graph: a series in, labels and segments out."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from operators.sam.embeddings import EmbeddingCache
from operators.sam.fitting import PromptForm
from operators.sam.network import open_networks, served_predictor
from operators.sam.package import GeneralistPackage
from operators.sam.prompted import PromptReach, prompted_labels, read_prompt_files
from operators.sam.showing import shown_series
from operators.sdk import Fragment, Operator, OperatorSpec
from operators.series_volume import SeriesVolume

RUN_EMBEDDING_BYTES = 2 << 30
"""For embeddings that last as long as a run: with several structures, slices are asked about more than once."""


class PromptedOperator(Operator):
    """Segment what DICOM objects show on a series, with a model of the SAM family.

    Input port ``series``: a `SeriesVolume`, of which the first channel is shown.
    Output port ``found``: `operators.sam.prompted.PromptedLabels`.

    Parameters
    ----------
    package
        The generalist.
    prompt_files
        The objects, one a file.
    window
        What the series is shown in, as `operators.sam.showing.shown_series` takes it.
    reach
        How far a prompt reaches beyond the slices that were drawn on.
    form
        What is shown of outlines and masks.
    triton_target, request_seconds, shared_memory
        Where and how the networks are asked.
    embeddings_folder
        Where embeddings are kept, for later runs and other processes too; None: in `scratch_folder`, during the run.
    embedding_bytes
        What they may take on disk.
    scratch_folder
        What lies there ends with the run.
    progress
        Told the prompts done and the prompts in all.
    """

    def __init__(
        self,
        fragment: Fragment,
        *args: Any,
        package: GeneralistPackage,
        prompt_files: Sequence[Path],
        window: Mapping[str, Any] | None,
        reach: PromptReach,
        form: PromptForm,
        triton_target: str,
        request_seconds: float,
        shared_memory: bool,
        embeddings_folder: Path | None,
        embedding_bytes: int,
        scratch_folder: Path,
        progress: Callable[[int, int], None],
        **kwargs: Any,
    ) -> None:
        self._package = package
        self._prompt_files = tuple(prompt_files)
        self._window = window
        self._reach = reach
        self._form = form
        self._triton_target = triton_target
        self._request_seconds = request_seconds
        self._shared_memory = shared_memory
        self._embeddings_folder = embeddings_folder
        self._embedding_bytes = embedding_bytes
        self._scratch_folder = scratch_folder
        self._progress = progress
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """Declare the ports."""
        spec.input("series")
        spec.output("found")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Receive the series, read the prompts, ask the generalist, emit what it found."""
        series: SeriesVolume = op_input.receive("series")
        package = self._package
        read = read_prompt_files(self._prompt_files)
        shown, _ = shown_series(series, self._window)
        with (
            self._folder_of_embeddings() as folder,
            open_networks(
                package,
                self._triton_target,
                deadline_seconds=self._request_seconds,
                shared_memory=self._shared_memory,
            ) as networks,
        ):
            cache = EmbeddingCache(folder, most_bytes=self._embedding_bytes)
            predictor = served_predictor(package, networks, cache)
            found = prompted_labels(
                read, series, predictor, shown, reach=self._reach, form=self._form, progress=self._progress
            )
        op_output.emit(found, "found")

    @contextmanager
    def _folder_of_embeddings(self) -> Iterator[Path]:
        if self._embeddings_folder is not None:
            yield self._embeddings_folder
            return
        with tempfile.TemporaryDirectory(prefix="embeddings-", dir=self._scratch_folder) as folder:
            yield Path(folder)
