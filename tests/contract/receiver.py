"""A receiver in a process of its own, to be killed: FOLDER PORT. Its ledger is a file, one synced line an instance."""

import os
import signal
import sys
from pathlib import Path

from app.jobs.records import Instance
from app.listener.association import Listener
from app.listener.spool import Spool
from app.settings_listener import ListenerSettings
from tests.listening import RecordedAudit


def main(folder: Path, port: int) -> None:
    spool = Spool(folder / "spool", 0)
    spool.prepare()
    ledger = os.open(folder / "ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def record(instance: Instance) -> None:
        os.write(ledger, f"{instance.sop_instance_uid} {instance.digest}\n".encode())
        os.fsync(ledger)

    settings = ListenerSettings(port=port)
    listener = Listener(settings, spool, record, RecordedAudit())  # type: ignore[arg-type]
    listener.start()
    sys.stdout.write(f"{listener.port}\n")
    sys.stdout.flush()
    signal.pause()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
