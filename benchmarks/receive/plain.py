"""Plain pynetdicom as a receiver, its quick way: FOLDER PORT. It syncs nothing and records nothing."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

from pynetdicom import AE, StoragePresentationContexts, _config, evt


def main(folder: Path, port: int) -> None:
    """Write what comes as it was encoded, without decoding it."""
    _config.LOG_HANDLER_LEVEL = "none"

    def opened(event: Any) -> None:
        event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def store(event: Any) -> int:
        (folder / f"{event.request.AffectedSOPInstanceUID}.dcm").write_bytes(event.encoded_dataset())
        return 0

    entity = AE("PLAIN")
    entity.maximum_pdu_size = 131072
    entity.supported_contexts = StoragePresentationContexts
    entity.start_server(("127.0.0.1", port), evt_handlers=[(evt.EVT_CONN_OPEN, opened), (evt.EVT_C_STORE, store)])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
