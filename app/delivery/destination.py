"""What a destination of results is, whatever protocol it speaks."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

from operators.object_kinds import Kind


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
