"""Results to a destination by STOW-RS, and questions to it by QIDO-RS (PS3.18 sections 10.5 and 10.6).

As with C-STORE nothing is converted on the way: the file that was verified is the file that arrives.
"""

from __future__ import annotations

import time
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote

from pydicom.filereader import read_file_meta_info

from app.delivery.dimse import FileSyntax, read_file_syntax
from app.delivery.qido import found_in
from app.delivery.stow import CONTEXT_REFUSED, Body, check_stored, refusal, values
from app.delivery.web_service import WebService
from app.errors import DeliveryRefused
from app.identifiers import UID
from app.settings import DestinationSettings
from operators.object_kinds import NEEDS, Kind

_SOP_INSTANCE_UID = "00080018"
_NO_STUDY = "2.25.0"
"""A query for it proves that queries are answered, and brings nobody's data over."""


class DicomWebDestination:
    """A destination that takes results by STOW-RS.

    Parameters
    ----------
    settings
        Where it is, and who asks.
    """

    def __init__(self, settings: DestinationSettings) -> None:
        self._name = settings.name
        self._remembered_seconds = settings.probe_seconds
        self._service = WebService(settings)
        self._can_be_asked = settings.ask != "never"
        self._refused: dict[FileSyntax, float] = {}

    @property
    def name(self) -> str:
        """What rules and records call it."""
        return self._name

    @property
    def can_be_asked(self) -> bool:
        """Whether the settings let it be asked what it holds: whoever may store may query, by QIDO-RS."""
        return self._can_be_asked

    def check(self) -> None:
        """Ask by QIDO-RS for a study that nobody has.

        Raises
        ------
        DeliveryError
            If it is not answered; the message says what to do.
        """
        answer = self._service.get(f"/studies?StudyInstanceUID={_NO_STUDY}&limit=1")
        if answer.status not in (HTTPStatus.OK, HTTPStatus.NO_CONTENT):
            raise refusal(answer, self._service)

    def accepted_kinds(self) -> tuple[Kind, ...]:
        """Return which kinds of results it takes, as far as that is known: all that it did not refuse lately.

        DICOMweb has no question for it. What it refuses when it is sent is remembered for `probe_seconds`.

        Raises
        ------
        DeliveryError
            If it does not answer now.
        """
        self.check()
        now = time.monotonic()
        refused = {syntax for syntax, at in list(self._refused.items()) if now - at < self._remembered_seconds}
        return tuple(
            kind
            for kind, (sop_class, syntax) in NEEDS.items()
            if FileSyntax(UID(str(sop_class)), UID(str(syntax))) not in refused
        )

    def deliver(self, path: Path) -> None:
        """Send a Part 10 file by STOW-RS in a request of its own, block by block.

        Raises
        ------
        DeliveryError
            As `WebService.get`, or ``answer-unreadable``, ``not-acknowledged``, the HTTP status as ``http-503`` or the
            Failure Reason as ``status-a700``: may succeed later.
        DeliveryRefused
            Code ``context-refused``, ``http-413``, ``status-c000``, ``not-dicom`` or ``file-unreadable``: won't.
        """
        syntax = read_file_syntax(path)
        sop_instance_uid = str(read_file_meta_info(path).get("MediaStorageSOPInstanceUID", ""))
        try:
            with path.open("rb") as file:
                body = Body.of(file)
                answer = self._service.post("/studies", body, body.length, body.content_type)
            check_stored(answer, sop_instance_uid, self._service)
        except DeliveryRefused as error:
            if error.code == CONTEXT_REFUSED:
                self._refused[syntax] = time.monotonic()
            raise

    def holds(self, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str) -> bool:
        """Ask by QIDO-RS whether it has an instance.

        Raises
        ------
        DeliveryError
            If it can't be asked now, or does not answer such questions.
        """
        series = f"/studies/{quote(study_instance_uid)}/series/{quote(series_instance_uid)}"
        answer = self._service.get(f"{series}/instances?SOPInstanceUID={quote(sop_instance_uid)}&limit=1")
        if answer.status == HTTPStatus.NOT_FOUND:
            self.check()  # it answers queries: then it is the study or the series that it does not know
            return False
        found = found_in(answer, self._service)
        return any(sop_instance_uid in values(one, _SOP_INSTANCE_UID) for one in found)
