"""Step 3: attempts of jobs, what they made and a person's decision about it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict

from app.jobs.connections import Connection, Connections, read_statements
from app.jobs.entries import Consequence, DeliveryState, Job, JobInput, JobState, NewJob, Result, Sending

_SQL = read_statements("working.sql")


class WorkRecords(Connections):
    """What jobs do with it."""

    def job_inputs(self, job_id: uuid.UUID) -> list[JobInput]:
        """Return the job's instances."""
        return [JobInput(**row) for row in self._rows(_SQL["inputs_of_job"], (job_id,))]

    def begin_attempt(
        self, job_id: uuid.UUID, task: int | None = None, connection: Connection | None = None
    ) -> tuple[int, int] | None:
        """Start the next attempt: its number (the fence) and how many count so far; None if the job needs no run.

        Nor does it of a `task` of the queue that was taken over: whoever has it now would be overtaken, and lose it.
        """
        with self.transaction() if connection is None else nullcontext(connection) as using:
            using.execute(_SQL["lock_begun_job"], (job_id,))
            row = using.execute(_SQL["begin_attempt"], {"id": job_id, "task": task}).fetchone()
        return None if row is None else (row["attempt"], row["tries"])

    def report_progress(self, job_id: uuid.UUID, attempt: int, step: str, done: int, total: int) -> bool:
        """Write the graph's progress to the job; False if the attempt was overtaken or its job has ended."""
        facts = {"id": job_id, "attempt": attempt, "step": step, "done": done, "total": total}
        return self._happened(_SQL["report_progress"], facts)

    def release_attempt(self, job_id: uuid.UUID, attempt: int, code: str = "", reason: str = "") -> None:
        """Give an attempt back that a shutdown ended, or that failed for the host's sake: it does not count."""
        facts = {"id": job_id, "attempt": attempt, "code": code, "reason": reason}
        self._happened(_SQL["release_attempt"], facts)

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
        """Record objects of a job and the deliveries to come, as held or waiting; one that is known changes nothing."""
        state = "held" if is_held else "waiting"
        with connection.cursor() as cursor:
            cursor.executemany(_SQL["insert_result"], [asdict(one) for one in results])
            if sendings:
                cursor.executemany(_SQL["insert_delivery"], [(*one, state) for one in sendings])
                cursor.execute(_SQL["count_deliveries"], (cursor.rowcount, sendings[0].job_id))

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
