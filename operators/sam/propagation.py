"""From one prompted slice through a stack: each next slice is shown the box around what was found on the last.

It is what LiteMedSAM's script for volumes does (``CVPR24_LiteMedSAM_infer.py``), for any variant that takes boxes. The
mask is brought into the frame that prompts count in by `resampling.area`; the box is drawn around what is left of it
there, 3 pixels of 256 larger on each side; from the prompted slice the way goes up first, then down. The script takes
the label's own value into that resampling, so that its second object gets other boxes than its first; here every
object gets those of the first.

Where a range of slices is given, a slice without a mask does not end the way: the next one is shown the first box
again, as in the script. Where none is given, the structure ends where a mask is empty, and the way in that direction
with it; that rule is our own.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from operators.errors import PromptRefused
from operators.sam.contract import Contract
from operators.sam.frames import FramedPrompt, framed_box, framed_prompt, shown_shape
from operators.sam.predictor import SlicePrediction, SlicePredictor
from operators.sam.prompts import SlicePrompt
from operators.sam.resampling import area

Progress = Callable[[int, int], None]
"""Told the slices that are done and the most that there may be."""

_MARGIN, _MARGIN_FRAME = 3, 256


class Stack(Protocol):
    """Slices by number, each (rows, columns), 0 to 255: an array of three axes, a list, or `volume.Shown`."""

    def __len__(self) -> int:
        """Return how many there are."""

    def __getitem__(self, index: int, /) -> Any:
        """Return one."""


def middle_slice(first: int, last: int) -> int:
    """Return where LiteMedSAM's script begins in a box from slice `first` to slice `last`, both included."""
    return int((last - first) / 2 + first)


def propagate(
    predictor: SlicePredictor,
    images: Stack,
    start: int,
    prompt: SlicePrompt,
    *,
    slices: tuple[int, int] | None = None,
    progress: Progress | None = None,
) -> Generator[tuple[int, SlicePrediction], None, None]:
    """Yield slice and prediction, one after the other, from `start` up and then down.

    Close it (`contextlib.closing`) to call the rest off; nothing is computed ahead of what is asked for.

    Parameters
    ----------
    predictor
        A generalist that takes boxes.
    images
        The stack.
    start
        The prompted slice.
    prompt
        In its pixels. Without a box, the box around what it finds stands for it on slices that need the first box.
    slices
        First and last slice, both included, `start` among them; held to the stack. None: until the structure ends.
    progress
        Called after each slice, before it is yielded.

    Raises
    ------
    PromptRefused
        ``prompt-outside`` if `start` is not in the stack or not in `slices`; ``prompt-kind-unsupported`` if the model
        takes no boxes; else as `SlicePredictor.predict`.
    InferenceFailed
        If a network does not answer.
    """
    contract = predictor.contract
    first, last = slices_within(len(images), start, slices)
    if "box" not in contract.prompts.kinds:
        raise PromptRefused(
            "the model takes no boxes, and a volume is gone through by boxes; prompt each slice, or take another model",
            code="prompt-kind-unsupported",
        )
    rows, columns = images[start].shape
    report = progress or (lambda done, most: None)
    shown = framed_prompt(prompt, rows, columns, contract)
    (begun,) = predictor.ask(images[start], [shown])
    done, most = 1, last - first + 1
    report(done, most)
    yield start, begun
    fallback = _fallback(prompt, begun.mask, contract)
    for way in (range(start + 1, last + 1), range(start - 1, first - 1, -1)):
        steps = _follow(predictor, images, way, begun.mask, fallback, ends=slices is None)
        for index, found in steps:
            done += 1
            report(done, most)
            yield index, found


def _follow(
    predictor: SlicePredictor,
    images: Stack,
    way: Iterable[int],
    mask: NDArray[np.bool_],
    fallback: FramedPrompt | None,
    *,
    ends: bool,
) -> Generator[tuple[int, SlicePrediction], None, None]:
    """One direction, from the `mask` of the slice before it."""
    for index in way:
        if ends and not mask.any():
            return
        box = next_box(mask, predictor.contract)
        shown = fallback if box is None else framed_box(box, predictor.contract)
        if shown is None:
            return  # points were shown, and nothing was found there
        (found,) = predictor.ask(images[index], [shown])
        mask = found.mask
        yield index, found


def next_box(mask: NDArray[np.bool_], contract: Contract) -> NDArray[np.float64] | None:
    """Return the box for the slice beside that of `mask`, or None if nothing is left of it in the prompts' frame.

    Parameters
    ----------
    mask
        (rows, columns).

    Returns
    -------
    [left, top, right, bottom] in the frame that prompts count in, whole numbers.
    """
    size = contract.prompts.size
    shown = shown_shape(mask.shape[0], mask.shape[1], replace(contract.image, size=size))
    small = area(mask.astype(np.uint8), shown)
    rows, columns = np.flatnonzero(small.any(axis=1)), np.flatnonzero(small.any(axis=0))
    if not rows.size:
        return None
    margin = round(_MARGIN * size / _MARGIN_FRAME)
    left, top = max(0, columns[0] - margin), max(0, rows[0] - margin)
    return np.array([left, top, min(size, columns[-1] + margin), min(size, rows[-1] + margin)], np.float64)


def _fallback(prompt: SlicePrompt, mask: NDArray[np.bool_], contract: Contract) -> FramedPrompt | None:
    """What is shown where the slice before has no mask: the first box."""
    if prompt.box is not None:
        return framed_prompt(SlicePrompt(box=prompt.box), mask.shape[0], mask.shape[1], contract)
    box = next_box(mask, contract)
    return None if box is None else framed_box(box, contract)


def slices_within(count: int, start: int, slices: tuple[int, int] | None) -> tuple[int, int]:
    """Return the first and the last slice to go to of `count`: `slices` held to the stack, or all of it.

    Raises
    ------
    PromptRefused
        ``prompt-outside`` if `start` is not among them.
    """
    first, last = (0, count - 1) if slices is None else (max(slices[0], 0), min(slices[1], count - 1))
    if not (0 <= start < count and first <= start <= last):
        raise PromptRefused(
            f"the prompted slice is number {start}, counted from 0, and lies outside of {first} to {last} of {count}; "
            "prompt a slice that is to be segmented",
            code="prompt-outside",
        )
    return first, last
