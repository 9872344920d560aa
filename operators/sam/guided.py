"""A generalist led through a volume by a specialist's label map: shown what that found, slice by slice.

One prompt for each segment on each slice: a box around all of it there, as MedSAM's own evaluation has it, a point well
within each of its connected parts, or both. Slices where the specialist found nothing are not shown to the generalist:
it says how well an outline holds, not whether it was missed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import get_args

import highdicom
import numpy as np

from operators.errors import ModelPackageError
from operators.label_maps import LabelMap, labels_on
from operators.sam.contract import Contract, PromptKind
from operators.sam.frames import on_image
from operators.sam.objects.labels import prompt_from_mask, shows_boxes, shows_points
from operators.sam.package import GeneralistPackage
from operators.sam.predictor import SlicePrediction, SlicePredictor
from operators.sam.prompts import SegmentPrompts, SlicePrompt
from operators.sam.volume import Shown

BOX_MARGIN_PIXELS = 5.0
"""How much larger than the segment a box is on each side, where nobody says otherwise."""


def guided_labels(
    labels: highdicom.Volume,
    shown: Mapping[int, Shown],
    predictor: SlicePredictor,
    *,
    prompts: SegmentPrompts,
    margin: float,
    progress: Callable[[int, int], None],
) -> highdicom.Volume:
    """Return the label map that the generalist makes of what `labels` show it.

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
    prompts
        What each segment is shown by.
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
    _, *in_plane = labels.spacing
    spacing = (float(in_plane[0]), float(in_plane[1]))
    for index, plane in enumerate(labels.array):
        values = [int(value) for value in labels_on(plane) if value in shown]
        if values:
            asked = {
                value: prompt_from_mask(plane == value, spacing, prompts=prompts, margin=margin) for value in values
            }
            predictions = _predictions(index, asked, shown, predictor)
            _paint(found[index], values, predictions, predictor.contract)
        progress(index + 1, len(labels.array))
    return labels.with_array(found)


def check_prompts(package: GeneralistPackage, prompts: SegmentPrompts) -> None:
    """Check that a generalist takes what segments are to be shown by.

    Raises
    ------
    ModelPackageError
        ``box-unsupported``, ``prompt-kind-unsupported`` if it takes no points.
    """
    kinds = package.contract.prompts.kinds
    missing = _missing(prompts, kinds)
    if not missing:
        return
    possible = [f'"{one}"' for one in get_args(SegmentPrompts) if not _missing(one, kinds)]
    instead = f"set prompts = {' or '.join(possible)}, or " if possible else ""
    raise ModelPackageError(
        f'{package.name} takes {", ".join(kinds)}, and with prompts = "{prompts}" segments are shown by '
        f"{prompts.replace('-', ' ')}; {instead}choose a model that takes these",
        code="box-unsupported" if "box" in missing else "prompt-kind-unsupported",
    )


def _missing(prompts: SegmentPrompts, kinds: Sequence[PromptKind]) -> list[PromptKind]:
    """Which kinds are needed and not among `kinds`."""
    needed: dict[PromptKind, bool] = {"box": shows_boxes(prompts), "points": shows_points(prompts)}
    return [kind for kind, is_needed in needed.items() if is_needed and kind not in kinds]


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
