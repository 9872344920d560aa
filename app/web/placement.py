"""From a request's prompt, in pixels or in the patient, to a prompt on one slice of the series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from operators.errors import PromptRefused
from operators.sam.objects.placing import slice_grid
from operators.sam.objects.slice_prompts import DrawnOnSlice, prompt_on
from operators.sam.prompts import MOST_POINTS, Box, Point, SlicePrompt
from operators.sam.volume import place_in_volume
from operators.series_volume import SeriesVolume
from operators.source_references import slice_references

MOST_CORNERS = 1000
"""Of one outline."""
_FEWEST_CORNERS = 3
_FARTHEST = 1e6
"""Pixels or mm: beyond lies neither image nor patient."""

Pair = tuple[float, float]


@dataclass
class _Drawn:
    """What a prompt shows, as pairs of x and y on its slice."""

    box: tuple[Pair, Pair] | None = None
    outline: list[Pair] | None = None
    points: list[tuple[Pair, bool]] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        return self.box is None and self.outline is None and not self.points


def placed_prompt(request: Mapping[str, Any], series: SeriesVolume) -> tuple[int, SlicePrompt]:
    """Return the slice that a request's prompt lies on, and the prompt in that slice's pixels.

    Parameters
    ----------
    request
        A prompt as `app.web.messages` describes it.
    series
        Its slices.

    Raises
    ------
    PromptRefused
        ``prompt-empty``, ``prompt-outside``, ``prompt-too-long``, ``prompt-not-finite``,
        ``frame-of-reference-differs``; ``prompt-across-slices`` if it lies on several slices, ``slice-unknown`` if its
        slice is none of the series.
    """
    _check_numbers(request)
    in_patient = request["coordinates"] == "patient"
    index, drawn = _in_patient(request, series) if in_patient else _in_pixels(request, series)
    if drawn.is_empty and request["refine"] and not in_patient:
        return index, SlicePrompt()
    on_slice = DrawnOnSlice(points=[Point(*place, is_foreground) for place, is_foreground in drawn.points])
    if drawn.box is not None:
        (left, top), (right, bottom) = drawn.box
        on_slice.boxes.append(Box(left, top, right, bottom))
    if drawn.outline is not None:
        on_slice.outlines.append(np.array(drawn.outline, np.float64))
    return index, prompt_on(index, on_slice, slice_grid(series.volume)).prompt


def _check_numbers(request: Mapping[str, Any]) -> None:
    """Refuse what could not be placed, before any work is done on it."""
    outline, points = request["outline"], request["points"]
    if len(points) > MOST_POINTS:
        raise PromptRefused(
            f"the prompt has {len(points)} points, and {MOST_POINTS} are possible; draw a box or an outline",
            code="prompt-too-long",
        )
    if outline is not None and len(outline) > MOST_CORNERS:
        raise PromptRefused(
            f"the outline has {len(outline)} corners, and {MOST_CORNERS} are possible; draw it coarser",
            code="prompt-too-long",
        )
    if outline is not None and len(outline) < _FEWEST_CORNERS:
        raise PromptRefused(
            f"an outline needs {_FEWEST_CORNERS} corners at least, and has {len(outline)}", code="prompt-empty"
        )
    numbers = np.array(list(_numbers([request["box"], outline, points])), np.float64)
    if not np.isfinite(numbers).all():
        raise PromptRefused("a prompt's coordinates must be finite numbers", code="prompt-not-finite")
    if np.abs(numbers).max(initial=0.0) > _FARTHEST:
        raise PromptRefused("a prompt's coordinates lie far beyond any image and patient", code="prompt-outside")


def _numbers(value: Any) -> Any:
    """Yield every number in lists and tables within each other."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for one in value:
            yield from _numbers(one)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield value


def _in_pixels(request: Mapping[str, Any], series: SeriesVolume) -> tuple[int, _Drawn]:
    box = request["box"]
    corners = None if box is None else ((box["left"], box["top"]), (box["right"], box["bottom"]))
    outline = request["outline"]
    return _slice_index(request, series), _Drawn(
        box=corners,
        outline=None if outline is None else [(x, y) for x, y in outline],
        points=[((one["x"], one["y"]), one["foreground"]) for one in request["points"]],
    )


def _slice_index(request: Mapping[str, Any], series: SeriesVolume) -> int:
    count, uid = len(series.datasets), request["sop_instance_uid"]
    if uid is None:
        index = int(request["slice"])
        if not 0 <= index < count:
            raise PromptRefused(
                f"the prompt is on slice {index}, counted from 0, and the series has {count}", code="slice-unknown"
            )
        return index
    frames = {
        one.frame_number: index for index, one in enumerate(slice_references(series)) if one.sop_instance_uid == uid
    }
    number = request.get("frame_number")
    if len(frames) == 1 and (number is None or (number == 1 and None in frames)):
        return next(iter(frames.values()))
    if number in frames:
        return frames[number]
    if frames:
        raise PromptRefused(
            f"the prompt is on an instance of {len(frames)} frames, and does not name one of them by frame_number",
            code="slice-unknown",
        )
    raise PromptRefused(
        "the prompt is on an instance that is not of this session's series; open a session for its series",
        code="slice-unknown",
    )


def _in_patient(request: Mapping[str, Any], series: SeriesVolume) -> tuple[int, _Drawn]:
    slices: list[int] = []

    def placed(position: Sequence[float]) -> Pair:
        place = place_in_volume(position, series.volume, frame_of_reference_uid=request["frame_of_reference_uid"])
        slices.append(place.slice_index)
        return place.x, place.y

    drawn = _Drawn()
    if request["box"] is not None:
        (one_x, one_y), (other_x, other_y) = (placed(position) for position in request["box"])
        drawn.box = (min(one_x, other_x), min(one_y, other_y)), (max(one_x, other_x), max(one_y, other_y))
    if request["outline"] is not None:
        drawn.outline = [placed(position) for position in request["outline"]]
    drawn.points = [(placed(one["position"]), one["foreground"]) for one in request["points"]]
    if not slices:
        raise PromptRefused("the prompt shows nothing: expected a box, an outline or points", code="prompt-empty")
    if len(set(slices)) > 1:
        raise PromptRefused(
            f"the prompt lies on {len(set(slices))} slices of the series, and must lie on one; draw on a slice of it",
            code="prompt-across-slices",
        )
    return slices[0], drawn
