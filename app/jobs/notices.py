"""Where there is no result, the objects that say so: a reader must be able to tell "found nothing" from "did not run".

A rule's ``no_result`` says whether destinations get them. They are written from the headers of the series alone, read
back, and delivered like results; the job's state is what it is without them, and nothing that goes wrong with them
changes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pydicom

from app.errors import LimnerError, StorageError, VerificationFailed
from app.graph import IMAGES_CHANNEL
from app.identifiers import UID
from app.jobs.queue import TaskQueue
from app.jobs.readback.notice import check_notice
from app.jobs.records import Connection, Job, JobInput, NewJob, Records, Result, Sending
from app.jobs.result_files import ResultFiles
from app.settings import Settings
from app.telemetry import get_logger
from operators.errors import OperatorError
from operators.headers import read_before_pixels, without_unread
from operators.object_kinds import Kind
from operators.parse_errors import PARSE_ERRORS

if TYPE_CHECKING:
    from operators.results.finding import WrittenObject

Outcome = Literal["refused", "failed", "nothing-found"]
NOTHING_FOUND = "nothing-found"
_SAID = "the model ran to its end and found none of its structures"
_KINDS: dict[str, tuple[Kind, ...]] = {
    "nothing": (),
    "notice": ("notice",),
    "notice-and-page": ("notice", "notice-page"),
}

_log = get_logger(__name__)


@dataclass(frozen=True)
class Notice:
    """What is said of a job without result."""

    outcome: Outcome
    code: str
    reason: str

    @classmethod
    def nothing_found(cls) -> Notice:
        """Of a run that ended well and marked nothing."""
        return cls("nothing-found", NOTHING_FOUND, _SAID)


class Notices:
    """Writes notices and has them delivered. Its parameters are those of `app.jobs.workflow.Workflow`."""

    def __init__(
        self,
        *,
        settings: Settings,
        records: Records,
        queue: TaskQueue,
        spool_path_of: Callable[[str], Path],
        result_files: ResultFiles,
    ) -> None:
        self._settings = settings
        self._records = records
        self._queue = queue
        self._spool_path_of = spool_path_of
        self._result_files = result_files

    def write(self, job: Job | NewJob, inputs: Sequence[JobInput], attempt: int, notice: Notice) -> list[Result]:
        """Write what the job's rule wants said, and return it; nothing if the rule wants nothing, or if that fails.

        Raises
        ------
        StorageError
            If other hosts can't have it now.
        """
        kinds = _KINDS[self._settings.no_result_of(job.rule)]
        if not (kinds and job.destinations):
            return []
        folder = self._settings.results_folder / str(job.id) / f"{attempt}-notice"
        try:
            headers = self._headers(inputs)
            folder.mkdir(parents=True, exist_ok=True)
            results = [self._written(kind, job, attempt, notice, headers, folder) for kind in kinds]
            self._result_files.share(job.id, [(one.digest, Path(one.path)) for one in results])
            return results
        except StorageError:
            raise  # what ends the job is repeated, and writes it then
        except (LimnerError, OperatorError) as error:
            _log.warning("notice.not_written", job_id=str(job.id), code=error.code)
        except Exception as error:  # noqa: BLE001 - a notice never keeps its job from ending; headers may be anything
            _log.error("notice.defect", job_id=str(job.id), error=type(error).__name__)
        return []

    def send(self, connection: Connection, job: Job | NewJob, results: Sequence[Result]) -> None:
        """Record notices together with their deliveries; of a destination that was asked, those that it takes."""
        profiles = self._records.profiles()
        sendings = []
        for destination in job.destinations:
            profile = profiles.get(destination)
            taken = [one for one in results if profile is not None and one.kind in profile.accepted]
            sendings += [Sending(job.id, one.digest, destination) for one in taken or results]
        self._records.add_results(connection, results, sendings)
        for one in sendings:
            self._queue.defer_deliver(connection, job, one.digest, one.destination)

    def _headers(self, inputs: Sequence[JobInput]) -> list[pydicom.Dataset]:
        """The headers that can be read of the series that the job is about: of a prompt, its images."""
        images = [one for one in inputs if one.channel == IMAGES_CHANNEL] or inputs
        headers: list[pydicom.Dataset] = []
        for one in images:
            try:
                headers.append(without_unread(read_before_pixels(self._spool_path_of(one.digest))))
            except (OSError, *PARSE_ERRORS):
                continue
        if not headers:
            raise VerificationFailed("none of the series' instances can be read, so that a notice belongs to no study")
        return headers

    def _written(
        self,
        kind: Kind,
        job: Job | NewJob,
        attempt: int,
        notice: Notice,
        headers: Sequence[pydicom.Dataset],
        folder: Path,
    ) -> Result:
        written = _write(kind, job, notice, headers, folder / f"{kind}.dcm")
        dataset = pydicom.dcmread(written.path)
        check_notice(dataset, headers[0], notice.code)
        return Result(
            job_id=job.id,
            digest=written.digest,
            attempt=attempt,
            path=str(written.path),
            sop_class_uid=UID(written.sop_class_uid),
            sop_instance_uid=UID(written.sop_instance_uid),
            series_instance_uid=UID(written.series_instance_uid),
            transfer_syntax_uid=UID(str(dataset.file_meta.TransferSyntaxUID)),
            kind=kind,
        )


def _write(
    kind: Kind, job: Job | NewJob, notice: Notice, headers: Sequence[pydicom.Dataset], path: Path
) -> WrittenObject:
    # imported here: few servers ever need them, and they take half a second
    from operators.results.finding import Algorithm
    from operators.results.notice import write_notice
    from operators.results.notice_page import write_notice_page

    algorithm = Algorithm(job.model_name, job.model_version, job.weights_digest)
    # a later attempt that ends otherwise, or in other words, is another object; one that ends as before is the same
    identity = chr(31).join((job.key, notice.outcome, notice.code, notice.reason))
    undated = job.created_at if isinstance(job, Job) else None  # one that is refused as it is made never ends again
    if kind == "notice":
        return write_notice(
            headers,
            path,
            outcome=notice.outcome,
            code=notice.code,
            sentence=notice.reason,
            pipeline=job.pipeline,
            identity=identity,
            algorithm=algorithm,
            undated=undated,
        )
    return write_notice_page(
        headers,
        path,
        study_instance_uid=job.study_instance_uid,
        series_instance_uid=job.series_instance_uid,
        identity=identity,
        pipeline=job.pipeline,
        algorithm=algorithm,
        outcome=notice.outcome,
        code=notice.code,
        reason=notice.reason,
        undated=undated,
    )
