"""What became of all of it, to be looked at."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any, TypeVar

from psycopg.rows import DictRow

from app.jobs.connections import Connection, Connections, read_statements
from app.jobs.entries import Agreement, Delivery, Finding, Job, JobState, Result, Series, Step
from operators.gate.notes import GateNote

_Record = TypeVar("_Record")
_SQL = read_statements("watching.sql")


class WatchRecords(Connections):
    """What became of all of it."""

    def job(self, job_id: uuid.UUID) -> Job | None:
        """Return one job with its results, deliveries and steps."""
        found = self._jobs(self._rows(_SQL["job"], (job_id,)))
        return found[0] if found else None

    def jobs(self, limit: int = 100, state: JobState | None = None) -> list[Job]:
        """Return the newest jobs, those in a state alone if one is given, the newest first."""
        return self._jobs(self._rows(_SQL["newest_jobs"], {"limit": limit, "state": state or ""}))

    def findings(self, job_id: uuid.UUID) -> list[Finding]:
        """Return the segments of a job's results, the specialist's first."""
        return [Finding(**row) for row in self._rows(_SQL["findings_of_job"], (job_id,))]

    def agreement(self, job_id: uuid.UUID) -> list[Agreement]:
        """Return how far a job's two models agree, segment by segment."""
        rows = self._rows(_SQL["agreement_of_job"], (job_id,))
        return [Agreement(**{**row, "beyond": tuple(row["beyond"])}) for row in rows]

    def notes(self, job_id: uuid.UUID) -> list[GateNote]:
        """Return the notes on a job's input: what the gate let pass, what of prompts was left out or overlaps."""
        return [GateNote(**row) for row in self._rows(_SQL["notes_of_job"], (job_id,))]

    def series(self) -> list[Series]:
        """Return every series, in the order they came."""
        return [Series(**_fields(Series, row)) for row in self._rows(_SQL["all_series"], ())]

    def moment(self, connection: Connection, seconds_ahead: float) -> datetime:
        """Return a moment by the database's clock, which schedules the tasks."""
        row = connection.execute(_SQL["clock"], (seconds_ahead,)).fetchone()
        assert row is not None  # noqa: S101 - a SELECT without FROM has one row
        moment: datetime = row["moment"]
        return moment

    def _jobs(self, rows: list[DictRow]) -> list[Job]:
        ids = [row["id"] for row in rows]
        # in this order: what a delivery sends was recorded with it or before, and so is among the results
        deliveries = self._by_job(Delivery, _SQL["deliveries_of_jobs"], ids)
        results = self._by_job(Result, _SQL["results_of_jobs"], ids)
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
