"""Instances, series, jobs and deliveries as frozen records, and the PostgreSQL that keeps them."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any, TypeVar

import psycopg
from psycopg.rows import DictRow

from app.errors import OutOfResources
from app.jobs.connections import Connection, Connections, read_statements
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
from operators.gate.notes import GateNote
from operators.object_kinds import Kind

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

_Record = TypeVar("_Record")
_SQL = read_statements("queries.sql")


class Records(Connections):
    """The one place of SQL: what is read and written, by the steps of a study's way."""

    # --- receive ---

    def record_instance(self, instance: Instance) -> None:
        """Record a kept instance; committed when this returns. A known one (UID and digest) changes nothing.

        Raises
        ------
        OutOfResources
            If the database can't be reached or has no room: the sender should try again later.
        """
        try:
            with self.transaction() as connection:
                connection.execute(_SQL["record_instance"], asdict(instance))
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            raise OutOfResources(f"the records can't be written: {type(error).__name__}") from error

    def unknown_digests(self, digests: Iterable[str]) -> set[str]:
        """Return those of the spool's digests that have no record."""
        return {row["digest"] for row in self._rows(_SQL["unknown_digests"], (list(digests),))}

    def adopt(self, instances: Iterable[Instance]) -> None:
        """Record instances found in the spool without a record: a crash came between file and record."""
        with self.transaction() as connection, connection.cursor() as cursor:
            cursor.executemany(_SQL["record_instance"], [asdict(one) for one in instances])

    # --- decide ---

    def restart_quiet_times(self) -> None:
        """Let the quiet times begin anew: called when the listener starts, since nothing could come before."""
        with self.transaction() as connection:
            connection.execute(_SQL["restart_quiet_times"])

    def undecided_series(self) -> list[SeenSeries]:
        """Return the series that wait for their decision, the longest quiet first."""
        with self.transaction() as connection:
            connection.execute(_SQL["mend_clock"])
            rows = connection.execute(_SQL["undecided_series"]).fetchall()
        return [SeenSeries(**row) for row in rows]

    def latest_inputs(self, series: SeenSeries) -> list[JobInput]:
        """Return the instances of a series as they are now, the latest content each."""
        with self.transaction() as connection:
            return self.series_inputs(connection, series)

    def series_of_study(self, study_instance_uid: str) -> list[SeenSeries]:
        """Return all series of a study, decided or not, in the order they came."""
        return [SeenSeries(**row) for row in self._rows(_SQL["series_of_study"], (study_instance_uid,))]

    def pipelines_of_results(self, sop_instance_uids: Sequence[str]) -> set[str]:
        """Return the pipelines whose results have these SOP Instance UIDs."""
        return {row["pipeline"] for row in self._rows(_SQL["pipelines_of_results"], (list(sop_instance_uids),))}

    def has_own_results(self, series: SeenSeries) -> bool:
        """Whether any instance of a series is an object that a job made."""
        return any(row["found"] for row in self._rows(_SQL["has_own_results"], asdict(series)))

    def reopen_prompts(self, study_instance_uid: str) -> None:
        """Have the prompts of a study decided anew that lacked images, if anything of the study came since."""
        with self.transaction() as connection:
            connection.execute(_SQL["reopen_prompts"], (study_instance_uid,))

    def conclude_series(
        self,
        series: SeenSeries,
        state: SeriesState,
        *,
        rule: str | None = None,
        reason: str | None = None,
        connection: Connection | None = None,
    ) -> bool:
        """Record the decision; False, and nothing is recorded, if content came since `series` was looked at."""
        facts = {**asdict(series), "to_state": state, "rule": rule, "reason": reason}
        return self._happened(_SQL["conclude_series"], facts, connection)

    def conclude_locked_series(
        self, connection: Connection, series: SeenSeries, state: SeriesState, *, rule: str, reason: str
    ) -> None:
        """Record the decision about a series of a study that `lock_study` holds."""
        facts = {**asdict(series), "to_state": state, "rule": rule, "reason": reason}
        self._happened(_SQL["conclude_locked_series"], facts, connection)

    def lock_series(self, connection: Connection, series: SeenSeries) -> bool:
        """Hold the series until the transaction ends; False if content came since it was looked at."""
        return connection.execute(_SQL["lock_series"], asdict(series)).fetchone() is not None

    def lock_study(self, connection: Connection, study: Sequence[SeenSeries]) -> bool:
        """Hold all series of a study until the transaction ends; False if anything changed since they were seen."""
        rows = connection.execute(_SQL["lock_study"], (study[0].study_instance_uid,)).fetchall()
        seen = {one.series_instance_uid: (one.state, one.revision, one.last_received_at) for one in study}
        return seen == {
            row["series_instance_uid"]: (row["state"], row["revision"], row["last_received_at"]) for row in rows
        }

    def series_inputs(self, connection: Connection, series: SeenSeries, channel: str = "") -> list[JobInput]:
        """Return the instances of a series, the latest content each, as inputs of a channel."""
        rows = connection.execute(_SQL["inputs_of_series"], asdict(series)).fetchall()
        return [JobInput(row["sop_instance_uid"], row["digest"], channel) for row in rows]

    def insert_job(self, connection: Connection, job: NewJob, inputs: Iterable[JobInput]) -> bool:
        """Make the job; False if there is one with the same key."""
        facts = {**asdict(job), "destinations": list(job.destinations)}
        if connection.execute(_SQL["insert_job"], facts).fetchone() is None:
            return False
        with connection.cursor() as cursor:
            cursor.executemany(_SQL["insert_input"], [(job.id, *one) for one in inputs])
        return True

    def refuse_job(self, connection: Connection, job_id: uuid.UUID, code: str, reason: str) -> None:
        """End a job that was just made as refused."""
        self._happened(_SQL["refuse_job"], {"id": job_id, "code": code, "reason": reason}, connection)

    def reopen_series(self, connection: Connection, job_id: uuid.UUID) -> None:
        """Have the series of a job decided once more."""
        connection.execute(_SQL["reopen_series"], (job_id,))

    # --- work ---

    def job_inputs(self, job_id: uuid.UUID) -> list[JobInput]:
        """Return the job's instances."""
        return [JobInput(**row) for row in self._rows(_SQL["inputs_of_job"], (job_id,))]

    def begin_attempt(self, job_id: uuid.UUID, connection: Connection | None = None) -> tuple[int, int] | None:
        """Start the next attempt: its number (the fence) and how many count so far; None if the job needs no run."""
        with self.transaction() if connection is None else nullcontext(connection) as using:
            row = using.execute(_SQL["begin_attempt"], (job_id,)).fetchone()
        return None if row is None else (row["attempt"], row["tries"])

    def report_progress(self, job_id: uuid.UUID, attempt: int, step: str, done: int, total: int) -> None:
        """Write the graph's progress to the job."""
        facts = {"id": job_id, "attempt": attempt, "step": step, "done": done, "total": total}
        self._happened(_SQL["report_progress"], facts)

    def release_attempt(self, job_id: uuid.UUID, attempt: int) -> None:
        """Give an attempt back that a shutdown ended: it does not count."""
        self._happened(_SQL["release_attempt"], {"id": job_id, "attempt": attempt})

    def postpone_job(self, connection: Connection, job_id: uuid.UUID, attempt: int, code: str, reason: str) -> bool:
        """Put the job back to queued after an attempt that may be repeated; False if the attempt was overtaken."""
        facts = {"id": job_id, "attempt": attempt, "code": code, "reason": reason}
        return self._happened(_SQL["postpone_job"], facts, connection)

    def end_attempt(
        self, connection: Connection, job_id: uuid.UUID, attempt: int, state: JobState, code: str, reason: str
    ) -> bool:
        """End the job as failed or refused; False if the attempt was overtaken."""
        facts = {"id": job_id, "attempt": attempt, "to_state": state, "code": code, "reason": reason}
        return self._happened(_SQL["end_attempt"], facts, connection)

    def record_results(
        self,
        connection: Connection,
        job: Job | NewJob,
        attempt: int,
        results: Sequence[Result],
        steps: Mapping[str, float],
        sendings: Sequence[Sending],
        consequence: Consequence = Consequence(),  # noqa: B008 - it is frozen
    ) -> bool:
        """Record what an attempt made and the deliveries to come; False if the attempt was overtaken."""
        state = "held" if consequence.is_held else "delivering"
        facts = {"id": job.id, "attempt": attempt, "to_state": state}
        flag = {"flag": consequence.flag, "flag_reason": consequence.flag_reason}
        if not self._happened(_SQL["after_attempt"], {**facts, **flag}, connection):
            return False
        self.add_results(connection, results, sendings, is_held=consequence.is_held)
        own = {"job_id": job.id}
        with connection.cursor() as cursor:
            cursor.executemany(_SQL["insert_step"], [(job.id, attempt, *step) for step in steps.items()])
            cursor.executemany(_SQL["insert_finding"], [{**own, **asdict(one)} for one in consequence.findings])
            cursor.executemany(
                _SQL["insert_agreement"],
                [{**own, **asdict(one), "beyond": list(one.beyond)} for one in consequence.agreement],
            )
            numbered = enumerate(consequence.notes, start=1)
            cursor.executemany(
                _SQL["insert_note"], [{**own, "number": number, **asdict(one)} for number, one in numbered]
            )
        return True

    def add_results(
        self, connection: Connection, results: Sequence[Result], sendings: Sequence[Sending], *, is_held: bool = False
    ) -> None:
        """Record objects and the deliveries to come, as held or waiting; a delivery that is known changes nothing."""
        state = "held" if is_held else "waiting"
        with connection.cursor() as cursor:
            cursor.executemany(_SQL["insert_result"], [asdict(one) for one in results])
            cursor.executemany(_SQL["insert_delivery"], [(*one, state) for one in sendings])

    def lock_held(self, connection: Connection, job_id: uuid.UUID) -> bool:
        """Hold a held job until the transaction ends; False if it is not held."""
        return connection.execute(_SQL["lock_held_job"], (job_id,)).fetchone() is not None

    def decide_job(
        self, connection: Connection, job_id: uuid.UUID, job_state: JobState, delivery_state: DeliveryState
    ) -> list[tuple[str, str]]:
        """End the hold of a job and of its deliveries; return digest and destination of each delivery."""
        self._happened(_SQL["decide_held_job"], {"id": job_id, "to_state": job_state}, connection)
        facts = {"id": job_id, "to_state": delivery_state}
        rows = connection.execute(_SQL["decide_held_deliveries"], facts).fetchall()
        return [(row["digest"], row["destination"]) for row in rows]

    # --- return ---

    def begin_delivery(self, job_id: uuid.UUID, digest: str, destination: str) -> BegunDelivery | None:
        """Start the next attempt of a delivery; None if it has ended."""
        facts = {"job_id": job_id, "digest": digest, "destination": destination}
        with self.transaction() as connection:
            row = connection.execute(_SQL["begin_delivery"], facts).fetchone()
        return None if row is None else BegunDelivery(**row)

    def postpone_delivery(self, connection: Connection, delivery: Delivery, seconds: float) -> datetime | None:
        """Record a failed attempt and when the next comes, by the database's clock; None if it was overtaken."""
        row = connection.execute(_SQL["postpone_delivery"], {**asdict(delivery), "seconds": seconds}).fetchone()
        return None if row is None else row["next_attempt_at"]

    def end_delivery(self, connection: Connection, delivery: Delivery, state: DeliveryState) -> bool:
        """End a delivery; True if it was the job's last one. One that was overtaken changes nothing."""
        connection.execute(_SQL["lock_job"], (delivery.job_id,))
        facts = {**asdict(delivery), "to_state": state}
        if connection.execute(_SQL["end_delivery"], facts).fetchone() is None:
            return False
        row = connection.execute(_SQL["open_deliveries"], (delivery.job_id,)).fetchone()
        return row is not None and row["open"] == 0

    def keep_profile(self, destination: str, address: str, accepted: Sequence[Kind]) -> None:
        """Keep what a destination said that it accepts, in place of what it said before."""
        facts = {"destination": destination, "address": address, "accepted": list(accepted)}
        with self.transaction() as connection:
            connection.execute(_SQL["keep_profile"], facts)

    def profiles(self) -> dict[str, DestinationProfile]:
        """Return what each destination said last, by its name."""
        rows = self._rows(_SQL["profiles"], ())
        found = [DestinationProfile(**{**row, "accepted": tuple(row["accepted"])}) for row in rows]
        return {one.destination: one for one in found}

    def open_destinations(self) -> set[str]:
        """Return the destinations that deliveries are still to go to."""
        return {row["destination"] for row in self._rows(_SQL["open_destinations"], ())}

    def failed_destinations(self, job_id: uuid.UUID) -> list[str]:
        """Return the destinations that did not get all of the job's objects."""
        return [row["destination"] for row in self._rows(_SQL["failed_deliveries"], (job_id,))]

    def close_job(self, job_id: uuid.UUID, state: JobState, code: str = "", reason: str = "") -> bool:
        """End a job whose deliveries have ended; False if it has ended before."""
        return self._happened(_SQL["close_job"], {"id": job_id, "to_state": state, "code": code, "reason": reason})

    # --- watch ---

    def job(self, job_id: uuid.UUID) -> Job | None:
        """Return one job with its results, deliveries and steps."""
        found = self._jobs(self._rows(_SQL["job"], (job_id,)))
        return found[0] if found else None

    def jobs(self, limit: int = 100) -> list[Job]:
        """Return the newest jobs, the newest first."""
        return self._jobs(self._rows(_SQL["newest_jobs"], (limit,)))

    def findings(self, job_id: uuid.UUID) -> list[Finding]:
        """Return the segments of a job's results, the specialist's first."""
        return [Finding(**row) for row in self._rows(_SQL["findings_of_job"], (job_id,))]

    def agreement(self, job_id: uuid.UUID) -> list[Agreement]:
        """Return how far a job's two models agree, segment by segment."""
        rows = self._rows(_SQL["agreement_of_job"], (job_id,))
        return [Agreement(**{**row, "beyond": tuple(row["beyond"])}) for row in rows]

    def notes(self, job_id: uuid.UUID) -> list[GateNote]:
        """Return what the gate let pass or put in order of a job's input."""
        return [GateNote(**row) for row in self._rows(_SQL["notes_of_job"], (job_id,))]

    def series(self) -> list[Series]:
        """Return every series, in the order they came."""
        return [Series(**row) for row in self._rows(_SQL["all_series"], ())]

    def moment(self, connection: Connection, seconds_ahead: float) -> datetime:
        """Return a moment by the database's clock, which schedules the tasks."""
        row = connection.execute(_SQL["clock"], (seconds_ahead,)).fetchone()
        assert row is not None  # noqa: S101 - a SELECT without FROM has one row
        moment: datetime = row["moment"]
        return moment

    def _jobs(self, rows: list[DictRow]) -> list[Job]:
        ids = [row["id"] for row in rows]
        results = self._by_job(Result, _SQL["results_of_jobs"], ids)
        deliveries = self._by_job(Delivery, _SQL["deliveries_of_jobs"], ids)
        steps = self._by_job(Step, _SQL["steps_of_jobs"], ids)
        return [
            Job(
                **_fields(Job, row | {"destinations": tuple(row["destinations"])}),
                results=tuple(results[row["id"]]),
                deliveries=tuple(deliveries[row["id"]]),
                steps=tuple(steps[row["id"]]),
            )
            for row in rows
        ]

    def _by_job(
        self, kind: type[_Record], statement: str, ids: list[uuid.UUID]
    ) -> defaultdict[uuid.UUID, list[_Record]]:
        grouped: defaultdict[uuid.UUID, list[_Record]] = defaultdict(list)
        for row in self._rows(statement, (ids,)):
            grouped[row["job_id"]].append(kind(**_fields(kind, row)))
        return grouped


def _fields(kind: type[Any], row: Mapping[str, Any]) -> dict[str, Any]:
    return {one.name: row[one.name] for one in fields(kind) if one.name in row}
