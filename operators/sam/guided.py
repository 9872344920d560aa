"""A generalist led through a volume by a specialist's label map: a box around what that found, slice by slice.

One box for each segment on each slice, around all of it there, as MedSAM's own evaluation has it. Slices where the
specialist found nothing are not shown to the generalist: it says how well an outline holds, not whether it was missed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import highdicom
import numpy as np
from numpy.typing import NDArray

from operators.errors import ModelPackageError
from operators.label_maps import LabelMap, labels_on
from operators.sam.contract import Contract
from operators.sam.frames import on_image
from operators.sam.package import GeneralistPackage
from operators.sam.predictor import SlicePrediction, SlicePredictor
from operators.sam.prompts import Box, SlicePrompt
from operators.sam.volume import Shown

BOX_MARGIN_PIXELS = 5.0
"""How much larger than the segment a box is on each side, where nobody says otherwise."""


def guided_labels(
    labels: highdicom.Volume,
    shown: Mapping[int, Shown],
    predictor: SlicePredictor,
    *,
    margin: float,
    progress: Callable[[int, int], None],
) -> highdicom.Volume:
    """Return the label map that the generalist makes of the boxes around `labels`.

    Parameters
    ----------
    labels
        The specialist's: uint8 or uint16, axes slice, row, column.
    shown
        By the label values of the segments to look for, the slices of the series through the segment's window, as many
        as `labels` has; other values are left alone. Segments that are shown the same need one run of the encoder for a
        slice, others one for each window: it sees another picture.
    predictor
        The generalist.
    margin
        How much larger than the segment a box is on each side, in pixels; it ends with the image.
    progress
        Told the slices done and the slices in all.

    Returns
    -------
    The geometry and type of `labels`. Where two segments' masks overlap, the voxel is that one's whose probability
    is higher; the first one's if they are equal.

    Raises
    ------
    PromptRefused, SeriesRefused, InferenceFailed
        As `SlicePredictor.predict`.
    """
    found: LabelMap = np.zeros_like(labels.array)
    for index, plane in enumerate(labels.array):
        values = [int(value) for value in labels_on(plane) if value in shown]
        if values:
            prompts = {value: SlicePrompt(box=box_around(plane == value, margin)) for value in values}
            predictions = _predictions(index, prompts, shown, predictor)
            _paint(found[index], values, predictions, predictor.contract)
        progress(index + 1, len(labels.array))
    return labels.with_array(found)


def box_around(mask: NDArray[np.bool_], margin: float) -> Box:
    """Return the box around what is set in (rows, columns), `margin` pixels larger on each side within the image."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return Box(
        left=max(0.0, float(columns[0]) - margin),
        top=max(0.0, float(rows[0]) - margin),
        right=min(float(mask.shape[1]), float(columns[-1]) + 1 + margin),
        bottom=min(float(mask.shape[0]), float(rows[-1]) + 1 + margin),
    )


def check_prompts(package: GeneralistPackage) -> None:
    """Check that a generalist takes boxes.

    Raises
    ------
    ModelPackageError
        ``box-unsupported``.
    """
    if "box" not in package.contract.prompts.kinds:
        raise ModelPackageError(
            f"{package.name} takes no boxes, which a specialist's result is turned into; choose a model that does",
            code="box-unsupported",
        )


def _predictions(
    index: int, prompts: Mapping[int, SlicePrompt], shown: Mapping[int, Shown], predictor: SlicePredictor
) -> list[SlicePrediction]:
    """What is found on a slice for each segment's prompt, in their order."""
    alike: dict[Shown, list[int]] = {}
    for value in prompts:
        alike.setdefault(shown[value], []).append(value)
    found: dict[int, SlicePrediction] = {}
    for slices, values in alike.items():
        answers = predictor.predict(slices[index], [prompts[value] for value in values])
        found.update(zip(values, answers, strict=True))
    return [found[value] for value in prompts]


def _paint(plane: LabelMap, values: Sequence[int], predictions: Sequence[SlicePrediction], contract: Contract) -> None:
    """Paint the masks of one slice; what several of them hold is decided by their logits on the image."""
    masks = np.stack([prediction.mask for prediction in predictions])
    for value, mask in zip(values, masks, strict=True):
        plane[mask] = value
    contested = np.count_nonzero(masks, axis=0) > 1
    if contested.any():
        rows, columns = plane.shape
        certainty = np.stack([on_image(one.logits, rows, columns, contract)[0] for one in predictions])
        best = np.where(masks, certainty, -np.inf).argmax(axis=0)
        plane[contested] = np.array(values, plane.dtype)[best[contested]]
