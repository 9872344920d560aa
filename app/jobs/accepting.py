"""What a person accepted becomes a job that has run already: made, verified and handed to delivery in one transaction.

Such jobs carry the rule and pipeline `app.settings_web.INTERACTIVE`, which no settings can name. Accepting the same
once more is the same job, as everywhere.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.audit.events import AuditEvent
from app.audit.log import AuditLog
from app.errors import InputMissing, VerificationFailed
from app.graph import RECORD_FILE, CompletionRecord
from app.jobs.auditing import audit_job
from app.jobs.forms import Forms
from app.jobs.identity import ModelFacts, job_id, job_key
from app.jobs.queue import TaskQueue
from app.jobs.recording import record_verified
from app.jobs.records import Consequence, Job, JobInput, NewJob, Records, SeenSeries
from app.jobs.result_files import ResultFiles
from app.jobs.verification import VerifiedObject, verify_results
from app.settings import Settings
from app.settings_web import INTERACTIVE
from app.telemetry import get_logger
from operators.object_kinds import Kind

Write = Callable[[str, Path, Sequence[Kind]], None]

_APPLICATION = "app.web"
_ATTEMPT = 1

_log = get_logger(__name__)


@dataclass(frozen=True)
class Drawn:
    """What a person accepts."""

    series: SeenSeries
    """The series it was drawn on, as it was when it was opened."""
    inputs: Sequence[JobInput]
    """Its instances."""
    files: Sequence[Path]
    """Theirs."""
    model: ModelFacts
    """The generalist."""
    digest: str
    """SHA-256 of the mask and of all that is said about it, 64 hexadecimal digits."""
    destinations: Sequence[str]
    session: str
    """The session, as the audit log names it."""


class Accepting:
    """Makes jobs of what people accept. Threads may call it at once; they take turns."""

    def __init__(
        self,
        *,
        settings: Settings,
        records: Records,
        audit: AuditLog,
        program_version: str,
        result_files: ResultFiles,
    ) -> None:
        self._settings = settings
        self._records = records
        self._audit = audit
        self._queue = TaskQueue()
        self._result_files = result_files
        self._forms = Forms(settings, records)
        self._program_version = program_version
        self._turn = threading.Lock()

    def accept(self, drawn: Drawn, write: Write) -> tuple[Job, bool]:
        """Have the objects written, verify and record them with their deliveries.

        Returns the job, and whether it is new.

        Parameters
        ----------
        drawn
            What is accepted.
        write
            Given the job's identity, an empty folder and the kinds that are wanted, writes the objects, the label map
            and the completion record.

        Raises
        ------
        InputMissing
            If instances are no longer in the spool.
        VerificationFailed
            If what was written, read back, is not what was drawn.
        StorageError
            If other hosts can't have it now; it may be accepted again.
        """
        missing = sum(not path.is_file() for path in drawn.files)
        if missing:
            raise InputMissing(f"{missing} of the series' {len(drawn.files)} instances are no longer in the spool")
        job = self._job(drawn)
        with self._turn:
            known = self._records.job(job.id)
            if known is not None:
                return known, False
            return self._accept(job, drawn, write), True

    def _accept(self, job: NewJob, drawn: Drawn, write: Write) -> Job:
        folder = self._settings.results_folder / str(job.id) / str(_ATTEMPT)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        began = time.monotonic()
        write(job.key, folder, self._forms.kinds(job))
        written = time.monotonic()
        try:
            record = CompletionRecord.from_json((folder / RECORD_FILE).read_bytes())
        except (OSError, ValueError) as error:
            raise VerificationFailed("the session ended its writing without a completion record") from error
        verified = verify_results(record, folder, drawn.files)
        self._result_files.share(job.id, [(one.digest, one.path) for one in verified])
        steps = {"write": written - began, "verify": time.monotonic() - written}
        self._record(job, drawn, verified, steps, Consequence(notes=record.notes))
        made = self._records.job(job.id)
        if made is None:
            raise VerificationFailed("the job that was recorded is not in the records")
        _log.info("job.accepted", job_id=str(job.id))
        return made

    def _record(
        self,
        job: NewJob,
        drawn: Drawn,
        verified: Sequence[VerifiedObject],
        steps: Mapping[str, float],
        consequence: Consequence,
    ) -> None:
        with self._records.transaction() as connection:
            if not self._records.insert_job(connection, job, drawn.inputs):
                return  # another server on these records was faster with the same
            audit_job(
                self._audit,
                AuditEvent.JOB_CREATED,
                job,
                rule=INTERACTIVE,
                instances=len(drawn.inputs),
                session=drawn.session,
            )
            detail: dict[str, Any] = (
                {"input_notes": [one.code for one in consequence.notes]} if consequence.notes else {}
            )
            audit_job(
                self._audit, AuditEvent.RESULTS_VERIFIED, job, attempt=_ATTEMPT, instances=len(verified), **detail
            )
            self._records.begin_attempt(job.id, connection=connection)
            record_verified(
                self._records, self._queue, connection, self._forms, job, _ATTEMPT, verified, steps, consequence
            )

    def _job(self, drawn: Drawn) -> NewJob:
        model = drawn.model
        key = job_key(
            drawn.inputs,
            pipeline=INTERACTIVE,
            application=_APPLICATION,
            model=model,
            program_version=self._program_version,
            accepted=drawn.digest,
        )
        return NewJob(
            id=job_id(key),
            key=key,
            study_instance_uid=drawn.series.study_instance_uid,
            series_instance_uid=drawn.series.series_instance_uid,
            series_revision=drawn.series.revision,
            rule=INTERACTIVE,
            pipeline=INTERACTIVE,
            model_name=model.name,
            model_version=model.version,
            weights_digest=model.weights_digest,
            destinations=drawn.destinations,
            priority=0,
        )
