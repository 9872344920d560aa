"""An archive that does with what it gets what a test says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    SegmentationStorage,
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
)

HOST = "127.0.0.1"


class PlantedArchive:
    """A storage SCP that keeps the UIDs of what it got, finds them, and commits itself as a test says."""

    def __init__(self) -> None:
        self.held: list[str] = []
        self.requests: list[Dataset] = []
        self.status = 0x0000
        self.after: Callable[[evt.Event], None] = lambda event: None
        self.forgets = 0
        """So many objects are acknowledged and not kept."""
        self.breaks_before = self.breaks_after = 0
        """So many associations are broken when an object has come, before or after it is kept."""
        self.stores = self.questions = self.associations = 0

    def store(self, event: evt.Event) -> int:
        self.stores += 1
        if self.breaks_before:
            self.breaks_before -= 1
            event.assoc.abort()
        elif self.forgets:
            self.forgets -= 1
        else:
            self.held.append(str(event.request.AffectedSOPInstanceUID))
            if self.breaks_after:
                self.breaks_after -= 1
                event.assoc.abort()
        return 0x0000

    def accept(self, event: evt.Event) -> None:
        self.associations += 1

    def find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        self.questions += 1
        if event.identifier.SOPInstanceUID in self.held:
            yield 0xFF00, event.identifier
        yield 0x0000, None

    def act(self, event: evt.Event) -> tuple[int, None]:
        self.requests.append(event.action_information)
        threading.Thread(target=self.after, args=(event,), daemon=True).start()
        return self.status, None

    def information(self, reason: int | None = None, request: int = -1) -> Dataset:
        """What it reports on a request: success, or a reason for all of it."""
        asked = self.requests[request]
        information = Dataset()
        information.TransactionUID = asked.TransactionUID
        items = [Dataset(item) for item in asked.ReferencedSOPSequence]
        if reason is None:
            information.ReferencedSOPSequence = items
        else:
            for item in items:
                item.FailureReason = reason
            information.FailedSOPSequence = items
        return information


@contextmanager
def planted(*, answers_questions: bool = True, commits_itself: bool = True) -> Iterator[tuple[PlantedArchive, int]]:
    """An archive called PACS on loopback, and its port."""
    archive = PlantedArchive()
    entity = AE("PACS")
    entity.add_supported_context(SegmentationStorage)
    if commits_itself:
        entity.add_supported_context(StorageCommitmentPushModel)
    if answers_questions:
        entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    handlers = [
        (evt.EVT_C_STORE, archive.store),
        (evt.EVT_N_ACTION, archive.act),
        (evt.EVT_C_FIND, archive.find),
        (evt.EVT_ACCEPTED, archive.accept),
    ]
    server = entity.start_server((HOST, 0), block=False, evt_handlers=handlers)
    try:
        yield archive, server.server_address[1]
    finally:
        for association in server.active_associations:
            association.abort()
        server.shutdown()
