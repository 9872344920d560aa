"""STOW-RS (PS3.18 section 10.5): one file as the body of a request, and what the answer says about it."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, BinaryIO

import structlog

from app.delivery.statuses import DUPLICATE_SOP_INSTANCE, PERMANENT, SOP_CLASS_NOT_SUPPORTED, WARNINGS
from app.delivery.web_service import Answer, WebService
from app.errors import DeliveryError, DeliveryRefused

CONTEXT_REFUSED = "context-refused"
"""The code of a refusal of SOP class or transfer syntax, whatever the protocol: another form may be taken."""
_BLOCK = 1 << 18
_FAILED_SOP_SEQUENCE, _REFERENCED_SOP_SEQUENCE, _OTHER_FAILURES = "00081198", "00081199", "0008119A"
_REFERENCED_SOP_INSTANCE_UID, _WARNING_REASON, _FAILURE_REASON = "00081155", "00081196", "00081197"
_TRANSFER_SYNTAX_NOT_SUPPORTED = 0xC122
_STORED_BEFORE = frozenset({DUPLICATE_SOP_INSTANCE, 0xB00E})
"""A duplicate among the failures is one of ours, as it is with C-STORE; Azure's own number for it is 45070."""
_TRANSIENT = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
_NEVER = frozenset({HTTPStatus.NOT_IMPLEMENTED, HTTPStatus.HTTP_VERSION_NOT_SUPPORTED})
"""It can't do it at all (RFC 9110 sections 15.6.2 and 15.6.6)."""
_ADVICE = {
    401: "it wants other credentials: look at token_file, or user and password_file",
    403: "it knows who asks and does not allow it: give that user the right to store and to query",
    404: "nothing takes results there: correct url",
    405: "nothing takes results there: correct url",
    413: "the result is larger than it takes: raise its limit",
    501: 'it has no such service: if it answers no queries, set ask = "never" and commitment = "none"',
}

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Body:
    """The body of a request that stores one file: what is before its bytes, and what is after them."""

    file: BinaryIO
    boundary: str
    size_bytes: int
    """Of the file."""

    @classmethod
    def of(cls, file: BinaryIO) -> Body:
        """Return the body for an open file, from its begin to its present end."""
        return cls(file, uuid.uuid4().hex, os.fstat(file.fileno()).st_size)

    @property
    def content_type(self) -> str:
        """The media type of the whole (PS3.18 section 8.7.3, RFC 2387)."""
        return f'multipart/related; type="application/dicom"; boundary={self.boundary}'

    @property
    def length(self) -> int:
        """Bytes of the whole."""
        return len(self._head) + self.size_bytes + len(self._tail)

    @property
    def _head(self) -> bytes:
        return f"--{self.boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()

    @property
    def _tail(self) -> bytes:
        return f"\r\n--{self.boundary}--\r\n".encode()

    def __iter__(self) -> Iterator[bytes]:
        yield self._head
        left = self.size_bytes
        while left and (block := self.file.read(min(_BLOCK, left))):
            left -= len(block)
            yield block
        yield self._tail


def check_stored(answer: Answer, sop_instance_uid: str, service: WebService) -> None:
    """Judge an answer (PS3.18 sections 10.5.3 and I.2): what was stored passes, with a line in the log if it warns.

    Raises
    ------
    DeliveryError
        If the same may succeed later; `retry_after_seconds` if the service said when.
    DeliveryRefused
        If the same bytes would be refused again: ``context-refused``, the Failure Reason as ``status-c000``, or the
        HTTP status as ``http-413``.
    """
    if answer.status not in (HTTPStatus.OK, HTTPStatus.ACCEPTED, HTTPStatus.CONFLICT):
        raise refusal(answer, service)
    said = _parsed(answer)
    if said is None:
        if answer.status == HTTPStatus.CONFLICT:
            raise refusal(answer, service)
        raise DeliveryError(
            f"{service} answered {answer.status} without DICOM JSON, so that nothing says that the object is stored; "
            "check that the URL is that of a DICOMweb service, and no page of a portal before it",
            code="answer-unreadable",
        )
    failed = _item_of(said, _FAILED_SOP_SEQUENCE, sop_instance_uid)
    if failed is None and (others := _items(said, _OTHER_FAILURES)):
        failed = others[0]  # one object was sent: what failed without a name is it
    stored = _item_of(said, _REFERENCED_SOP_SEQUENCE, sop_instance_uid)
    if failed is not None:
        _check_failure(_number(failed, _FAILURE_REASON), answer, service)
    elif stored is None or answer.status == HTTPStatus.CONFLICT:
        raise DeliveryError(
            f"{service} answered {answer.status} and names the object neither as stored nor as failed; look into its "
            "log",
            code="not-acknowledged",
        )
    elif answer.warned or _number(stored, _WARNING_REASON):
        _log.warning("stored with a warning", code=f"status-{_number(stored, _WARNING_REASON):04x}")


def refusal(answer: Answer, service: WebService) -> DeliveryError:
    """Return the error that an HTTP status stands for (RFC 9110, PS3.18 table 8.5-1)."""
    code = f"http-{answer.status}"
    is_failing = answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR and answer.status not in _NEVER
    if answer.status in _TRANSIENT or is_failing:
        error = DeliveryError(
            f"{service} can't do it now (HTTP status {answer.status}); it will be asked again", code=code
        )
        error.retry_after_seconds = answer.retry_after_seconds
        return error
    if answer.status == HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
        return DeliveryRefused(
            f"{service} takes no objects of that SOP class in that transfer syntax (HTTP status 415), which was "
            "expected; let it accept them, or send the result elsewhere",
            code=CONTEXT_REFUSED,
        )
    advice = _ADVICE.get(answer.status, "its log says what it does not accept")
    if answer.status < HTTPStatus.BAD_REQUEST:
        advice = "redirects are not followed: enter the URL that it leads to, if it is the right one"
    return DeliveryRefused(
        f"{service} answered with HTTP status {answer.status} where 200 was expected; {advice}", code=code
    )


def _check_failure(reason: int, answer: Answer, service: WebService) -> None:
    """Judge a Failure Reason as the same status of C-STORE is judged."""
    code = f"status-{reason:04x}"
    if reason in _STORED_BEFORE:
        _log.warning("stored before", code=code)
        return
    if reason in (SOP_CLASS_NOT_SUPPORTED, _TRANSFER_SYNTAX_NOT_SUPPORTED):
        raise DeliveryRefused(
            f"{service} refused the object's SOP class or transfer syntax (failure reason 0x{reason:04X}); let it "
            "accept them, or send the result elsewhere",
            code=CONTEXT_REFUSED,
        )
    meaning = PERMANENT.get(reason)
    if meaning is not None or reason in WARNINGS:
        raise DeliveryRefused(
            f"{service} refused the object with failure reason 0x{reason:04X} ({meaning or 'a warning'}); its log says "
            "what it does not accept",
            code=code,
        )
    error = DeliveryError(
        f"{service} could not store the object now (failure reason 0x{reason:04X}); it will be sent again", code=code
    )
    error.retry_after_seconds = answer.retry_after_seconds
    raise error


def parsed_json(content: bytes) -> list[dict[str, Any]] | None:
    """Return the data sets of a DICOM JSON text, one or an array of them; None if it is none."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    sets = found if isinstance(found, list) else [found]
    return sets if all(isinstance(one, dict) for one in sets) else None


def _parsed(answer: Answer) -> dict[str, Any] | None:
    sets = parsed_json(answer.content) if answer.is_json else None
    return sets[0] if sets else None


def _items(dataset: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    return [one for one in values(dataset, tag) if isinstance(one, dict)]


def _item_of(dataset: dict[str, Any], tag: str, sop_instance_uid: str) -> dict[str, Any] | None:
    found = (one for one in _items(dataset, tag) if sop_instance_uid in values(one, _REFERENCED_SOP_INSTANCE_UID))
    return next(found, None)


def values(dataset: dict[str, Any], tag: str) -> list[Any]:
    """Return the values of an attribute (PS3.18 annex F.2); none if it is missing or no attribute."""
    attribute = dataset.get(tag)
    found = attribute.get("Value") if isinstance(attribute, dict) else None
    return found if isinstance(found, list) else []


def _number(item: dict[str, Any], tag: str) -> int:
    """A value of VR US; 0 if there is none. Some servers write numbers as text."""
    try:
        return int(next(iter(values(item, tag)), 0)) & 0xFFFF
    except (TypeError, ValueError):
        return 0
