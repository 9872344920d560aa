"""Further records of `app.jobs.records`: who brings a series, who is next in the queue, and who takes whose place."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from app.identifiers import UID
from app.jobs.entries import JobState, Role
from operators.object_kinds import Kind


class Transfer(NamedTuple):
    """A series that an association brings."""

    association: uuid.UUID
    study_instance_uid: str
    series_instance_uid: str
    calling_ae_title: str
    listener: str
    """Whose start ends what it left open."""


class ClockReading(NamedTuple):
    """What the database's clock said, between two moments of this process' monotonic one."""

    asked: float
    database: datetime
    answered: float


class QueuePlace(NamedTuple):
    """Where a queued job stands."""

    job_id: uuid.UUID
    before: int
    """Jobs that run or whose turn is earlier."""
    not_before: datetime | None
    """When its next attempt may begin; None if at once."""


class EarlierJob(NamedTuple):
    """A job that a newer one takes the place of."""

    id: uuid.UUID
    state: JobState


@dataclass(frozen=True)
class SentObject:
    """An object of a superseded job that a destination has, or may have."""

    by_job: uuid.UUID
    """The job that took its job's place, if need be through others between."""
    job_id: uuid.UUID
    digest: str
    sop_class_uid: UID
    sop_instance_uid: UID
    series_instance_uid: UID
    study_instance_uid: UID
    role: Role
    kind: Kind
    destination: str
    is_uncertain: bool
    """Whether nobody learned if the destination took it."""
