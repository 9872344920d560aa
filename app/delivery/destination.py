"""What a destination of results is, whatever protocol it speaks, and what more some of them can."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from app.identifiers import UID
from operators.object_kinds import Kind

SLOWEST_BYTES_PER_SECOND = 1 << 16
"""An object that goes slower than this is broken off: a small hospital's line to its cloud is four times as fast."""
Send = Callable[[Path], None]
"""Sends one file, as `Destination.deliver` does."""


class Destination(Protocol):
    """A place that results are sent to."""

    @property
    def name(self) -> str:
        """What rules and records call it."""

    def check(self) -> None:
        """Ask whether it answers, without sending anything.

        Raises
        ------
        DeliveryError
            If it does not; the message says what to do.
        """

    def accepted_kinds(self) -> tuple[Kind, ...]:
        """Ask which kinds of results it takes, without sending anything.

        Raises
        ------
        DeliveryError
            If it can't be asked now.
        """

    def deliver(self, path: Path) -> None:
        """Send one Part 10 file, exactly as it is. Sending the same file again does no harm.

        Raises
        ------
        DeliveryError
            If it was not taken; it may be later.
        DeliveryRefused
            If it was refused for good.
        """


@runtime_checkable
class TakesSeveral(Protocol):
    """A destination that several files can be sent to over one connection."""

    def opened(self, paths: Sequence[Path]) -> AbstractContextManager[Send]:
        """Connect, ready for these files. What is wrong with one of them is said when that one is sent.

        Raises
        ------
        DeliveryError
            If no connection comes about.
        """


@runtime_checkable
class TellsWhatItHolds(Protocol):
    """A destination that can be asked whether it has an object."""

    @property
    def can_be_asked(self) -> bool:
        """Whether the settings let it be asked."""

    def holds(self, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str) -> bool:
        """Whether it has the object.

        Raises
        ------
        DeliveryError
            If it can't be asked now, or at all.
        """


@dataclass(frozen=True)
class CommitmentRequest:
    """What a destination is asked to keep (PS3.4 section J.3.2)."""

    transaction_uid: str
    objects: tuple[tuple[UID, UID], ...]
    """SOP Class UID and SOP Instance UID of each."""


@dataclass(frozen=True)
class ReportedCommitment:
    """What a peer says that it keeps (PS3.4 section J.3.3)."""

    transaction_uid: str
    committed: tuple[str, ...]
    """SOP Instance UIDs."""
    refused: tuple[tuple[str, int], ...]
    """SOP Instance UIDs, with the Failure Reason (PS3.3 section C.14)."""


@runtime_checkable
class CommitsItself(Protocol):
    """A destination that can be asked for its storage commitment."""

    def request_commitment(self, request: CommitmentRequest, on_report: Callable[[ReportedCommitment], bool]) -> None:
        """Ask. The report comes later: over this connection to `on_report`, or by another way.

        Parameters
        ----------
        on_report
            Keeps a report; False if it is about nothing that was asked.

        Raises
        ------
        DeliveryError
            If it was not asked, or nobody knows.
        DeliveryRefused
            If it takes no such requests.
        """


def opened(destination: Destination, paths: Sequence[Path]) -> AbstractContextManager[Send]:
    """Connect to a destination for these files, once for all of them where it can be done."""
    if isinstance(destination, TakesSeveral):
        return destination.opened(paths)
    return nullcontext(destination.deliver)
