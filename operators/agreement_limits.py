"""How far two models agree on a segment, and what still counts as agreement. `operators.agreement` measures it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Agreement:
    """Of one segment in two label maps."""

    label_value: int
    dice: float
    """0 to 1."""
    distance_mm: float | None
    """The 95th percentile of the distances between the surfaces; None where only one of them found the segment."""
    first_ml: float
    second_ml: float

    @property
    def difference_ml(self) -> float:
        """How much more the second one found, in ml; negative where it found less."""
        return self.second_ml - self.first_ml

    @property
    def difference_percent(self) -> float | None:
        """The same, in percent of what the first one found; None where that found nothing and the second did."""
        if self.first_ml == 0:
            return 0.0 if self.second_ml == 0 else None
        return 100.0 * self.difference_ml / self.first_ml


@dataclass(frozen=True)
class AgreementLimits:
    """What still counts as agreement. None asks nothing."""

    least_dice: float | None = None
    most_distance_mm: float | None = None
    most_difference_percent: float | None = None
    """Of the volume, either way."""

    def exceeded_by(self, found: Agreement) -> tuple[str, ...]:
        """Return what of an agreement lies beyond the limits: ``dice``, ``distance``, ``volume``, or ``one-empty``."""
        if (found.first_ml == 0) != (found.second_ml == 0):
            return ("one-empty",)
        percent = found.difference_percent
        beyond = {
            "dice": self.least_dice is not None and found.dice < self.least_dice,
            "distance": self.most_distance_mm is not None
            and found.distance_mm is not None
            and found.distance_mm > self.most_distance_mm,
            "volume": self.most_difference_percent is not None
            and percent is not None
            and abs(percent) > self.most_difference_percent,
        }
        return tuple(name for name, is_beyond in beyond.items() if is_beyond)
