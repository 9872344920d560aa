"""The frozen records that `app.jobs.records` keeps and gives: instances, series, jobs, results, deliveries, steps."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

from app.identifiers import UID
from operators.gate.notes import GateNote
from operators.object_kinds import Kind

DeliveryState = Literal[
    "held", "waiting", "sending", "committing",
    "delivered", "committed", "failed", "discarded", "replaced", "cancelled",
]  # fmt: skip
SeriesState = Literal[
    "receiving", "waiting-for-study", "routed", "no-rule", "no-channel", "own-result", "unreadable", "incomplete"
]
JobState = Literal[
    "queued", "running", "held", "delivering",
    "closed", "failed", "refused", "discarded", "cancelled", "dead-letter", "superseded",
]  # fmt: skip
Role = Literal["specialist", "generalist"]
Flag = Literal["", "disagreement", "generalist-failed"]
OnDisagreement = Literal["warn", "hold", "both"]


@dataclass(frozen=True)
class Instance:
    """A received SOP instance, kept in the spool."""

    sop_instance_uid: UID
    sop_class_uid: UID
    transfer_syntax_uid: UID
    series_instance_uid: UID
    study_instance_uid: UID
    digest: str
    """SHA-256 of the Part 10 file, as 64 hexadecimal digits; also its name in the spool."""
    size_bytes: int
    calling_ae_title: str
    source_host: str


@dataclass(frozen=True)
class Series:
    """A series that came in, and what was decided about it."""

    study_instance_uid: UID
    series_instance_uid: UID
    state: SeriesState
    revision: int
    """One more each time content came after the decision."""
    calling_ae_title: str
    first_received_at: datetime
    last_received_at: datetime
    decided_at: datetime | None
    rule: str | None
    reason: str | None


@dataclass(frozen=True)
class SeenSeries:
    """A series as it was when it was looked at for a decision, with its quiet times by the database's clock."""

    study_instance_uid: UID
    series_instance_uid: UID
    state: SeriesState
    revision: int
    calling_ae_title: str
    last_received_at: datetime
    quiet_seconds: float
    study_quiet_seconds: float
    header_digest: str
    """The digest of the header that is decided on: of the instance that came first, whatever comes later."""
    released: bool = False
    """Whether the last association that brought it was released, and no other of its source brings the study."""
    open_associations: int = 0
    """Of its source, that brought anything of its study."""
    instances: int | None = None
    """How many came, each once; None where no archive said how many there are."""
    expected: int | None = None
    """How many an archive said that it has; None if it was not asked, did not answer or does not know the series."""
    series_missing: int = 0
    """How many series of the study the archive has that have not come; own results do not count."""
    asked_archive: str = ""
    asked_code: str = ""
    """``asking``; empty once answered; else why there was no answer."""
    asks: int = 0
    """Questions since the study's last content."""
    asked_seconds: float | None = None
    """Since the last question; None if there was none."""
    answered_seconds: float | None = None
    """Since the last question that was answered."""
    waits_for: str | None = None
    """What its decision waits for once it is complete, such as images that are being fetched; in words."""
    is_kept: bool = True
    """Whether any of its files is in the spool still."""

    @property
    def undecided(self) -> bool:
        """Whether it waits for its decision."""
        return self.state in ("receiving", "waiting-for-study")

    @property
    def shortfall(self) -> str:
        """Such as "17 of 20 instances came"; empty where no archive said that it has more."""
        if self.expected is None or self.instances is None or self.instances >= self.expected:
            return ""
        return f"{self.instances} of {self.expected} instances came"

    @property
    def study_shortfall(self) -> str:
        """Such as "2 series of the study have not come"; empty where no archive said that it has more."""
        return f"{self.series_missing} series of the study have not come" if self.series_missing else ""

    @property
    def remark(self) -> str:
        """What is to be said of its archive once it is complete; empty if nothing is: none was asked, or all came."""
        archive = f"the archive {self.asked_archive}"
        if not self.asked_archive or (self.expected is not None and not self.shortfall):
            return ""
        if self.shortfall:
            return f"{self.shortfall}, and {archive} has more"
        if self.asked_code == "asking":
            return f"{archive} did not answer in time: the quiet time decided"
        if self.asked_code:
            return f"{archive} could not be asked ({self.asked_code}): the quiet time decided"
        return f"{archive} does not know the series: the quiet time decided"


class JobInput(NamedTuple):
    """An instance that a job reads."""

    sop_instance_uid: str
    digest: str
    channel: str = ""
    """The channel of the model that its series feeds; empty where the rule binds none."""


@dataclass(frozen=True)
class NewJob:
    """A job to be made; the record of it is `Job`."""

    id: uuid.UUID
    key: str
    study_instance_uid: UID
    series_instance_uid: UID
    series_revision: int
    rule: str
    pipeline: str
    model_name: str
    model_version: str
    weights_digest: str
    destinations: Sequence[str]
    priority: int
    generalist_name: str = ""
    """Empty where the specialist runs alone."""
    generalist_version: str = ""
    generalist_digest: str = ""
    """Of its weights."""
    on_disagreement: OnDisagreement = "warn"


@dataclass(frozen=True)
class Result:
    """An object that a job made: verified, on disk."""

    job_id: uuid.UUID
    digest: str
    attempt: int
    path: str
    sop_class_uid: UID
    sop_instance_uid: UID
    series_instance_uid: UID
    transfer_syntax_uid: UID
    role: Role = "specialist"
    """The model's that made it."""
    kind: Kind = "segmentation"


class Sending(NamedTuple):
    """A delivery to come."""

    job_id: uuid.UUID
    digest: str
    destination: str


@dataclass(frozen=True)
class Finding:
    """A segment of a model's result."""

    role: Role
    number: int
    """Segment Number."""
    label: str
    code: str
    """As the Standard writes codes: (value, scheme, "meaning")."""
    volume_ml: float


@dataclass(frozen=True)
class Agreement:
    """How far the generalist agrees with the specialist on one segment."""

    number: int
    label: str
    dice: float
    distance_mm: float | None
    """The 95th percentile of the distances of the surfaces; None where only one of them found the segment."""
    difference_ml: float
    """The generalist's volume less the specialist's."""
    difference_percent: float | None
    """Of the specialist's volume; None where that is 0."""
    beyond: tuple[str, ...]
    """The limits that it lies beyond."""


@dataclass(frozen=True)
class Consequence:
    """What becomes of the results of an attempt."""

    sent: tuple[Role, ...] = ("specialist",)
    """Whose objects go to the destinations."""
    is_held: bool = False
    """Whether they wait for a person's decision."""
    flag: Flag = ""
    flag_reason: str = ""
    findings: tuple[Finding, ...] = ()
    agreement: tuple[Agreement, ...] = ()
    notes: tuple[GateNote, ...] = ()
    """What the gate let pass or put in order; of prompts, what was left out and what overlaps."""

    @property
    def found_nothing(self) -> bool:
        """Whether no model found any of its segments."""
        return bool(self.findings) and not any(one.volume_ml for one in self.findings)


@dataclass(frozen=True)
class Delivery:
    """One object on its way to one destination."""

    job_id: uuid.UUID
    digest: str
    destination: str
    state: DeliveryState
    attempts: int
    code: str
    reason: str
    created_at: datetime
    last_attempt_at: datetime | None
    next_attempt_at: datetime | None
    finished_at: datetime | None
    tries: int = 0
    """Attempts that count against the destination's maximum: those that did not reach it do not."""
    is_unknown: bool = False
    """Whether nobody learned what became of an attempt, nor was told since."""
    commitment_rounds: int = 0
    """How often the destination was asked to commit itself to keeping the object."""
    committed_at: datetime | None = None


@dataclass(frozen=True)
class Step:
    """How long one step of one attempt took."""

    job_id: uuid.UUID
    attempt: int
    step: str
    seconds: float


@dataclass(frozen=True)
class Job:
    """A pipeline's work on a series: from the decision to the last delivery."""

    id: uuid.UUID
    key: str
    study_instance_uid: UID
    series_instance_uid: UID
    series_revision: int
    rule: str
    pipeline: str
    model_name: str
    model_version: str
    weights_digest: str
    destinations: tuple[str, ...]
    priority: int
    state: JobState
    attempt: int
    tries: int
    """Attempts that count against the pipeline's maximum: those that a shutdown ended do not."""
    code: str
    reason: str
    progress_step: str
    progress_done: int
    progress_total: int
    instances: int
    first_received_at: datetime | None
    last_received_at: datetime | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    generalist_name: str = ""
    generalist_version: str = ""
    generalist_digest: str = ""
    on_disagreement: OnDisagreement = "warn"
    flag: Flag = ""
    """Whether the two models disagree, or the generalist has no result."""
    flag_reason: str = ""
    superseded_by: uuid.UUID | None = None
    """The job that was made when more content came."""
    superseded_at: datetime | None = None
    results: tuple[Result, ...] = ()
    deliveries: tuple[Delivery, ...] = ()
    steps: tuple[Step, ...] = ()

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it, unless a person has it replayed."""
        return self.state in ("closed", "failed", "refused", "discarded", "cancelled", "dead-letter", "superseded")


def describe_way(job: Job) -> tuple[tuple[str, float], ...]:
    """Return the steps of a job's way and their seconds, in order: receive, wait, queue, read, …, deliver:NAME."""
    way: list[tuple[str, float]] = []

    def add(step: str, start: datetime | None, end: datetime | None) -> None:
        if start is not None and end is not None:
            way.append((step, max(0.0, (end - start).total_seconds())))

    add("receive", job.first_received_at, job.last_received_at)
    add("wait", job.last_received_at, job.created_at)
    add("queue", job.created_at, job.started_at)
    way += [(one.step, one.seconds) for one in job.steps if one.attempt == job.attempt]
    for delivery in job.deliveries:
        add(f"deliver:{delivery.destination}", delivery.created_at, delivery.finished_at)
    return tuple(way)
