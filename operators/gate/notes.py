"""What the gate let pass and why that is worth a word, and the same of what prompts a generalist."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class GateNote:
    """A series was let through although a check found something, or after it was put in order.

    Of a prompted result also what of the prompts was left out, and what of their structures overlaps.
    """

    code: str
    """The check's (`operators.gate.policies.CHECKS`); of prompts the refusal's, or ``prompts-overlap``."""
    policy: Literal["warn", "repair"]
    message: str
    """For people; never data of a patient."""

    def of_channel(self, channel: str) -> GateNote:
        """Return the note with the name of the channel whose series it is about."""
        return replace(self, message=f"channel {channel}: {self.message}")
