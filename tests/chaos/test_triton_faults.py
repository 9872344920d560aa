"""Triton killed, hung, answering in another shape, out of memory, refusing: retried or given up, never a wrong SEG."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pydicom
import pytest

from app.graph import CompletionRecord, GraphRequest
from app.identifiers import UID
from app.jobs.graph_process import GraphProcess
from app.jobs.identity import ModelFacts
from app.jobs.records import Instance, Job, JobState
from app.jobs.result_files import ResultFiles
from app.jobs.verification import verify_results
from app.jobs.workflow import Workflow
from app.settings import TritonSettings
from operators.model_package import ModelPackage
from operators.object_kinds import NEEDS, Kind
from tests.chaos.faulty_triton import Fault, FaultyTriton, faulty_triton
from tests.chaos.figures import Figures
from tests.database_fixture import fresh_database
from tests.job_harness import DESTINATIONS, Bench, bench
from tests.phantom import write_phantom_series
from tests.triton_fixture import MODEL_REPOSITORY, REPOSITORY_ROOT, joined_repository, running_triton

PROMISE = "9. Triton is killed, hung, out of memory, refuses or answers in another shape"
_FAULTS: tuple[Fault, ...] = tuple(one for one in get_args(Fault) if one)
_ENDS: Mapping[Fault, JobState] = {
    "killed": "closed",
    "hung": "closed",
    "refusing": "closed",
    "wrong shape": "dead-letter",
    "out of memory": "dead-letter",
    "model that answers in another shape": "dead-letter",
    "model that is refused memory": "dead-letter",
}
_REASONS: Mapping[Fault, tuple[str, str]] = {
    "wrong shape": ("model-mismatch", r"output \S+ is float\d+ \[.*\], expected "),
    "out of memory": ("inference-refused", "failed to allocate memory, by the test"),
    "model that answers in another shape": ("model-mismatch", r"output logits is float32 \[\d+, 3, 128, 128, 16\], "),
    "model that is refused memory": ("inference-refused", r"onnxruntime: .*Failed to allocate memory"),
}
"""The code of a job that was given up, and what its reason says of that fault and no other."""
_ATTEMPTS = 4
_FAULTY_MODELS = REPOSITORY_ROOT / "tests" / "fixtures" / "faulty_triton"


class _Kept:
    """A destination that keeps copies of what it gets."""

    name = "kept"

    def __init__(self) -> None:
        self.got: list[bytes] = []

    def check(self) -> None:
        """It is there."""

    def accepted_kinds(self) -> tuple[Kind, ...]:
        """It takes everything."""
        return tuple(NEEDS)

    def deliver(self, path: Path) -> None:
        """Keep it."""
        self.got.append(path.read_bytes())


class _Runner(GraphProcess):
    """Meets the fault that is planned for a job in each of its attempts, if it lasts, or in one of them."""

    def __init__(self, door: FaultyTriton) -> None:
        super().__init__()
        self.plan: dict[str, Fault] = {}
        self.shares: set[str] = set()
        """The jobs whose tensors go through shared memory."""
        self._door = door

    def run(self, request: GraphRequest, application: str, **options: Any) -> CompletionRecord:
        """Run the graph with the door set."""
        fault = self.plan.get(request.identity, "")
        self._door.fault = fault
        met = len(self._door.met)
        asked = replace(request, shared_memory=request.identity in self.shares)
        try:
            return super().run(asked, application, **options)
        finally:
            # an attempt may find Triton gone by the fault before its own: it met none, and the next one does
            if _ENDS.get(fault) == "closed" and len(self._door.met) > met:
                del self.plan[request.identity]


def _receive(made: Bench, folder: Path, seed: int) -> None:
    for path in write_phantom_series(folder / f"series-{seed}", seed=seed):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        content = path.read_bytes()
        one = Instance(
            sop_instance_uid=UID(header.SOPInstanceUID),
            sop_class_uid=UID(header.SOPClassUID),
            transfer_syntax_uid=UID(header.file_meta.TransferSyntaxUID),
            series_instance_uid=UID(header.SeriesInstanceUID),
            study_instance_uid=UID(header.StudyInstanceUID),
            digest=hashlib.sha256(content).hexdigest(),
            size_bytes=len(content),
            calling_ae_title="MODALITY",
            source_host="127.0.0.1",
        )
        made.receive(one)
        (made.spool / f"{one.digest}.dcm").write_bytes(content)


@contextmanager
def _bench(folder: Path, url: str, target: str, runner: GraphProcess, kept: _Kept) -> Iterator[Callable[[str], Bench]]:
    """Give what makes the bench that a program of some version has: another version makes other jobs of the same."""
    package = ModelPackage.load(MODEL_REPOSITORY / "nnunet_liver_spleen_demo")
    facts = ModelFacts(package.name, package.version, package.weights_digest, package.folder, package.channel_names)
    with bench(folder, url) as made:
        pipeline = made.settings.pipeline[0].model_copy(update={"maximum_attempts": _ATTEMPTS})
        made.settings = made.settings.model_copy(
            update={
                "pipeline": (pipeline,),
                "triton": TritonSettings(request_seconds=6.0, shared_memory=False),
            }
        )
        archives = dict.fromkeys(DESTINATIONS, kept)

        def of_version(version: str) -> Bench:
            made.workflow = Workflow(
                settings=made.settings,
                records=made.records,
                audit=made.audit,
                spool_path_of=lambda digest: made.spool / f"{digest}.dcm",
                runner=runner,
                verify=verify_results,
                destinations=archives,
                triton_target=lambda: target,
                models={"liver": facts},
                program_version=version,
                result_files=ResultFiles(made.settings.results_folder),
            )
            return made

        yield of_version


def _pixels(content: bytes) -> tuple[str, bytes]:
    """The series that a SEG is about, and what it marks."""
    dataset = pydicom.dcmread(pydicom.filebase.DicomBytesIO(content))
    (referenced,) = dataset.ReferencedSeriesSequence
    return referenced.SeriesInstanceUID, np.packbits(dataset.pixel_array.astype(bool)).tobytes()


def _jobs(made: Bench, known: set[Any]) -> list[Job]:
    return [job for job in made.records.jobs(1000) if job.id not in known]


def _is_told(job: Job, fault: Fault) -> bool:
    """Whether a job that was given up says why; shown where it does not."""
    code, reason = _REASONS[fault]
    sys.stdout.write(f"{fault}: {job.code}: {job.reason}\n")
    return job.code == code and re.search(reason, job.reason) is not None


@pytest.mark.timeout(1500)
def test_no_wrong_result_is_sent_whatever_triton_does(
    tmp_path: Path, postgres: str, figures: Figures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.jobs.segmenting._INFERENCE_WAIT_SECONDS", (2.0, 20.0))
    repository = tmp_path / "models"
    repository.mkdir()
    faults = [fault for fault in _FAULTS for _ in range(figures.of(short=1, full=3 if "model" in fault else 8))]
    kept = _Kept()
    with (
        running_triton(joined_repository(repository, MODEL_REPOSITORY, _FAULTY_MODELS), probe_seconds=1.0) as triton,
        faulty_triton(tmp_path, triton) as (door, target),
        fresh_database(postgres) as url,
    ):
        runner = _Runner(door)
        with _bench(tmp_path / "limner", url, target, runner, kept) as of_version:
            made = of_version("reference")
            for seed in range(len(faults)):
                _receive(made, tmp_path, seed)
            made.create_jobs()
            made.work(made.all_ended, seconds=600)
            assert {job.state for job in made.records.jobs(1000)} == {"closed"}
            right = dict(_pixels(content) for content in kept.got)
            assert any(any(marked) for _, marked in right.items()), "the phantom has nothing to find"
            kept.got.clear()

            known = {job.id for job in made.records.jobs(1000)}
            with made.records.transaction() as connection:
                connection.execute("UPDATE series SET state = 'receiving'")
            made = of_version("tried")
            made.create_jobs()
            keys = [job.key for job in _jobs(made, known)]
            planned = dict(zip(keys, faults, strict=True))
            runner.plan, runner.shares = dict(planned), set(keys[::2])
            made.work(made.all_ended, seconds=1200)
            ended = _jobs(made, known)
        show = partial(figures.show, PROMISE)
        for fault in _FAULTS:
            jobs = [job for job in ended if planned[job.key] == fault]
            met = [job for job in jobs if job.state == _ENDS[fault]]
            show(f"{fault}: jobs that end as {_ENDS[fault]}", seen=len(met), exactly=faults.count(fault))
            show(f"{fault}: inferences that met it", seen=door.met.count(fault), least=faults.count(fault))
            if shared := sum(job.key in runner.shares for job in jobs):
                seen = sum(job.key in runner.shares for job in met)
                show(f"{fault}: of these jobs, those with tensors in shared memory", seen=seen, exactly=shared)
        show("regions of shared memory that Triton was given", seen=door.regions, least=2 * len(runner.shares))
        given_up = [job for job in ended if job.state == "dead-letter"]
        told = sum(_is_told(job, planned[job.key]) for job in given_up)
        wanted = sum(_ENDS[fault] == "dead-letter" for fault in faults)
        show("dead letters with Triton's reason", seen=told, exactly=wanted)
        attempts = [job.attempt for job in given_up]
        show("their attempts, at least", seen=min(attempts), exactly=_ATTEMPTS)
        closed = sum(job.state == "closed" for job in ended)
        show("results sent, one a closed job and destination", seen=len(kept.got), exactly=closed * len(DESTINATIONS))
        wrong = sum(right[series] != marked for series, marked in map(_pixels, kept.got))
        show("wrong results sent", seen=wrong, exactly=0)
