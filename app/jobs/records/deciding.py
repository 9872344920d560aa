"""Step 2: series, studies and the decisions about them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import timedelta

from app.jobs.arrival_entries import ClockReading
from app.jobs.connections import Connection, Connections, read_statements
from app.jobs.entries import JobInput, NewJob, SeenSeries, SeriesState

_SQL = read_statements("deciding.sql")
_LEAST_JUMP_SECONDS = 1.0
"""A clock that is put right little by little does not jump so far between two looks."""


class DecideRecords(Connections):
    """What is decided about it."""

    def restart_quiet_times(self) -> None:
        """Let the quiet times begin anew: called when the listener starts, since nothing could come before."""
        with self.transaction() as connection:
            connection.execute(_SQL["restart_quiet_times"])

    def follow_clock(self, before: ClockReading | None) -> tuple[ClockReading, bool]:
        """Let quiet times go on as they were where the database's clock was set ahead since it was read before.

        Returns what it says now, and whether it was: what was read since `before` is then to be read again. One that
        was set back is seen by the times alone (`undecided_series`).
        """
        with self.transaction() as connection:
            asked = time.monotonic()
            row = connection.execute(_SQL["database_time"]).fetchone()
            assert row is not None  # noqa: S101 - the statement always returns its row
            now = ClockReading(asked, row["now"], time.monotonic())
            is_ahead = False
            if before is not None:
                passed, longest = (now.database - before.database).total_seconds(), now.answered - before.asked
                is_ahead = passed - longest > _LEAST_JUMP_SECONDS
                if is_ahead:
                    ahead = passed - (now.asked - before.answered)
                    until = before.database + timedelta(seconds=longest)
                    connection.execute(_SQL["follow_clock"], {"ahead": ahead, "until": until})
        return now, is_ahead

    def undecided_series(self) -> list[SeenSeries]:
        """Return the series that wait for their decision, the longest quiet first."""
        with self.transaction() as connection:
            connection.execute(_SQL["mend_clock"])
            rows = connection.execute(_SQL["undecided_series"]).fetchall()
        return [SeenSeries(**row) for row in rows]

    def waiting_series(self) -> list[SeenSeries]:
        """Return the same to be looked at alone: nothing is written."""
        return [SeenSeries(**row) for row in self._rows(_SQL["undecided_series"], ())]

    def explain_waiting(self, series: SeenSeries, waits_for: str) -> None:
        """Record what the decision about a complete series waits for, in words."""
        self._happened(_SQL["explain_waiting"], {**asdict(series), "waits_for": waits_for})

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

    def series_inputs(
        self, connection: Connection, series: SeenSeries, channel: str = "", *, with_removed: bool = False
    ) -> list[JobInput]:
        """Return the instances of a series, the latest content each, as inputs of a channel.

        Those whose files retention removed are left out, unless `with_removed`.
        """
        facts = {**asdict(series), "with_removed": with_removed}
        rows = connection.execute(_SQL["inputs_of_series"], facts).fetchall()
        return [JobInput(row["sop_instance_uid"], row["digest"], channel) for row in rows]

    def knows_job(self, connection: Connection, key: str) -> bool:
        """Whether there is a job with this key, other than one whose model was replaced before it ran."""
        row = connection.execute(_SQL["knows_job"], (key,)).fetchone()
        return row is not None and bool(row["found"])

    def insert_job(self, connection: Connection, job: NewJob, inputs: Iterable[JobInput]) -> bool:
        """Make the job; False if there is one with the same key."""
        facts = {**asdict(job), "destinations": list(job.destinations)}
        if connection.execute(_SQL["insert_job"], facts).fetchone() is None:
            return False
        with connection.cursor() as cursor:
            cursor.executemany(_SQL["insert_input"], [(job.id, *one) for one in inputs])
        return True

    def begin_again(self, connection: Connection, job: NewJob) -> int | None:
        """Put a job back to queued whose model was replaced; how many attempts it had, None if it is none of those."""
        facts = {**asdict(job), "destinations": list(job.destinations)}
        row = connection.execute(_SQL["begin_again"], facts).fetchone()
        return None if row is None else int(row["attempt"])

    def note_shortfalls(
        self, connection: Connection, job_id: uuid.UUID, series: Iterable[SeenSeries], *, of_study: bool
    ) -> None:
        """Note on a job of which of its series an archive has more instances than came.

        Parameters
        ----------
        of_study
            Whether also that it has series of the study that did not come.
        """
        seen = tuple(dict.fromkeys(series))
        short = [one.remark for one in seen if one.shortfall]
        missing = [
            f"{one.study_shortfall}, and the archive {one.asked_archive} has more"
            for one in seen
            if one.study_shortfall
        ]
        message = "; ".join([*short, *(dict.fromkeys(missing) if of_study else ())])
        if message:
            connection.execute(_SQL["note_shortfall"], {"job_id": job_id, "message": message})

    def refuse_job(self, connection: Connection, job_id: uuid.UUID, code: str, reason: str) -> None:
        """End a job that was just made as refused."""
        self._happened(_SQL["refuse_job"], {"id": job_id, "code": code, "reason": reason}, connection)

    def reopen_series(self, connection: Connection, job_id: uuid.UUID) -> None:
        """Have the series of a job decided once more."""
        connection.execute(_SQL["reopen_series"], (job_id,))
