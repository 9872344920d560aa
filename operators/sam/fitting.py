"""What of a placed prompt a model can be shown, by the kinds of prompts that it takes: judged slice by slice.

What it can't be shown is named, as `operators.sam.objects` names what could not be read or placed. Points beside a box
are the one part of a prompt that is dropped from it: the box alone still means the same structure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from operators.errors import PromptRefused
from operators.sam.contract import Contract
from operators.sam.frames import framed_prompt
from operators.sam.mask_prompts import as_answer
from operators.sam.objects.placing import PlacedPrompt
from operators.sam.objects.prompt_object import LeftOut
from operators.sam.objects.slice_prompts import PlacedSlice, SliceGrid
from operators.sam.prompts import SlicePrompt

PromptForm = Literal["box", "mask"]
"""What is shown of what was outlined or painted: the box around it; or it itself, as a former answer to be refined."""


@dataclass(frozen=True, eq=False)
class FittedPrompt:
    """One wanted structure as a model is shown it."""

    placed: PlacedPrompt
    """With those slices alone that can be shown; at least one."""
    shown: tuple[SlicePrompt, ...]
    """What is shown of each of them."""
    left_out: tuple[LeftOut, ...]
    """What can't be shown; each reason once, on however many slices."""


def fitted(placed: PlacedPrompt, contract: Contract, form: PromptForm) -> FittedPrompt:
    """Return what a model can be shown of a structure.

    Parameters
    ----------
    placed
        On the slices of the series.
    contract
        The model's.
    form
        What is shown of outlines and masks.

    Raises
    ------
    PromptRefused
        As `framed_prompt` of the first slice, if no slice can be shown.
    """
    slices: list[PlacedSlice] = []
    shown: list[SlicePrompt] = []
    first: PromptRefused | None = None
    left_out: dict[LeftOut, None] = {}
    for one in placed.slices:
        prompt, dropped = _without_what_is_beside(_shown_as(one, placed.grid, contract, form), contract)
        try:
            framed_prompt(prompt, placed.grid.rows, placed.grid.columns, contract)
        except PromptRefused as error:
            first = first or error
            left_out[LeftOut(placed.wanted.number, error.code, str(error))] = None
            continue
        slices.append(one)
        shown.append(prompt)
        if dropped:
            left_out[LeftOut(placed.wanted.number, "prompt-kind-unsupported", dropped)] = None
    if not slices:
        raise first or PromptRefused("the prompt lies on no slice; draw it on the series", code="prompt-empty")
    return FittedPrompt(replace(placed, slices=tuple(slices)), tuple(shown), tuple(left_out))


def _shown_as(one: PlacedSlice, grid: SliceGrid, contract: Contract, form: PromptForm) -> SlicePrompt:
    if form == "box" or one.mask is None:
        return one.prompt
    return replace(one.prompt, logits=as_answer(one.mask.full(grid.rows, grid.columns), contract))


def _without_what_is_beside(prompt: SlicePrompt, contract: Contract) -> tuple[SlicePrompt, str]:
    """The prompt, without points beside a box for a model that takes no points; and what is to be said of that."""
    kinds = contract.prompts.kinds
    if not prompt.points or prompt.box is None or "points" in kinds or "box" not in kinds:
        return prompt, ""
    said = f"the model takes {', '.join(kinds)}: the points beside a box were left out, and the box was followed"
    return replace(prompt, points=()), said
