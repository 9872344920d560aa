"""The three frames of a variant: the image, the square that the encoder sees, and the square of the decoder's masks.

A slice goes into the encoder's frame (`network_image`), a prompt into the frame that its coordinates count in
(`framed_prompt`), and the decoder's logits come back onto the image (`on_image`), all as the contract says. Pure
functions of arrays; what a model was trained with is repeated to the rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from operators.errors import ModelPackageError, PromptRefused, SeriesRefused
from operators.sam.contract import Contract, ImageContract, LogitsContract, PromptContract
from operators.sam.prompts import Box, SlicePrompt
from operators.sam.resampling import ON_BYTES, RESIZES, bilinear_weights

PADDING, BACKGROUND, FOREGROUND, UPPER_LEFT, LOWER_RIGHT = -1, 0, 1, 2, 3
"""Labels of points."""
_CHANNELS = 3
_NO_RANGE = 1e-8
"""In the place of the range of an image of one value, as in MedSAM."""


# --- the image ---


def network_image(image: NDArray[np.uint8], contract: ImageContract) -> NDArray[np.float32]:
    """Return what the encoder sees of `image`.

    Parameters
    ----------
    image
        (rows, columns), 0 to 255.
    contract
        How it is brought there.

    Returns
    -------
    (1, 3, S, S), S the side of the encoder's square; zero right of and below the image.

    Raises
    ------
    SeriesRefused
        ``image-too-narrow`` if the image is so long that its short side would vanish.
    ModelPackageError
        ``contract-contradiction`` if intensities shall change before a resampling that is defined on 8 bits only.
    """
    shown = shown_shape(image.shape[0], image.shape[1], contract)
    resize = RESIZES[contract.resampling]
    if contract.order == "intensity-first":
        if contract.resampling in ON_BYTES:
            raise ModelPackageError(
                f"the model's contract wants intensities before {contract.resampling}, which is defined on 8 bits "
                'only; expected "order": "resample-first"',
                code="contract-contradiction",
            )
        values = resize(_intensities(image, contract), shown)
    else:
        values = _intensities(resize(image, shown), contract)
    channels = np.moveaxis(values, -1, 0) if values.ndim == _CHANNELS else np.stack([values] * _CHANNELS)
    square = np.zeros((1, _CHANNELS, contract.size, contract.size), np.float32)
    for index, (mean, deviation) in enumerate(zip(contract.mean, contract.deviation, strict=True)):
        normalised = (channels[index].astype(np.float32) - np.float32(mean)) / np.float32(deviation)
        square[0, index, : shown[0], : shown[1]] = normalised
    return square


def shown_shape(rows: int, columns: int, contract: ImageContract) -> tuple[int, int]:
    """Return the rows and columns that an image has within the encoder's square.

    Raises
    ------
    SeriesRefused
        ``image-too-narrow`` if one of them would be 0.
    """
    shown = contract.shown(rows, columns)
    if min(shown) < 1:
        raise SeriesRefused(
            f"an image of {rows} rows and {columns} columns would be {shown[0]} by {shown[1]} for the network; "
            "expected one whose sides differ less",
            code="image-too-narrow",
        )
    return shown


def _intensities(values: NDArray[Any], contract: ImageContract) -> NDArray[Any]:
    if contract.intensity == "byte":
        return values.astype(np.float32)
    if contract.intensity == "unit":
        return values.astype(np.float32) / np.float32(255)
    low, high = float(values.min()), float(values.max())
    return (values.astype(np.float64) - low) / max(high - low, _NO_RANGE)


# --- prompts ---


@dataclass(frozen=True)
class FramedPrompt:
    """A prompt in the frame that the network's coordinates count in."""

    coords: NDArray[np.float32]
    """(p, 2): x, y of each point; the network itself adds the half pixel to its middle."""
    labels: NDArray[np.float32]
    """(p,): what each is."""
    logits: NDArray[np.float32] | None
    """(L, L): a former answer, or None."""


def framed_prompt(prompt: SlicePrompt, rows: int, columns: int, contract: Contract) -> FramedPrompt:
    """Return `prompt`, which is in pixels of an image of `rows` x `columns`, as the network takes it.

    Raises
    ------
    PromptRefused
        As `SlicePrompt.checked` does; ``prompt-kind-unsupported`` if the model learnt from no such prompts;
        ``prompt-mask-size`` if a former answer has another size than this model's.
    """
    prompt.checked(rows, columns)
    _check_kinds(prompt, contract)
    scales = np.array(_scales(rows, columns, contract))
    box: NDArray[np.float64] | None = None
    if prompt.box is not None:
        box = _corners(prompt.box) * scales
        if contract.prompts.rounding == "floor":
            box = np.trunc(box)
    points = np.array([(point.x, point.y) for point in prompt.points], np.float64).reshape(-1, 2) * scales
    kinds = [FOREGROUND if point.is_foreground else BACKGROUND for point in prompt.points]
    return joined_tokens(box, points, kinds, prompt.logits, contract.prompts)


def framed_box(box: NDArray[np.float64], contract: Contract) -> FramedPrompt:
    """Return a box that is in the network's frame already, [left, top, right, bottom], as a prompt."""
    return joined_tokens(box.reshape(2, 2), np.empty((0, 2)), [], None, contract.prompts)


def joined_tokens(
    box: NDArray[np.float64] | None,
    points: NDArray[np.float64],
    kinds: list[int],
    logits: NDArray[np.float32] | None,
    contract: PromptContract,
) -> FramedPrompt:
    """Return points and corners in the order that the variant's own code has, and the padding point where it has one.

    Parameters
    ----------
    box
        Its corners (2, 2) in the network's frame, upper left and lower right.
    points
        (p, 2), in that frame; `kinds` are their labels.
    logits
        A former answer, handed on.
    """
    parts, labels = [points], [np.array(kinds, np.float64)]
    if box is not None:
        place = 0 if contract.box == "first" else 1
        parts.insert(place, box)
        labels.insert(place, np.array([UPPER_LEFT, LOWER_RIGHT], np.float64))
    is_padded = contract.padding == "always" or (contract.padding == "without-box" and box is None)
    if is_padded and (box is not None or kinds):  # a mask alone brings no point at all
        parts.append(np.zeros((1, 2)))
        labels.append(np.array([PADDING], np.float64))
    return FramedPrompt(np.concatenate(parts).astype(np.float32), np.concatenate(labels).astype(np.float32), logits)


def _corners(box: Box) -> NDArray[np.float64]:
    return np.array([[box.left, box.top], [box.right, box.bottom]], np.float64)


def _scales(rows: int, columns: int, contract: Contract) -> tuple[float, float]:
    """From pixels of the image to the prompts' frame, along x and y."""
    size = contract.prompts.size
    if contract.image.fit == "square":
        return size / columns, size / rows
    if contract.prompts.rounding == "floor":  # LiteMedSAM takes one scale for both axes
        return size / max(rows, columns), size / max(rows, columns)
    new_rows, new_columns = shown_shape(rows, columns, replace(contract.image, size=size))
    return new_columns / columns, new_rows / rows


def _check_kinds(prompt: SlicePrompt, contract: Contract) -> None:
    unknown = [kind for kind in prompt.kinds if kind not in contract.prompts.kinds]
    if unknown:
        raise PromptRefused(
            f"the model takes {', '.join(contract.prompts.kinds)}, and the prompt has {', '.join(unknown)}; prompt it "
            "otherwise, or choose another model",
            code="prompt-kind-unsupported",
        )
    side = contract.logits.size
    if prompt.logits is not None and prompt.logits.shape != (side, side):
        raise PromptRefused(
            f"a former answer of this model has {side} rows and columns, got {list(prompt.logits.shape)}",
            code="prompt-mask-size",
        )


# --- masks ---


def on_image(logits: NDArray[np.float32], rows: int, columns: int, contract: Contract) -> NDArray[np.float32]:
    """Return the decoder's `logits`, (k, L, L), on the image: (k, `rows`, `columns`).

    They are probabilities, 0 to 1, where the contract says sigmoid; what lies above the contract's threshold is the
    mask. Interpolation, cutting and interpolation again are linear and separable, so that they are two matrices.
    """
    down, across = _ways_onto_image(contract.image, contract.logits, rows, columns)
    values = _sigmoid(logits) if contract.logits.sigmoid else logits
    return np.asarray(down @ values @ across.T, np.float32)


@lru_cache(maxsize=16)
def _ways_onto_image(
    image: ImageContract, logits: LogitsContract, rows: int, columns: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The matrices, `rows` x L and `columns` x L, from the decoder's masks onto the image."""
    shown = shown_shape(rows, columns, image if logits.path == "through-input" else replace(image, size=logits.size))
    down, across = (_way_onto_image(image, logits, kept, new) for kept, new in zip(shown, (rows, columns), strict=True))
    return down, across


def _way_onto_image(image: ImageContract, logits: LogitsContract, kept: int, new: int) -> NDArray[np.float32]:
    """One axis, of which `kept` pixels show the image and come onto its `new` ones."""
    if logits.path == "direct":
        return bilinear_weights(logits.size, new)
    if logits.path == "through-input":
        return bilinear_weights(kept, new) @ bilinear_weights(logits.size, image.size)[:kept]
    weights = np.zeros((new, logits.size), np.float32)
    weights[:, :kept] = bilinear_weights(kept, new)
    return weights


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    shrunk = np.exp(-np.abs(logits))  # of a negative number only, so that nothing overflows
    return np.asarray(np.where(logits >= 0, 1, shrunk) / (1 + shrunk), np.float32)
