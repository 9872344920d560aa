"""The workflow on a real PostgreSQL, queue and audit log, with a graph and destinations that a test can steer.

Run as a program (`python -m tests.job_harness FOLDER URL`) it is a worker process that a test may kill.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import psycopg

from app.audit.log import AuditLog
from app.errors import DeliveryError, DeliveryRefused, GraphFailed
from app.graph import (
    SPECIALIST_RECORD_FILE,
    AgreementRecord,
    CompletionRecord,
    FindingRecord,
    GraphRequest,
    LabelsRecord,
    ModelRecord,
    ObjectRecord,
    Role,
    SegmentRecord,
)
from app.identifiers import UID, derive_uid
from app.jobs.identity import GeneralistFacts, ModelFacts
from app.jobs.records import Instance, Job, Records
from app.jobs.result_files import ResultFiles
from app.jobs.segmenting import Verify
from app.jobs.slots import lanes
from app.jobs.verification import VerifiedObject
from app.jobs.worker import Worker
from app.jobs.workflow import Workflow
from app.settings import DestinationSettings, Settings
from app.settings_gate import GateSettings
from app.settings_pipeline import GeneralistSettings, PipelineSettings, RuleSettings
from app.settings_routing import RoutingSettings
from app.settings_slots import SlotsSettings
from operators.gate.notes import GateNote
from operators.object_kinds import NEEDS, Kind

DESTINATIONS = ("archive", "viewer")
_ALL = 100_000
"""Jobs: the records tell the newest hundred unless they are asked for more."""
_PLANTED = {
    "ae_title": "PLANTED",
    "host": "127.0.0.1",
    "port": 1,
    "retry_first_seconds": 0.1,
    "retry_longest_seconds": 0.2,
    "maximum_attempts": 40,
}


def settings_for(
    folder: Path,
    *,
    generalist: GeneralistSettings | None = None,
    on_disagreement: Literal["warn", "hold", "both"] = "warn",
    rule: Mapping[str, Any] = MappingProxyType({}),
    destination: Mapping[str, Any] = MappingProxyType({}),
    gate: GateSettings = GateSettings(),  # noqa: B008 - it is frozen
    slots: tuple[SlotsSettings, ...] = (),
    routing: Mapping[str, Any] = MappingProxyType({}),
) -> Settings:
    """Two destinations that are tried again quickly, one pipeline, one rule that takes everything.

    `rule`, `destination` and `routing` are what else their tables say.
    """
    return Settings(
        data_folder=folder,
        slots=slots,
        routing=RoutingSettings(
            **{"series_quiet_seconds": 0.2, "study_quiet_seconds": 0.6, "scan_seconds": 0.05, **routing}
        ),
        pipeline=(
            PipelineSettings(name="liver", model="planted", maximum_attempts=3, generalist=generalist, gate=gate),
        ),
        rule=(
            RuleSettings(
                **{"destinations": DESTINATIONS, **rule},
                name="every",
                pipeline="liver",
                on_disagreement=on_disagreement,
            ),
        ),
        destination=tuple(DestinationSettings(name=name, **{**_PLANTED, **destination}) for name in DESTINATIONS),
    )


def instance(number: int, *, series: int = 1, study: int = 1, content: str = "") -> Instance:
    """An instance whose UIDs follow from the numbers and whose digest follows from its UIDs and content."""
    uid = derive_uid("instance", str(study), str(series), str(number))
    return Instance(
        sop_instance_uid=uid,
        sop_class_uid=UID("1.2.840.10008.5.1.4.1.1.2"),
        transfer_syntax_uid=UID("1.2.840.10008.1.2.1"),
        series_instance_uid=derive_uid("series", str(study), str(series)),
        study_instance_uid=derive_uid("study", str(study)),
        digest=hashlib.sha256((uid + content).encode()).hexdigest(),
        size_bytes=1000,
        calling_ae_title="MODALITY",
        source_host="127.0.0.1",
    )


def _file_name(role: Role, kind: Kind) -> str:
    return f"{role}-{kind}.dcm"


def planted_finding(role: Role, kinds: Sequence[Kind] = ("segmentation",)) -> FindingRecord:
    """A liver of 100 ml."""
    return FindingRecord(
        role=role,
        objects=tuple(ObjectRecord(_file_name(role, kind), kind, "1.2", "1.3", "1.4", "0" * 64) for kind in kinds),
        labels=LabelsRecord("labels.npz", "0" * 64),
        segments=(SegmentRecord(1, 1, "Liver", '(10200004, SCT, "Liver")', 1000, 100.0),),
        model=ModelRecord(role, "1.0", "0" * 64),
    )


AGREEING = AgreementRecord(1, "Liver", 0.95, 1.5, -2.0, -2.0, ())
DISAGREEING = AgreementRecord(1, "Liver", 0.41, 25.0, -50.0, -50.0, ("dice",))


@dataclass
class PlantedGraph:
    """A graph that takes `seconds` and then writes one file, or does what `plan` says for its n-th run.

    Asked for a generalist, it does what `second` says, and writes another file.
    """

    seconds: float = 0.0
    plan: Callable[[int], None] = lambda run: None
    second: Callable[[int], None] = lambda run: None
    agreement: AgreementRecord = AGREEING
    notes: tuple[GateNote, ...] = ()
    runs: int = 0
    cancelled: threading.Event = field(default_factory=threading.Event)

    def run(
        self,
        request: GraphRequest,
        application: str,
        *,
        progress: Callable[[str, int, int], None],
        unwanted: threading.Event,
        **limits: Any,
    ) -> CompletionRecord:
        """Stand in for `GraphProcess.run`."""
        self.runs += 1
        progress("infer", 1, 2)
        self.plan(self.runs)
        if unwanted.wait(self.seconds):
            raise GraphFailed("ended", code="graph-cancelled")
        steps = {"read": 0.01, "infer": self.seconds, "write": 0.01}
        found = (self._found(request, "specialist"),)
        record = CompletionRecord(request.identity, found, steps=steps, notes=self.notes)
        if request.generalist is None:
            return record
        (request.output_folder / SPECIALIST_RECORD_FILE).write_bytes(record.to_json())
        self.second(self.runs)
        findings = (*record.findings, self._found(request, "generalist"))
        return replace(record, findings=findings, agreement=(self.agreement,))

    def _found(self, request: GraphRequest, role: Role) -> FindingRecord:
        for kind in request.kinds:  # no two runs give the same bytes, as with a real model
            (request.output_folder / _file_name(role, kind)).write_bytes(request.identity.encode() + os.urandom(8))
        return planted_finding(role, request.kinds)

    def cancel(self) -> None:
        """Stand in for `GraphProcess.cancel`."""
        self.cancelled.set()


def verify(record: CompletionRecord, folder: Path, source_files: Sequence[Path]) -> tuple[VerifiedObject, ...]:
    """Stand in for `verify_results`."""
    return tuple(
        _verified(finding.role, one.kind, record.identity, folder)
        for finding in record.findings
        for one in finding.objects
    )


def _verified(role: Role, kind: Kind, identity: str, folder: Path) -> VerifiedObject:
    uid = derive_uid("result", identity, role, kind)
    path = folder / _file_name(role, kind)
    return VerifiedObject(
        path=path,
        kind=kind,
        role=role,
        digest=hashlib.sha256(path.read_bytes()).hexdigest(),
        sop_class_uid=UID("1.2.840.10008.5.1.4.1.1.66.4"),
        sop_instance_uid=uid,
        series_instance_uid=uid,
        transfer_syntax_uid=UID("1.2.840.10008.1.2.1"),
    )


@dataclass
class PlantedDestination:
    """A destination that keeps a list of what it got in a file; down while the file `<name>.down` is there.

    It takes objects of the kinds in `accepted`.
    """

    name: str
    folder: Path
    seconds: float = 0.0
    accepted: tuple[Kind, ...] = tuple(NEEDS)

    def check(self) -> None:
        """Stand in for an echo."""

    def accepted_kinds(self) -> tuple[Kind, ...]:
        """Say what it takes."""
        return self.accepted

    def deliver(self, path: Path) -> None:
        """Take one file."""
        time.sleep(self.seconds)
        if (path.stem if path.stem in NEEDS else path.stem.partition("-")[2]) not in self.accepted:
            raise DeliveryRefused(f"{self.name} does not take it", code="context-refused")
        if (self.folder / f"{self.name}.down").exists():
            raise DeliveryError(f"{self.name} is down", code="no-connection")
        with (self.folder / f"{self.name}.got").open("a") as got:
            got.write(hashlib.sha256(path.read_bytes()).hexdigest() + "\n")

    def got(self) -> list[str]:
        """The digests it got, in order."""
        file = self.folder / f"{self.name}.got"
        return file.read_text().split() if file.exists() else []


class Bench:
    """A workflow with its records and audit log in one folder and one database."""

    def __init__(
        self,
        folder: Path,
        url: str,
        *,
        graph: PlantedGraph | None = None,
        seconds: float = 0.0,
        generalist: GeneralistSettings | None = None,
        on_disagreement: Literal["warn", "hold", "both"] = "warn",
        rule: Mapping[str, Any] = MappingProxyType({}),
        destination: Mapping[str, Any] = MappingProxyType({}),
        gate: GateSettings = GateSettings(),  # noqa: B008 - it is frozen
        name: str = "",
        slots: tuple[SlotsSettings, ...] = (),
        routing: Mapping[str, Any] = MappingProxyType({}),
        spool_path_of: Callable[[str], Path] | None = None,
        verify: Verify = verify,
    ) -> None:
        self.settings = settings_for(
            folder,
            generalist=generalist,
            on_disagreement=on_disagreement,
            rule=rule,
            destination=destination,
            gate=gate,
            slots=slots,
            routing=routing,
        )
        self.records = Records(url)
        self.audit = AuditLog(self.settings.audit_folder / name)
        self.graph = graph or PlantedGraph()
        self.destinations: dict[str, Any] = {name: PlantedDestination(name, folder, seconds) for name in DESTINATIONS}
        second = None if generalist is None else GeneralistFacts("sam", "2.0", "1" * 64, folder, "soft-tissue", 5)
        self.models = {"liver": ModelFacts("planted", "1.0", "0" * 64, folder, ("CT",), second)}
        self.spool = folder / "instances"
        self.spool.mkdir(parents=True, exist_ok=True)
        self.settings.spool_folder.mkdir(parents=True, exist_ok=True)  # it is mounted here
        self.workflow = Workflow(
            settings=self.settings,
            records=self.records,
            audit=self.audit,
            spool_path_of=spool_path_of or (lambda digest: self.spool / f"{digest}.dcm"),
            runner=self.graph,
            verify=verify,
            destinations=self.destinations,
            triton_target=lambda: "unix:/nowhere",
            models=self.models,
            program_version="0",
            result_files=ResultFiles(self.settings.results_folder),
        )

    def receive(self, *instances: Instance) -> None:
        """Keep and record instances, as the listener does."""
        for one in instances:
            (self.spool / f"{one.digest}.dcm").write_bytes(b"kept")
            self.records.record_instance(one, is_told=True)

    def create_jobs(self) -> None:
        """Make a job of each undecided series."""
        for series in self.records.undecided_series():
            assert self.workflow.create_job(series, self.settings.rule[0])

    def work(self, until: Callable[[], bool], *, seconds: float = 30.0, stop_seconds: float = 20.0) -> None:
        """Run a worker until the condition holds; fail if it does not."""
        asyncio.run(self._work(until, seconds, stop_seconds))

    async def _work(self, until: Callable[[], bool], seconds: float, stop_seconds: float) -> None:
        stop = asyncio.Event()
        worker = Worker(
            records=self.records,
            tasks=self.workflow,
            destinations=DESTINATIONS,
            stop_seconds=stop_seconds,
            lanes=lanes(self.settings),
        )
        running = asyncio.create_task(worker.run(stop))
        deadline = time.monotonic() + seconds
        held = False
        try:
            while not held and not running.done() and time.monotonic() < deadline:
                await asyncio.sleep(0.05)
                held = await asyncio.to_thread(until)
        finally:  # also where the condition itself failed: a worker that is left over fails the tests after it
            stop.set()
            await running
        assert held, f"not in {seconds} s: {[(one.state, one.code, one.reason) for one in self.records.jobs()]}"

    def job(self) -> Job:
        """The only job."""
        (job,) = self.records.jobs()
        return job

    def all_ended(self) -> bool:
        """Whether every job has ended."""
        return all(one.ended for one in self.records.jobs(_ALL))

    def queued_tasks(self) -> list[tuple[Any, ...]]:
        """What is left in the task queue, but for what the clock put there."""
        with psycopg.connect(self.records.url) as connection:
            return connection.execute(
                "SELECT task_name, status::text FROM procrastinate_jobs "
                "WHERE id NOT IN (SELECT job_id FROM procrastinate_periodic_defers WHERE job_id IS NOT NULL)"
            ).fetchall()


@contextmanager
def bench(folder: Path, url: str, *, graph: PlantedGraph | None = None, **options: Any) -> Iterator[Bench]:
    """Give an open bench; `options` are those of `Bench`."""
    made = Bench(folder, url, graph=graph, **options)
    with made.records, made.audit:
        yield made


def main(folder: str, url: str) -> None:
    """Work until killed."""
    with bench(Path(folder), url, graph=PlantedGraph(seconds=0.1), seconds=0.03) as made:
        worker = Worker(records=made.records, tasks=made.workflow, destinations=DESTINATIONS)
        started = Path(folder) / f"started.{os.getpid()}"
        asyncio.run(worker.run(asyncio.Event(), started=started.touch))


if __name__ == "__main__":
    main(*sys.argv[1:])
