"""Instances, series, jobs and deliveries as frozen records, and the PostgreSQL that keeps them.

One module, and one file of SQL, for each step of a study's way; `Records` is all of them.
"""

from __future__ import annotations

from app.jobs.connections import Connection
from app.jobs.entries import (
    Agreement,
    BegunDelivery,
    Consequence,
    Delivery,
    DeliveryState,
    DestinationProfile,
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
from app.jobs.records.deciding import DecideRecords
from app.jobs.records.receiving import ReceiveRecords
from app.jobs.records.retaining import RetainRecords
from app.jobs.records.returning import ReturnRecords
from app.jobs.records.watching import WatchRecords
from app.jobs.records.working import WorkRecords

__all__ = [
    "Connection",
    "Agreement",
    "BegunDelivery",
    "Consequence",
    "Delivery",
    "DeliveryState",
    "DestinationProfile",
    "Finding",
    "Instance",
    "Job",
    "JobInput",
    "JobState",
    "NewJob",
    "Result",
    "SeenSeries",
    "Sending",
    "Series",
    "SeriesState",
    "Step",
    "Records",
    "describe_way",
]


class Records(ReceiveRecords, DecideRecords, WorkRecords, ReturnRecords, WatchRecords, AccountRecords, RetainRecords):
    """The one place of SQL: what is read and written, by the steps of a study's way."""
