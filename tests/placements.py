"""Which structures of a prompting object find their place on a series, each judged by itself."""

from __future__ import annotations

from dataclasses import dataclass

from operators.errors import PromptRefused
from operators.sam.objects.placing import PlacedPrompt, place_object
from operators.sam.objects.prompt_object import LeftOut, PromptObject
from operators.series_volume import SeriesVolume


@dataclass(frozen=True)
class Placements:
    """What was placed, and what could not be read or placed."""

    prompts: list[PlacedPrompt]
    left_out: list[LeftOut]


def placements(found: PromptObject, series: SeriesVolume) -> Placements:
    """Place all that an object shows."""
    made = Placements([], [*found.left_out])
    for wanted in found.objects:
        try:
            made.prompts.append(place_object(wanted, series))
        except PromptRefused as error:
            made.left_out.append(LeftOut(wanted.number, error.code, str(error)))
    return made
