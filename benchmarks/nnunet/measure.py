"""Takes every system through one case and brings home what they took and what they found."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.jobs.child_process import ENVIRONMENT
from benchmarks.driver import Pythons, Run, Worker, interleaved, last_core, slug, worker
from benchmarks.nnunet.cases import SINGLE, Case, Spacing
from benchmarks.nnunet.folders import repository_of, results_of
from benchmarks.worker import Figures

NNUNET, NNUNET_SINGLE = "nnU-Net", "nnU-Net, sums in single precision"
IN_PROCESS, REPLACED = "Limner, ONNX Runtime in the process", "Limner, forward pass replaced"
ONNXRUNTIME, OPENVINO = "Limner, Triton with ONNX Runtime", "Limner, Triton with OpenVINO"
ENGINES = {IN_PROCESS: "in-process", REPLACED: "replaced", ONNXRUNTIME: "onnxruntime", OPENVINO: "openvino"}

Runs = Mapping[str, list[Run]]
"""By system."""


@dataclass(frozen=True)
class Measured:
    """What one case gave."""

    case: Case
    one_core: Runs
    """All of a system on one core, with one thread each."""
    all_cores: Runs
    """With all cores; the wall clock is what counts."""
    differing: Mapping[str, int]
    """Voxels whose label is not nnU-Net's, by system."""
    differing_single: Mapping[str, int]
    """Voxels whose label is not that of nnU-Net with its sums in single precision."""
    voxels: int
    labels_found: int
    """How many labels nnU-Net painted, background included."""


class Bench:
    """What all cases share.

    Parameters
    ----------
    pythons
        The interpreters.
    models
        The folder of the models that were made.
    work
        Where volumes, labels and logs go.
    is_quick
        Whether one core is all that is measured on, and without OpenVINO.
    progress
        Told, line by line, what is being done.
    """

    def __init__(
        self, pythons: Pythons, models: Path, work: Path, *, is_quick: bool, progress: Callable[[str], None]
    ) -> None:
        self._pythons, self._models, self._work = pythons, models, work
        self._is_quick = is_quick
        self._progress = progress

    def measure(self, case: Case, image: Path, spacing: Spacing, rounds: int) -> Measured:
        """Take all systems through `case`, whose volume is `image` (``.npy``; z, y, x)."""
        if case.is_forward_replaced:
            single, whole = [NNUNET, REPLACED], []
        else:
            single = [NNUNET, IN_PROCESS, ONNXRUNTIME] + [OPENVINO] * (not self._is_quick)
            whole = [] if self._is_quick or not case.has_sound_labels else [NNUNET, ONNXRUNTIME, OPENVINO]
        request = {"image": str(image), "spacing": list(spacing), "replaced": case.is_forward_replaced}
        self._progress(f"{case.name}: on one core")
        one_core = self._group(case, request, single, rounds, core=last_core())
        all_cores: Runs = {}
        if whole:
            self._progress(f"{case.name}: on all cores")
            all_cores = self._group(case, request, whole, rounds, core=None)
        return self._judged(case, one_core, all_cores, single)

    def _group(self, case: Case, request: Figures, systems: list[str], rounds: int, core: int | None) -> Runs:
        with contextlib.ExitStack() as stack:
            workers = [stack.enter_context(self._worker(case, request, system, core)) for system in systems]
            interleaved(workers, rounds, self._progress)
            is_last = core is None or self._is_quick
            if is_last and case.has_sound_labels:
                self._progress("  nnU-Net once more, with its sums in single precision: for its labels alone")
                next(one for one in workers if one.name == NNUNET).ask(SINGLE)
        return {one.name: one.runs for one in workers}

    def _worker(
        self, case: Case, request: Figures, system: str, core: int | None
    ) -> contextlib.AbstractContextManager[Worker]:
        model = self._models / case.model_name
        own: Figures = {**request, "threads": 0 if core is None else 1, "labels": str(self._labels_file(case, system))}
        log = self._work / f"{case.name}-{slug(system)}.log"
        if system in ENGINES:
            own |= {"repository": str(repository_of(model)), "model": case.model_name, "engine": ENGINES[system]}
            python = self._pythons.exporter if system == IN_PROCESS else self._pythons.server
            return worker(system, python, "benchmarks.nnunet.limner", own, log, core=core, environment=ENVIRONMENT)
        own |= {"results": str(results_of(model)), "labels_single": str(self._labels_file(case, NNUNET_SINGLE))}
        return worker(system, self._pythons.exporter, "benchmarks.nnunet.reference", own, log, core=core)

    def _judged(self, case: Case, one_core: Runs, all_cores: Runs, systems: list[str]) -> Measured:
        expected = np.load(self._labels_file(case, NNUNET))
        path = self._labels_file(case, NNUNET_SINGLE)
        single = np.load(path) if path.exists() else None
        found = {system: np.load(self._labels_file(case, system)) for system in systems if system in ENGINES}
        return Measured(
            case=case,
            one_core=one_core,
            all_cores=all_cores,
            differing={system: int((labels != expected).sum()) for system, labels in found.items()},
            differing_single={}
            if single is None
            else {system: int((labels != single).sum()) for system, labels in (*found.items(), (NNUNET, expected))},
            voxels=expected.size,
            labels_found=len(np.unique(expected)),
        )

    def _labels_file(self, case: Case, system: str) -> Path:
        return self._work / f"{case.name}-{slug(system)}.npy"
