"""What a crash left in the spool without a record is recorded at the next start: no file lies there unaccounted for."""

from __future__ import annotations

from dataclasses import asdict

import structlog

from app.audit.events import AuditEvent, Outcome
from app.audit.log import AuditLog
from app.errors import CannotUnderstand, OutOfResources
from app.jobs.records import Instance, Records
from app.listener.durable import KeptFile
from app.listener.spool import Spool, read_instance_header

_log = structlog.get_logger(__name__)


def adopt_unrecorded(spool: Spool, records: Records, audit: AuditLog) -> int:
    """Record each whole file of the spool that has no record; return how many.

    The crash came between the file and its record, so its sender has had no answer and will most likely send it
    again; it is then known. Who sent it is not known any more. Content other than an instance had before is told to the
    audit log first, as it is when it is received (AuditError if it can't be).
    """
    adopted = []
    unknown = records.unknown_digests(spool.all_digests())
    if spool.is_shared:  # a copy of what was removed elsewhere has not come back
        unknown -= records.removed_of(unknown)
    for digest in sorted(unknown):
        path = spool.path_of(digest)
        try:
            header = read_instance_header(path)
        except CannotUnderstand as error:
            # it was checked before it was kept, so the disk has changed it since
            _log.error("spool.unreadable", code=error.code, digest=digest)
            continue
        size_bytes = path.stat().st_size
        try:
            spool.share(KeptFile(digest, size_bytes, path), is_new=True)
        except OutOfResources as error:
            _log.warning("spool.not_shared", code=error.code, digest=digest)  # the next start finds it again
            continue
        adopted.append(
            Instance(**asdict(header), digest=digest, size_bytes=size_bytes, calling_ae_title="", source_host="")
        )
    changed = records.adopt(adopted)
    for one in changed:
        audit.append(
            AuditEvent.INSTANCE_CHANGED,
            Outcome.SUCCESS,
            study_instance_uid=one.study_instance_uid,
            sop_instance_uid=one.sop_instance_uid,
        )
    records.adopt(changed, is_told=True)
    if adopted:
        _log.info("spool.adopted", instances=len(adopted))
    return len(adopted)
