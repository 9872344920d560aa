"""From one prompted slice through a stack, the way that the variant has: by its memory, or else by boxes.

With a memory (SAM 2, MedSAM2) an object is followed as SAM 2's own video predictor does it: `operators.sam.memory`
decides, and here its slices, prompts and masks are those of a series. Without one, `operators.sam.propagation`.

`kept_parts` is for the end of the way: some variants keep but one part of what was found in all.

What was drawn is shown as SAM 2 shows it, as points and corners, on the slice as the memory's networks see slices. A
refined answer is shown as the mask that it is: a memory knows no half-finished masks.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping

import numpy as np

from operators.components import Bits, largest_component
from operators.errors import InferenceFailed
from operators.sam.contract import Contract
from operators.sam.frames import PADDING, framed_prompt, on_image
from operators.sam.mask_prompts import mask_in_square
from operators.sam.memory import Features, Followed, Shown, ShownMask, ShownPoints, follow
from operators.sam.memory_contract import followed_image, read_memory_contract
from operators.sam.predictor import Infer, SlicePrediction, SlicePredictor
from operators.sam.prompts import SlicePrompt
from operators.sam.propagation import Progress, Stack, propagate, slices_within


def follow_structure(
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
        A generalist with a memory, or one that takes boxes.
    images
        The stack.
    start
        The prompted slice.
    prompt
        In its pixels.
    slices
        First and last slice, both included, `start` among them; held to the stack. None: until the structure ends,
        which is a slice on which nothing of it is found.
    progress
        Called after each slice, before it is yielded, with the slices that are done and the most that there may be.

    Raises
    ------
    PromptRefused
        As `propagate`, which says when the model takes no boxes; with a memory it need not.
    InferenceFailed
        If a network does not answer, or ``logits-not-finite`` if it answers with what are no numbers.
    """
    infer = predictor.infer
    if predictor.contract.memory is None or infer is None:
        return propagate(predictor, images, start, prompt, slices=slices, progress=progress)
    return _remembering(predictor, infer, images, start, prompt, slices, progress or (lambda done, most: None))


def kept_parts(masks: Mapping[int, Bits], contract: Contract) -> Mapping[int, Bits]:
    """Return what the variant keeps of a structure that was followed to its end: all, or its largest component.

    MedSAM2's own script (``medsam2_infer_3D_CT.py``) keeps the largest, wherever the prompt was.

    Parameters
    ----------
    masks
        By slice, (rows, columns): all that `follow_structure` yielded. No slice between two others is missing.
    """
    if contract.memory is None or read_memory_contract(contract.memory).components == "all":
        return masks
    slices = sorted(masks)
    return dict(zip(slices, largest_component(np.stack([masks[index] for index in slices])), strict=True))


def _remembering(
    predictor: SlicePredictor,
    infer: Infer,
    images: Stack,
    start: int,
    prompt: SlicePrompt,
    slices: tuple[int, int] | None,
    report: Progress,
) -> Generator[tuple[int, SlicePrediction], None, None]:
    contract = predictor.contract
    first, last = slices_within(len(images), start, slices)
    most = last - first + 1
    drawn: SlicePrediction | None = None
    if prompt.logits is not None:
        (drawn,) = predictor.predict(images[start], [prompt])
        if not drawn.mask.any():
            report(1, most)
            yield start, drawn
            return
    shown_as = followed_image(contract)

    def features_of(index: int) -> Features:
        return predictor.embedding(images[index], shown_as)

    steps = follow(
        infer,
        contract,
        len(images),
        features_of,
        [{start: _shown(predictor, images[start].shape, prompt, drawn)}],
        within=(first, last),
        until_gone=slices is None,
    )
    for done, (index, found) in enumerate(steps, 1):
        report(done, most)
        prediction = drawn if index == start else None
        prediction = prediction or _prediction(predictor, found[0], images[index].shape)
        yield index, prediction
        if index == start and slices is None and not prediction.mask.any():
            return


def _shown(
    predictor: SlicePredictor, shape: tuple[int, ...], prompt: SlicePrompt, drawn: SlicePrediction | None
) -> Shown:
    contract = predictor.contract
    if drawn is not None:
        return ShownMask(mask_in_square(drawn.mask, contract.image.size))
    framed = framed_prompt(prompt, shape[0], shape[1], contract)
    kept = framed.labels != PADDING  # a point of padding is added where the decoder is asked
    return ShownPoints(framed.coords[kept], framed.labels[kept])


def _prediction(predictor: SlicePredictor, found: Followed, shape: tuple[int, ...]) -> SlicePrediction:
    logits = found.logits[None]
    if not np.isfinite(logits).all():
        raise InferenceFailed(
            "the decoder answered with values that are no numbers; check the model and what it is served by",
            code="logits-not-finite",
        )
    contract = predictor.contract
    masks = on_image(logits, shape[0], shape[1], contract) > contract.logits.threshold
    return SlicePrediction(masks, np.array([found.quality], np.float32), logits)
