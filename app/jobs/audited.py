"""What the audit logs say happened, held to the records: jobs, deliveries and the studies that came.

A log's line is written before its effect is recorded, and some before the job itself is: such a line may be all that is
left of a transaction that was rolled back. So what is missing is asked for by the lines alone that are written of what
is recorded. The logs are read after the records' snapshot, and what is missing by it is asked for once more then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from app.audit.chain import read_records
from app.audit.events import AuditEvent
from app.jobs.discrepancies import Discrepancy
from app.jobs.records import Records
from app.jobs.records.accounting import NamedDelivery, batches

_ENDS = {
    "closed": {AuditEvent.JOB_CLOSED.name},
    "failed": {AuditEvent.JOB_FAILED.name},
    "refused": {AuditEvent.JOB_REFUSED.name},
    "discarded": {AuditEvent.JOB_DISCARDED.name},
    "cancelled": {AuditEvent.JOB_CANCELLED.name},
    "dead-letter": {AuditEvent.JOB_GIVEN_UP.name},
}
"""The audit line of each way to end; of any other, a line that is not among `_NO_ENDS`."""
_NO_ENDS = {"JOB_CREATED", "JOB_HELD", "JOB_RELEASED", "JOB_REPLAYED", "JOB_PUT_FIRST"}
_LIVE = ("queued", "running", "held", "delivering")
_OF_RECORDED = {
    *(AuditEvent.GRAPH_STARTED.name, AuditEvent.DELIVERY_BEGAN.name, AuditEvent.JOB_SUPERSEDED.name),
    *(AuditEvent.JOB_CLOSED.name, AuditEvent.JOB_FAILED.name, AuditEvent.JOB_GIVEN_UP.name),
    *(AuditEvent.JOB_DISCARDED.name, AuditEvent.JOB_CANCELLED.name),
}
"""Written only of a job that is in the records. Not so what stands in the transaction that makes the job."""
_MADE = {
    "delivered": AuditEvent.DELIVERY_SUCCEEDED.name,
    "committing": AuditEvent.DELIVERY_SUCCEEDED.name,
    "committed": AuditEvent.COMMITMENT_RECEIVED.name,
}
"""The audit line of a delivery in each state that says that the destination has the object."""


@dataclass(frozen=True)
class RecordedWork:
    """What the records' snapshot has of jobs."""

    jobs: Sequence[Mapping[str, Any]]
    """Number, state, time and study of each."""
    deliveries: Mapping[NamedDelivery, str]
    """The state of each delivery of these jobs."""


def hold_to_logs(
    records: Records, folders: Iterable[Path], recorded: RecordedWork, since: datetime
) -> list[Discrepancy]:
    """Hold jobs and their deliveries to the audit logs, and what the logs say of the time since to the records.

    Raises
    ------
    AuditError
        If an audit log can't be read.
    """
    lines = _Lines.of(folders, since)
    if lines.begin is None:
        return [Discrepancy("audit-log-missing")] if recorded.jobs else []
    held = {
        name: job
        for name, job in ((str(one["id"]), one) for one in recorded.jobs)
        if job["created_at"] >= lines.begin or name in lines.created  # a clock may have been set back
    }
    found = [one for name, job in held.items() for one in _unsaid(lines, name, job)]
    found += _not_made(lines, recorded.deliveries, held)
    found += _missing_jobs(records, lines, {str(job["id"]) for job in recorded.jobs})
    found += _missing_deliveries(records, lines, recorded)
    found += _missing_studies(records, lines)
    return found


def _unsaid(lines: _Lines, name: str, job: Mapping[str, Any]) -> Iterator[Discrepancy]:
    """What the logs do not say of a job. Of one that is older than the logs the lines were moved away."""
    state, ends = job["state"], lines.ends.get(name, set())
    if name not in lines.created:
        yield Discrepancy.about("audit-job-not-created", {**job, "job_id": name})
    if state not in _LIVE and not (ends & _ENDS[state] if state in _ENDS else ends):
        yield Discrepancy.about("audit-job-not-ended", {**job, "job_id": name})


def _not_made(
    lines: _Lines, deliveries: Mapping[NamedDelivery, str], jobs: Mapping[str, Mapping[str, Any]]
) -> Iterator[Discrepancy]:
    """Deliveries that destinations have by the records alone."""
    for one, state in deliveries.items():
        if state in _MADE and one.job_id in jobs and one not in lines.made[_MADE[state]]:
            study = jobs[one.job_id]["study_instance_uid"]
            yield Discrepancy.about("audit-delivery-not-made", {**one._asdict(), "study_instance_uid": study})


def _missing_jobs(records: Records, lines: _Lines, known: set[str]) -> Iterator[Discrepancy]:
    """Jobs of which the logs say what is only said of a recorded one. No job's row is ever removed."""
    for batch in batches(lines.told.keys() - known):
        for name in set(batch) - records.jobs_of(batch):
            yield Discrepancy("job-missing", job_id=name, **lines.told[name])


def _missing_deliveries(records: Records, lines: _Lines, recorded: RecordedWork) -> Iterator[Discrepancy]:
    """Deliveries that began by the logs: of the jobs of the snapshot, and of others that did something since."""
    studies: dict[str, Any] = {name: told.get("study_instance_uid") for name, told in lines.told.items()}
    studies |= {str(job["id"]): job["study_instance_uid"] for job in recorded.jobs}
    unknown = {one for one in lines.begun.difference(recorded.deliveries) if one.job_id in studies}
    for batch in batches({one.job_id for one in unknown}):
        unknown -= records.deliveries_of(batch)
    for one in unknown:
        row = {**one._asdict(), "study_instance_uid": studies[one.job_id]}
        yield Discrepancy.about("delivery-missing", row)


def _missing_studies(records: Records, lines: _Lines) -> Iterator[Discrepancy]:
    """Studies that came by the logs, and of which nothing is recorded. No instance's row is ever removed."""
    for batch in batches(lines.received):
        for study in records.studies_without_instances(batch):
            yield Discrepancy("study-missing", study_instance_uid=study)


@dataclass
class _Lines:
    """What audit logs say."""

    begin: datetime | None = None
    """When the oldest of the logs begins; None if there is no line."""
    created: set[str] = field(default_factory=set)
    ends: dict[str, set[str]] = field(default_factory=dict)
    begun: set[NamedDelivery] = field(default_factory=set)
    made: dict[str, set[NamedDelivery]] = field(default_factory=lambda: {one: set() for one in _MADE.values()})
    """What destinations took, and what they committed themselves to, by event."""
    told: dict[str, dict[str, str]] = field(default_factory=dict)
    """The recorded jobs that did something since the moment asked for, each with its study and series."""
    received: set[str] = field(default_factory=set)
    """The studies that came since."""

    @classmethod
    def of(cls, folders: Iterable[Path], since: datetime) -> _Lines:
        """Read the logs, each once."""
        lines = cls()
        for folder in folders:
            is_first = True
            for line in read_records(folder):
                moment = datetime.fromisoformat(line["time"])
                if is_first:
                    lines.begin = moment if lines.begin is None else min(lines.begin, moment)
                    is_first = False
                lines._take(line["event"], line["detail"])
                if moment >= since:
                    lines._take_recent(line["event"], line["detail"])
        return lines

    def _take(self, event: str, detail: Mapping[str, Any]) -> None:
        if event == AuditEvent.JOB_CREATED.name:
            self.created.add(detail["job_id"])
        elif event == AuditEvent.DELIVERY_BEGAN.name:
            self.begun.add(_delivery(detail))
        elif event in self.made:
            self.made[event].add(_delivery(detail))
        elif event.startswith("JOB_") and event not in _NO_ENDS:
            self.ends.setdefault(detail["job_id"], set()).add(event)

    def _take_recent(self, event: str, detail: Mapping[str, Any]) -> None:
        if event in _OF_RECORDED or event == AuditEvent.JOB_REFUSED.name and "attempt" in detail:
            named = self.told.setdefault(detail["job_id"], {})
            named |= {key: detail[key] for key in ("study_instance_uid", "series_instance_uid") if key in detail}
        elif event == AuditEvent.INSTANCES_RECEIVED.name:
            self.received.add(detail["study_instance_uid"])


def _delivery(detail: Mapping[str, Any]) -> NamedDelivery:
    return NamedDelivery(detail["job_id"], detail["object_digest"], detail["destination"])
