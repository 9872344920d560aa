"""The gate: what a series passes on its way to a model, in three places.

::

    headers --admit-->  those of the slices, in order and without strays
            --judge-->  whether the model is for such a series; asked when its geometry is known
    volume  --judge_volume-->  whether its values are on the model's scale, and what came to light as they were decoded

Each refuses with the code of the check, or gives notes of what it let pass or repaired. Which of the two is the
pipeline's to say (`operators.gate.policies`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pydicom
from numpy.typing import NDArray

from operators.errors import SeriesRefused
from operators.gate.acquisitions import mixed_acquisitions
from operators.gate.appearance import pixel_remarks, remarks
from operators.gate.fitness import mismatches
from operators.gate.intended_use import IntendedUse
from operators.gate.intensity import IntensityRange, far_values
from operators.gate.notes import GateNote
from operators.gate.phases import describe_phases, doubled_places, repeated_slices, taken
from operators.gate.policies import GatePolicies
from operators.gate.strays import localizers, secondary_captures
from operators.pixels import Decoded
from operators.series_differences import differences

DigestOf = Callable[[int], str]
"""Returns the digest of the pixels of the image with this index."""


@dataclass(frozen=True)
class Admitted:
    """What goes on of a series."""

    kept: tuple[int, ...]
    """Indices of the headers that were given, in their order."""
    notes: tuple[GateNote, ...]


@dataclass(frozen=True)
class Gate:
    """What a pipeline lets pass to its model. Without arguments: what every model wants, by the default policies."""

    intended: IntendedUse = IntendedUse()
    policies: GatePolicies = GatePolicies()
    take: Mapping[str, str | float] = field(default_factory=dict)
    """DICOM keywords and values: only images that have all of them go on."""
    ranges: tuple[IntensityRange | None, ...] = ()
    """The training's range of each channel, None for those without a scale; empty if not known."""
    takes_single_slice: bool = False
    """Whether one slice is enough, as for a model that is prompted slice by slice; a specialist wants a stack."""

    def of_channel(self, number: int) -> Gate:
        """Return the gate of one channel's series alone."""
        return replace(self, ranges=self.ranges[number : number + 1])

    def admit(self, headers: Sequence[pydicom.Dataset], digest_of: DigestOf) -> Admitted:
        """Return which images of one series of one patient are its slices.

        Raises
        ------
        SeriesRefused
            ``secondary-capture``, ``localizer``, ``duplicate-slice``, ``phase-missing`` or ``duplicate-position``.
        """
        sorting = _Sorting(headers, self.policies)
        sorting.drop("secondary-capture", secondary_captures, "{found} of {total} images are secondary captures")
        sorting.drop("localizer", localizers, "{found} of {total} images are localizers")
        self._take(sorting)
        sorting.drop(
            "duplicate-slice",
            lambda left: repeated_slices(left, lambda index: digest_of(sorting.kept[index])),
            "{found} of {total} images repeat a slice: the same position and the same pixels",
        )
        _refuse_phases(sorting.headers)
        return Admitted(tuple(sorting.kept), tuple(sorting.notes))

    def _take(self, sorting: _Sorting) -> None:
        found = taken(sorting.headers, self.take)
        if len(found) == len(sorting.kept):
            return
        named = ", ".join(f"{keyword} {value}" for keyword, value in self.take.items())
        if not found:
            raise SeriesRefused(
                f"expected images with {named}, as the pipeline's gate takes, and none of {len(sorting.kept)} has that",
                code="phase-missing",
            )
        message = f"took the {len(found)} of {len(sorting.kept)} images with {named}"
        sorting.keep(found, GateNote("duplicate-position", "repair", message))

    def judge(self, headers: Sequence[pydicom.Dataset], spacing: float | None) -> tuple[GateNote, ...]:
        """Return what is worth a word about the slices of a series that are `spacing` mm apart; None: nothing says.

        Raises
        ------
        SeriesRefused
            If the model is not for such a series, or the pipeline refuses what others let pass.
        """
        found = (*mixed_acquisitions(headers), *mismatches(headers, spacing, self.intended), *remarks(headers))
        return tuple(self.policies.settle(code, message) for code, message in found)

    def judge_volume(self, array: NDArray[np.float32], decoded: Sequence[Decoded]) -> tuple[GateNote, ...]:
        """Return what is worth a word about the rescaled values of a series (axes slice, row, column).

        Parameters
        ----------
        decoded
            What came to light of each slice.

        Raises
        ------
        SeriesRefused
            ``pixel-padding``, ``bits-beyond-stored`` or ``intensity-far`` if the pipeline refuses that.
        """
        trained = self.ranges[0] if self.ranges else None
        found = (*pixel_remarks(decoded), *far_values(array, trained))
        return tuple(self.policies.settle(code, message) for code, message in found)


class _Sorting:
    """The images that are left while strays are taken out, and what is noted of that."""

    def __init__(self, headers: Sequence[pydicom.Dataset], policies: GatePolicies) -> None:
        self._all = headers
        self._policies = policies
        self.kept = list(range(len(headers)))
        self.notes: list[GateNote] = []

    @property
    def headers(self) -> list[pydicom.Dataset]:
        """Those of the images that are left."""
        return [self._all[index] for index in self.kept]

    def drop(self, code: str, find: Callable[[Sequence[pydicom.Dataset]], list[int]], message: str) -> None:
        """Leave out what `find` finds, or refuse the series for it."""
        found = set(find(self.headers))
        if not found:
            return
        told = message.format(found=len(found), total=len(self.kept))
        if len(found) == len(self.kept):
            raise SeriesRefused(f"{told}; slices are expected", code=code)
        note = self._policies.settle(code, told)
        self.keep([index for index in range(len(self.kept)) if index not in found], note)

    def keep(self, indices: Sequence[int], note: GateNote) -> None:
        """Go on with these of the images that are left."""
        self.kept = [self.kept[index] for index in indices]
        self.notes.append(note)


def _refuse_phases(headers: Sequence[pydicom.Dataset]) -> None:
    places = doubled_places(headers)
    if not places:
        return
    more = sum(len(place) - 1 for place in places)
    told = describe_phases(headers, places)
    known = differences([[headers[index] for index in place] for place in places])
    what = f"they differ in {', '.join(known)}" if known else "nothing tells them apart"
    raise SeriesRefused(
        f"expected one slice a position, got {more} more at positions already taken; {what}; several phases or echoes "
        + (f"must be told apart by {told}: let the pipeline's gate take one, or send them" if told else "must be sent")
        + " as series of their own",
        code="duplicate-position",
    )
