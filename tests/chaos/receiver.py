"""The receive path as a process of its own: FOLDER DATABASE_URL LOW_WATER_BYTES LISTENER SHARED_STORAGE.

The last two are settings, as JSON; where the storage's are none, the spool is a folder.

The real listener, spool, records on PostgreSQL and audit log, put together as the server does it; no jobs, and what the
hostile peers report on commitments is forgotten, after a time in which a receiver without bounds would read on. It
writes its port to standard output once it listens.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

from app.audit.log import AuditLog
from app.bootstrap.parts import make_store
from app.jobs.records import Records
from app.listener.adoption import adopt_unrecorded
from app.listener.association import Listener
from app.listener.commitment import CommitmentReports
from app.listener.shared_spool import SharedSpool
from app.listener.spool import Spool
from app.settings import LoggingSettings
from app.settings_listener import ListenerSettings
from app.settings_shared_storage import SharedStorageSettings
from app.telemetry import configure_logging


def main(
    folder: Path,
    database_url: str,
    low_water_bytes: int,
    settings: dict[str, object],
    shared_storage: dict[str, object],
) -> None:
    configure_logging(LoggingSettings())
    with AuditLog(folder / "audit") as audit, Records(database_url) as records:
        spool = _spool(folder / "spool", low_water_bytes, shared_storage)
        spool.prepare()
        adopt_unrecorded(spool, records, audit)
        listener = Listener(
            ListenerSettings.model_validate(settings),
            spool,
            records.record_instance,
            audit,
            records.backlog,
            reports=CommitmentReports({"RAW": ["archive"]}, _forget, audit),
        )
        listener.start()
        sys.stdout.write(f"{listener.port}\n")
        sys.stdout.flush()
        signal.sigwait({signal.SIGTERM})
        listener.stop()


def _forget(*_: object) -> bool:
    """Stand in for the keeping of a report, in a database that takes its time."""
    time.sleep(3)
    return True


def _spool(folder: Path, low_water_bytes: int, shared_storage: dict[str, object]) -> Spool:
    store = make_store(SharedStorageSettings.model_validate(shared_storage))
    return Spool(folder, low_water_bytes) if store is None else SharedSpool(folder, low_water_bytes, store)


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4]), json.loads(sys.argv[5]))
