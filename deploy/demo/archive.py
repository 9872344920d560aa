"""A demonstration archive: a DICOM storage SCP that keeps what it gets as files.

In a hospital a real PACS stands here.
"""

from __future__ import annotations

from pathlib import Path

from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification


class DemonstrationArchive:
    """Keeps each instance as ``<folder>/<SOP Instance UID>.dcm``; the same instance again replaces the file.

    Only for the demonstration on one machine: it trusts the sender's UID as a file name after checking its characters.
    """

    def __init__(self, folder: Path, ae_title: str = "ARCHIVE") -> None:
        self.folder = folder
        self._entity = AE(ae_title)
        for context in AllStoragePresentationContexts:
            self._entity.add_supported_context(context.abstract_syntax)
        self._entity.add_supported_context(Verification)
        self.port = 0

    def __enter__(self) -> DemonstrationArchive:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen on a free port of the loopback interface."""
        self.folder.mkdir(parents=True, exist_ok=True)
        server = self._entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, self._keep)])
        self.port = server.server_address[1]

    def stop(self) -> None:
        """Stop listening."""
        self._entity.shutdown()

    def _keep(self, event: evt.Event) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        if not set(uid) <= set("0123456789."):
            return 0x0117  # invalid object instance (PS3.7 annex C)
        aside = self.folder / f"{uid}.part"
        aside.write_bytes(event.encoded_dataset())
        aside.replace(self.folder / f"{uid}.dcm")
        return 0x0000
