"""Instances, series, jobs and deliveries as frozen records, and the PostgreSQL that keeps them.

One module, and one file of SQL, for each step of a study's way; the last step, the return, has three. `Records` is all
of them.
"""

from __future__ import annotations

from app.jobs.arrival_entries import ClockReading, EarlierJob, QueuePlace, SentObject, Transfer
from app.jobs.connections import Connection
from app.jobs.entries import (
    Agreement,
    Consequence,
    Delivery,
    DeliveryState,
    Finding,
    Instance,
    Job,
    JobInput,
    JobState,
    NewJob,
    Result,
    SeenSeries,
    Sending,
    Series,
    SeriesState,
    Step,
    describe_way,
)
from app.jobs.records.accounting import AccountRecords
from app.jobs.records.committing import CommitRecords
from app.jobs.records.completing import CompleteRecords
from app.jobs.records.deciding import DecideRecords
from app.jobs.records.pausing import PauseRecords
from app.jobs.records.receiving import ReceiveRecords
from app.jobs.records.retaining import RetainRecords
from app.jobs.records.returning import ReturnRecords
from app.jobs.records.steering import SteerRecords
from app.jobs.records.superseding import SupersedeRecords
from app.jobs.records.turns import TurnRecords
from app.jobs.records.watching import WatchRecords
from app.jobs.records.withdrawing import WithdrawRecords
from app.jobs.records.working import WorkRecords
from app.jobs.return_entries import (
    BegunDelivery,
    Commitment,
    CommittingObject,
    DestinationProfile,
    DestinationWindow,
    DueDelivery,
    KeptReport,
    Turn,
    Withdrawal,
)

__all__ = [
    "Connection",
    "Agreement",
    "BegunDelivery",
    "ClockReading",
    "Commitment",
    "CommittingObject",
    "Consequence",
    "Delivery",
    "DeliveryState",
    "DestinationProfile",
    "EarlierJob",
    "DestinationWindow",
    "DueDelivery",
    "Finding",
    "Instance",
    "Job",
    "JobInput",
    "JobState",
    "KeptReport",
    "NewJob",
    "QueuePlace",
    "Result",
    "SeenSeries",
    "Sending",
    "SentObject",
    "Series",
    "SeriesState",
    "Step",
    "Transfer",
    "Withdrawal",
    "Turn",
    "Records",
    "describe_way",
]


class Records(
    ReceiveRecords,
    CompleteRecords,
    DecideRecords,
    SupersedeRecords,
    WorkRecords,
    SteerRecords,
    PauseRecords,
    ReturnRecords,
    TurnRecords,
    CommitRecords,
    WithdrawRecords,
    WatchRecords,
    AccountRecords,
    RetainRecords,
):
    """The one place of SQL: what is read and written, by the steps of a study's way."""
