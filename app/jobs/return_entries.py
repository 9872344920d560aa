"""Further records of `app.jobs.records`: turns and windows of destinations, commitments and withdrawals."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from app.identifiers import UID
from app.jobs.entries import Sending
from operators.object_kinds import Kind


class Turn(NamedTuple):
    """The right to send to a destination, of one holder over all workers."""

    destination: str
    turn: int
    """The fence: an older one writes nothing."""
    failures: int
    """Attempts in a row that found the destination down, before this turn."""
    lease_seconds: float


class WaitingTurn(NamedTuple):
    """Tasks that wait, in one queue, for their turn to send to a destination."""

    destination: str
    queue: str


class DueDelivery(NamedTuple):
    """A delivery that is to be sent now."""

    sending: Sending
    path: str
    is_asked: bool
    """Whether the destination is asked first if it has the object from an attempt before."""


@dataclass(frozen=True)
class DestinationWindow:
    """How a destination answers."""

    destination: str
    address: str
    """Of whom this holds (`app.settings.DestinationSettings.address`)."""
    failures: int
    """Attempts in a row that found it down."""
    down_since: datetime | None
    """None: it answered last."""
    next_attempt_at: datetime | None
    """Nobody connects to it before."""
    code: str
    reason: str


@dataclass(frozen=True)
class DestinationProfile:
    """Which kinds of objects a destination accepts."""

    destination: str
    address: str
    """Whom it was asked of (`app.settings.DestinationSettings.address`)."""
    asked_at: datetime
    accepted: tuple[Kind, ...]


@dataclass(frozen=True)
class BegunDelivery:
    """A delivery whose turn it is."""

    attempts: int
    """Of this delivery, this one counted; also the fence of what is recorded of it."""
    path: str
    sop_class_uid: UID
    sop_instance_uid: UID
    series_instance_uid: UID
    was_unknown: bool
    """Whether the destination may have the object from an attempt before."""
    is_withdrawn: bool
    """Whether it was withdrawn from the destination, so that it must not get there any more."""


@dataclass(frozen=True)
class KeptReport:
    """A report that was kept, and what it is about."""

    number: int
    transaction_uid: str
    job_id: uuid.UUID
    destination: str
    is_latest: bool
    """Whether nothing was asked about the job since."""
    committed: tuple[str, ...]
    refused: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class CommittingObject:
    """An object that a destination took and is asked to keep."""

    digest: str
    sop_class_uid: UID
    sop_instance_uid: UID
    series_instance_uid: UID
    commitment_rounds: int
    """This one counted."""
    code: str
    """What came of the question before; empty where it is the first since the object was sent."""


@dataclass(frozen=True)
class Commitment:
    """A request for the commitment of what a job sent to a destination, under a Transaction UID of its own."""

    transaction_uid: str
    job_id: uuid.UUID
    destination: str


@dataclass(frozen=True)
class Withdrawal:
    """A job's results, withdrawn from one destination."""

    job_id: uuid.UUID
    destination: str
    reason: str
    """One of `operators.results.rejection_note.REASONS`."""
    person: str
    """The operating system's name of the user who decided it, or what decided it."""
    withdrawn_at: datetime
    objects: int
    """How many the destination has, or may have."""
    digest: str = ""
    """Of the rejection note among the job's results; empty where none is sent."""
    code: str = ""
    """Why none is sent, and the objects have to be removed there by hand."""
    message: str = ""
