"""What a DICOMweb service holds, asked by QIDO-RS (PS3.18 section 10.6): studies, series, instances by their keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

from pydicom.datadict import tag_for_keyword

from app.delivery.query import MAXIMUM_ANSWERS, Answer, QueryLevel
from app.delivery.stow import parsed_json, refusal, values
from app.delivery.web_service import Answer as WebAnswer
from app.delivery.web_service import WebService
from app.errors import DeliveryError

_UNIQUE: Mapping[QueryLevel, str] = {
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}
_PAGE = 100
"""Answers; each may be some kB long."""


class WebQuery:
    """A DICOMweb service that is asked what it holds, as `app.delivery.query.DimseQuery` asks an archive.

    Parameters
    ----------
    service
        Whom to ask.
    page
        So many answers are asked for at a time.
    maximum_answers
        More answers than this are an error: a service that ignores a key would tell all that it has.
    """

    def __init__(self, service: WebService, *, page: int = _PAGE, maximum_answers: int = MAXIMUM_ANSWERS) -> None:
        self._service = service
        self._page = page
        self._maximum_answers = maximum_answers

    def find(
        self, level: QueryLevel, keys: Mapping[str, str | Sequence[str]], wanted: Sequence[str] = ()
    ) -> tuple[Answer, ...]:
        """Return what the service holds of a level that matches `keys`, page by page.

        Parameters
        ----------
        keys
            What must match, by keyword. Below STUDY the unique keys of all higher levels belong to it.
        wanted
            Further attributes to be told, by keyword.

        Raises
        ------
        DeliveryError
            As `WebService.get`, or ``answer-unreadable``, ``too-many-answers``, the HTTP status as ``http-503``.
        DeliveryRefused
            The HTTP status as ``http-403``.
        ValueError
            If a keyword is none.
        """
        path, matching = _resource(level, keys)
        names = tuple(dict.fromkeys((*keys, *wanted)))
        tags = {name: _tag(name) for name in (*names, _UNIQUE[level])}
        query = {**matching, "includefield": ",".join(tags.values()), "limit": str(self._page)}
        found: dict[str, Answer] = {}
        asked = 0
        while True:
            # a comma that is encoded parts nothing for Orthanc, and need not be (RFC 3986 section 3.4)
            answer = self._service.get(f"{path}?{urlencode({**query, 'offset': str(asked)}, safe=',')}")
            if answer.status == HTTPStatus.NOT_FOUND and level != "STUDY":
                return tuple(found.values())  # it has none of the study or series any more
            page = found_in(answer, self._service)
            known = len(found)
            for one in page:
                found.setdefault(_text(one, tags[_UNIQUE[level]]), {name: _text(one, tags[name]) for name in names})
            if len(found) > self._maximum_answers:
                raise DeliveryError(
                    f"{self._service} gave more than the {self._maximum_answers} answers that are taken; it may ignore "
                    "a key of the question",
                    code="too-many-answers",
                )
            asked += len(page)
            is_last = len(page) < self._page and not answer.warned  # it may give fewer at a time than it was asked for
            if is_last or len(found) == known:  # or the same once more: it knows no offset
                return tuple(found.values())


def found_in(answer: WebAnswer, service: WebService) -> list[dict[str, Any]]:
    """Return the data sets that a service found.

    Raises
    ------
    DeliveryError
        ``answer-unreadable``, or what the HTTP status stands for.
    """
    if answer.status == HTTPStatus.NO_CONTENT:
        return []
    if answer.status != HTTPStatus.OK:
        raise refusal(answer, service)
    found = parsed_json(answer.content) if answer.is_json else None
    if found is None:
        raise DeliveryError(
            f"{service} answered a query with something else than DICOM JSON; check that the URL is that of a DICOMweb "
            "service",
            code="answer-unreadable",
        )
    return found


def _resource(level: QueryLevel, keys: Mapping[str, str | Sequence[str]]) -> tuple[str, dict[str, str]]:
    """The path of what is searched, and the keys that are left for the query (PS3.18 table 10.6.1-1)."""
    left = {name: value if isinstance(value, str) else ",".join(value) for name, value in keys.items()}
    path = "/studies"
    if level != "STUDY":
        path += f"/{quote(left.pop('StudyInstanceUID'))}/series"
    if level == "IMAGE":
        path += f"/{quote(left.pop('SeriesInstanceUID'))}/instances"
    return path, {name: value for name, value in left.items() if value}


def _tag(keyword: str) -> str:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"not the keyword of a DICOM attribute: {keyword}")
    return f"{tag:08X}"


def _text(dataset: dict[str, Any], tag: str) -> str:
    return "\\".join("" if one is None else str(one) for one in values(dataset, tag))
