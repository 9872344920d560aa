"""Images from an archive by C-MOVE (PS3.4 annex C): it sends them to the listener, which keeps them as it keeps all."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydicom.dataset import Dataset
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelMove

from app.delivery.dimse import IMPLICIT_VR_LITTLE_ENDIAN, FileSyntax, Peer, associated, echo
from app.errors import DeliveryError, DeliveryRefused
from app.identifiers import UID
from app.settings import ArchiveSettings

if TYPE_CHECKING:
    from pynetdicom.association import Association

_PENDING = frozenset({0xFF00, 0xFF01})
_DESTINATION_UNKNOWN = 0xA801


class DimseArchive:
    """An archive that moves series to the listener.

    Parameters
    ----------
    settings
        Where it is.
    own_ae_title
        The listener's: what Limner calls itself, and where the images are to go.
    """

    def __init__(self, settings: ArchiveSettings, own_ae_title: str) -> None:
        self._own_ae_title = own_ae_title
        self._fetch_seconds = settings.fetch_seconds
        self._peer = Peer(
            host=settings.host,
            port=settings.port,
            called_ae_title=settings.ae_title,
            calling_ae_title=own_ae_title,
            timeout_seconds=settings.timeout_seconds,
            tls=settings.tls,
        )

    def check(self) -> None:
        """Send a C-ECHO; DeliveryError if it is not answered with success."""
        echo(self._peer)

    def fetch(self, study_instance_uid: str, series_instance_uid: str) -> None:
        """Have a series sent to the listener; when this returns, the archive has sent all of it.

        Raises
        ------
        DeliveryError
            Code ``fetch-too-slow``, the status as ``status-a702``, or as `app.delivery.dimse.associated`.
        DeliveryRefused
            Code ``series-unknown`` if the archive has none of it, ``move-destination-unknown`` if it does not know the
            listener.
        """
        model = UID(str(StudyRootQueryRetrieveInformationModelMove))
        identifier = Dataset()
        identifier.QueryRetrieveLevel = "SERIES"
        identifier.StudyInstanceUID, identifier.SeriesInstanceUID = study_instance_uid, series_instance_uid
        with associated(self._peer, [FileSyntax(model, IMPLICIT_VR_LITTLE_ENDIAN)]) as association:
            answers = association.send_c_move(identifier, self._own_ae_title, model)
            self._judge(self._last(association, answers))

    def _last(self, association: Association, answers: Iterator[tuple[Any, Any]]) -> Any:
        ends = time.monotonic() + self._fetch_seconds
        for answer, _ in answers:
            if answer.get("Status") not in _PENDING:
                return answer
            if time.monotonic() > ends:
                association.abort()
                raise DeliveryError(
                    f"{self._peer} did not send the series within {self._fetch_seconds:g} s", code="fetch-too-slow"
                )
        return Dataset()

    def _judge(self, answer: Any) -> None:
        status = answer.get("Status")
        if status is None:
            raise DeliveryError(
                f"{self._peer} broke the association or did not answer within {self._peer.timeout_seconds:g} s",
                code="no-answer",
            )
        if status == _DESTINATION_UNKNOWN:
            raise DeliveryRefused(
                f"{self._peer} does not know where {self._own_ae_title} is; enter the listener's address there",
                code="move-destination-unknown",
            )
        if status != 0:
            raise DeliveryError(
                f"{self._peer} answered C-MOVE with status 0x{status:04X} where 0x0000 was expected; look into its log",
                code=f"status-{status:04x}",
            )
        if not answer.get("NumberOfCompletedSuboperations"):
            raise DeliveryRefused(f"{self._peer} has no instance of the series", code="series-unknown")
