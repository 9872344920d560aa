"""What an archive holds, asked by C-FIND (PS3.4 annex C, Study Root): studies, series and instances by their keys."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from app.delivery.dimse import IMPLICIT_VR_LITTLE_ENDIAN, FileSyntax, Peer, associated
from app.errors import DeliveryError, DeliveryRefused
from app.identifiers import UID, parse_uid
from app.settings import ArchiveSettings

if TYPE_CHECKING:
    from pynetdicom.association import Association

QueryLevel = Literal["STUDY", "SERIES", "IMAGE"]
"""What one answer stands for (PS3.4 section C.6.2.1)."""
Answer = Mapping[str, str]
"""The attributes that were asked for, by keyword: "" where the archive gave none, several values parted by ``\\``."""

MAXIMUM_ANSWERS = 100_000
_PENDING = frozenset({0xFF00, 0xFF01})
_PERMANENT = {
    0x0122: "SOP class not supported",
    0x0124: "not authorised",
    **dict.fromkeys(range(0xA900, 0xAA00), "identifier does not match SOP class"),
}
"""Failures that the same question would meet again (PS3.4 table C.4-1); 0xCxxx passes in many archives."""
_UNREADABLE = (ValueError, TypeError, AttributeError, KeyError, IndexError, NotImplementedError, OverflowError)


class DimseQuery:
    """An archive that is asked what it holds. Each question has an association of its own; threads may ask at once.

    Parameters
    ----------
    peer
        Whom to ask; its ``timeout_seconds`` is the longest wait for the connection and for each answer.
    query_seconds
        Longest time that all answers to one question may take.
    maximum_answers
        More answers than this are an error: an archive that ignores a key would send all that it has.
    """

    def __init__(self, peer: Peer, *, query_seconds: float = 60.0, maximum_answers: int = MAXIMUM_ANSWERS) -> None:
        self._peer = peer
        self._query_seconds = query_seconds
        self._maximum_answers = maximum_answers

    @classmethod
    def of_archive(cls, settings: ArchiveSettings, own_ae_title: str, *, longest_seconds: float = 60.0) -> DimseQuery:
        """Return how to ask an ``[[archive]]``.

        Parameters
        ----------
        own_ae_title
            What Limner calls itself.
        longest_seconds
            For all answers to a question, and for each if the archive's settings do not say less.
        """
        return cls(
            Peer(
                host=settings.host,
                port=settings.port,
                called_ae_title=settings.ae_title,
                calling_ae_title=own_ae_title,
                timeout_seconds=min(settings.timeout_seconds, longest_seconds),
                tls=settings.tls,
            ),
            query_seconds=longest_seconds,
        )

    def find(
        self, level: QueryLevel, keys: Mapping[str, str | Sequence[str]], wanted: Sequence[str] = ()
    ) -> tuple[Answer, ...]:
        """Return what the archive holds of a level that matches `keys`.

        Parameters
        ----------
        keys
            What must match, by keyword: single values, wild cards, ranges, or several UIDs (PS3.4 section C.2.2.2).
            Below STUDY the unique keys of all higher levels belong to it (section C.4.1.2.1).
        wanted
            Further attributes to be told, by keyword.

        Raises
        ------
        DeliveryError
            Code ``no-answer``, ``query-too-slow``, ``too-many-answers``, ``answer-unreadable``, the status as
            ``status-a700``, or as `app.delivery.dimse.associated`: may succeed later.
        DeliveryRefused
            Code ``context-refused`` if it takes no such questions, or the status as ``status-a900``.
        ValueError
            If a keyword is none, or a value can't be encoded.
        """
        model = UID(str(StudyRootQueryRetrieveInformationModelFind))
        identifier = _identifier(level, keys, wanted)
        names = tuple(dict.fromkeys((*keys, *wanted)))
        with associated(self._peer, [FileSyntax(model, IMPLICIT_VR_LITTLE_ENDIAN)]) as association:
            try:
                answers = association.send_c_find(identifier, model)
                return tuple(self._read(one, names) for one in self._matches(association, answers))
            except RuntimeError as error:  # the association is gone
                raise self._no_answer() from error

    def count_instances(self, study_instance_uid: str, series_instance_uid: str) -> int | None:
        """Return how many instances the archive has of a series; None if it does not know the series.

        It is asked for Number of Series Related Instances (0020,1209); one that does not tell has its instances
        counted. Errors as `find`.
        """
        return self.count_series_instances(study_instance_uid, series_instance_uid).get(series_instance_uid)

    def count_series_instances(self, study_instance_uid: str, series_instance_uid: str = "") -> dict[str, int]:
        """Return how many instances the archive has of each series of a study, or of one series.

        An empty dictionary if it does not know it. Errors as `find`.
        """
        keys = {"StudyInstanceUID": study_instance_uid, "SeriesInstanceUID": series_instance_uid}
        told = {
            one["SeriesInstanceUID"]: one["NumberOfSeriesRelatedInstances"]
            for one in self.find("SERIES", keys, ["NumberOfSeriesRelatedInstances"])
            if one["SeriesInstanceUID"] and series_instance_uid in ("", one["SeriesInstanceUID"])
        }
        return {
            uid: int(count) if count.isdecimal() else len(self.find_instances(study_instance_uid, uid))
            for uid, count in told.items()
        }

    def find_instances(self, study_instance_uid: str, series_instance_uid: str) -> tuple[UID, ...]:
        """Return the SOP Instance UIDs that the archive has of a series, in its order, each once. Errors as `find`."""
        keys = {"StudyInstanceUID": study_instance_uid, "SeriesInstanceUID": series_instance_uid}
        try:
            found = [parse_uid(one["SOPInstanceUID"]) for one in self.find("IMAGE", keys, ["SOPInstanceUID"])]
        except ValueError as error:
            raise self._unreadable() from error
        return tuple(dict.fromkeys(found))

    def holds_instance(self, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str) -> bool:
        """Whether the archive has an instance. Errors as `find`."""
        keys = {
            "StudyInstanceUID": study_instance_uid,
            "SeriesInstanceUID": series_instance_uid,
            "SOPInstanceUID": sop_instance_uid,
        }
        return any(one["SOPInstanceUID"] == sop_instance_uid for one in self.find("IMAGE", keys))

    def _matches(self, association: Association, answers: Iterator[tuple[Any, Dataset | None]]) -> Iterator[Dataset]:
        ends = time.monotonic() + self._query_seconds
        for number, (answer, match) in enumerate(answers, start=1):
            status = answer.get("Status")
            if status not in _PENDING:
                self._judge(status)
                return
            if number > self._maximum_answers:
                association.abort()
                raise DeliveryError(
                    f"{self._peer} gave more than the {self._maximum_answers} answers that are taken; "
                    "it may ignore a key of the question",
                    code="too-many-answers",
                )
            if time.monotonic() > ends:
                association.abort()
                raise DeliveryError(
                    f"{self._peer} did not give all its answers within {self._query_seconds:g} s", code="query-too-slow"
                )
            if match is None:
                association.abort()
                raise self._unreadable()
            yield match
        raise self._no_answer()

    def _judge(self, status: int | None) -> None:
        if status is None:
            raise self._no_answer()
        if status == 0:
            return
        code = f"status-{status:04x}"
        if status in _PERMANENT:
            raise DeliveryRefused(
                f"{self._peer} refused C-FIND with status 0x{status:04X} ({_PERMANENT[status]}) where 0x0000 was "
                "expected; its log says what it does not accept",
                code=code,
            )
        raise DeliveryError(
            f"{self._peer} answered C-FIND with status 0x{status:04X} where 0x0000 was expected; look into its log",
            code=code,
        )

    def _read(self, match: Dataset, names: Sequence[str]) -> Answer:
        try:
            return {name: _text(match.get(name)) for name in names}
        except _UNREADABLE as error:
            raise self._unreadable() from error

    def _no_answer(self) -> DeliveryError:
        return DeliveryError(
            f"{self._peer} broke the association or did not answer within {self._peer.timeout_seconds:g} s",
            code="no-answer",
        )

    def _unreadable(self) -> DeliveryError:
        return DeliveryError(
            f"{self._peer} gave an answer to C-FIND that can't be read where the attributes of a match were expected; "
            "look into its log",
            code="answer-unreadable",
        )


def _identifier(level: QueryLevel, keys: Mapping[str, str | Sequence[str]], wanted: Sequence[str]) -> Dataset:
    unknown = [name for name in (*keys, *wanted) if tag_for_keyword(name) is None]
    if unknown:
        raise ValueError(f"not keywords of DICOM attributes: {', '.join(unknown)}")
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for name in wanted:
        setattr(identifier, name, "")
    for name, value in keys.items():
        setattr(identifier, name, value if isinstance(value, str) else list(value))
    return identifier


def _text(value: Any) -> str:
    if value is None:
        return ""
    return "\\".join(map(str, value)) if isinstance(value, (MultiValue, list, tuple)) else str(value)
