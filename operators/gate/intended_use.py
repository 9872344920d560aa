"""What a model is for, as the front matter of its card states it. What it does not state is not checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any

from operators.errors import ModelPackageError
from operators.gate.body_parts import regions_of

PLANES = ("axial", "coronal", "sagittal")
NO_CONTRAST, ANY_CONTRAST = "none", "given"
CONTRAST_PHASES = (
    *("PRE_CONTRAST", "POST_CONTRAST", "IMMEDIATE", "DYNAMIC", "STEADY_STATE"),
    *("DELAYED", "ARTERIAL", "CAPILLARY", "VENOUS", "PORTAL_VENOUS"),
)
"""Defined terms of Contrast/Bolus Agent Phase (0018,9344), PS3.3 C.7.6.16.2.12."""
_AXIS_OF_LETTER = {"L": 0, "R": 0, "A": 1, "P": 1, "H": 2, "F": 2}
_MODALITY_OF = {"PET": "PT", "MRI": "MR", "MRT": "MR"}
_ROUNDING = 1e-3
"""Of a bound: decimal strings are rounded."""


@dataclass(frozen=True)
class Bounds:
    """Two ends of a range, both included."""

    lowest: float
    highest: float

    def hold(self, value: float) -> bool:
        """Whether a value lies within, but for rounding."""
        return self.lowest * (1 - _ROUNDING) <= value <= self.highest * (1 + _ROUNDING)

    def __str__(self) -> str:
        return f"{self.lowest:g} to {self.highest:g}"


@dataclass(frozen=True)
class IntendedUse:
    """The acquisitions that a model is for. Empty or None: the card does not say."""

    modality: tuple[str, ...] = ()
    """Values of Modality (0008,0060)."""
    body_part: tuple[str, ...] = ()
    """Terms that `operators.gate.body_parts.regions_of` knows."""
    orientation: tuple[str, ...] = ()
    """Planes: `PLANES`."""
    patient_orientation: tuple[str, ...] = ()
    """Where rows and columns run, as Patient Orientation (0020,0020) says it: ("L", "P")."""
    contrast: tuple[str, ...] = ()
    """`NO_CONTRAST` or `ANY_CONTRAST` alone, or some of `CONTRAST_PHASES`."""
    slice_spacing_mm: Bounds | None = None
    """Between the middles of neighbouring slices."""
    pixel_spacing_mm: Bounds | None = None
    """Of rows and of columns."""
    slice_count: Bounds | None = None

    @property
    def stated(self) -> dict[str, Any]:
        """What the card states, as plain data, by its key."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {
            name: [value.lowest, value.highest] if isinstance(value, Bounds) else list(value)
            for name, value in values.items()
            if value
        }


def read_intended_use(card: Mapping[str, Any], model: str) -> IntendedUse:
    """Return what the card of `model` states.

    Raises
    ------
    ModelPackageError
        ``card-malformed`` if it states something that can't be checked: a typing error must not open the gate.
    """
    try:
        return IntendedUse(
            modality=tuple(_MODALITY_OF.get(one.upper(), one.upper()) for one in _terms(card, "modality")),
            body_part=_known(card, "body_part", lambda term: bool(regions_of(term)), "a part such as abdomen or head"),
            orientation=_known(card, "orientation", PLANES.__contains__, " or ".join(PLANES)),
            patient_orientation=_directions(card),
            contrast=_contrast(card),
            slice_spacing_mm=_bounds(card, "slice_spacing_mm"),
            pixel_spacing_mm=_bounds(card, "pixel_spacing_mm"),
            slice_count=_bounds(card, "slice_count"),
        )
    except ValueError as error:
        raise ModelPackageError(
            f"the model card of {model} states what can't be checked: {error}; correct it, or leave the key out",
            code="card-malformed",
        ) from error


def _terms(card: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = card.get(key)
    terms = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(term, str) and term.strip() for term in terms):
        raise ValueError(f"{key} must be text, or a list of texts")
    return tuple(term.strip() for term in terms)


def _known(card: Mapping[str, Any], key: str, is_known: Any, expected: str) -> tuple[str, ...]:
    terms = _terms(card, key)
    unknown = [term for term in terms if not is_known(term)]
    if unknown:
        raise ValueError(f"{key} has {', '.join(unknown)}, and {expected} is expected")
    return terms


def _directions(card: Mapping[str, Any]) -> tuple[str, ...]:
    letters = _terms(card, "patient_orientation")
    axes = [_AXIS_OF_LETTER.get(letter, -1) for letter in letters]
    if letters and (len(letters) != 2 or -1 in axes or axes[0] == axes[1]):  # noqa: PLR2004 - of rows and of columns
        raise ValueError("patient_orientation must name where rows and columns run, such as [L, P]")
    return letters


def _contrast(card: Mapping[str, Any]) -> tuple[str, ...]:
    terms = _terms(card, "contrast")
    if terms not in ((NO_CONTRAST,), (ANY_CONTRAST,)) and not set(terms) <= set(CONTRAST_PHASES):
        raise ValueError(f"contrast must be {NO_CONTRAST}, {ANY_CONTRAST}, or some of {', '.join(CONTRAST_PHASES)}")
    return terms


def _bounds(card: Mapping[str, Any], key: str) -> Bounds | None:
    value = card.get(key)
    if value is None:
        return None
    numbers = value if isinstance(value, list) else []
    finite = [one for one in numbers if isinstance(one, (int, float)) and not isinstance(one, bool) and isfinite(one)]
    if not (len(numbers) == len(finite) == 2 and 0 < finite[0] <= finite[1]):  # noqa: PLR2004 - two ends
        raise ValueError(f"{key} must be two numbers above 0, the lower one first")
    return Bounds(float(finite[0]), float(finite[1]))
