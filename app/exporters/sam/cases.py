"""The fixed images and the questions about them, by which a network of the SAM family is judged. Needs no torch.

Images are drawn within the encoder's square as the contract lays them out: three aspect ratios, since what was traced
with one image must not keep its aspect ratio. On each the decoder is asked with every kind of prompt, in the frame
that the contract names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from app.exporters.parity import Array, Scale, fixed_volumes
from operators.sam.contract import Contract, PromptContract
from operators.sam.frames import BACKGROUND, FOREGROUND, joined_tokens

SIZES = {"square": (240, 240), "wide": (150, 250), "tall": (260, 130)}
"""Rows and columns of the images, before they are brought into the encoder's square."""
_DRAWN = {"square": "blobs", "wide": "noise", "tall": "ramp"}

NO_PROMPT = "no prompt"
BOX, BOXES, POINT, POINTS, PAIRS = "a box", "three boxes", "a point", "three points", "three prompts of two points"
POINTS_AND_BOX, REFINED, MIXED = "points and a box", "a point and a mask", "three boxes, of which two have a mask"


@dataclass(frozen=True)
class Question:
    """n prompts about one image, in the frame of prompts."""

    kind: str
    image: str
    points: tuple[Array, Array] | None
    """Coordinates (n, p, 2) and labels (n, p)."""
    boxes: Array | None
    """(n, 4)."""
    refined: tuple[bool, ...]
    """Which of the prompts bring a mask."""


def fixed_images(contract: Contract) -> dict[str, Array]:
    """Return the encoder's images by name, each (3, S, S) as the contract has them: normalised, zero beyond."""
    size = contract.image.size
    images = {}
    for name, (rows, columns) in SIZES.items():
        shown = contract.image.shown(rows, columns)
        drawn = fixed_volumes([Scale(0, 1, 0, 1)], shown)[_DRAWN[name]].clip(0, 1)
        values = np.repeat(drawn * (255 if contract.image.intensity == "byte" else 1), 3, axis=0)
        column = (3, 1, 1)
        mean = np.array(contract.image.mean).reshape(column)
        deviation = np.array(contract.image.deviation).reshape(column)
        images[name] = np.zeros((3, size, size), np.float32)
        images[name][:, : shown[0], : shown[1]] = (values - mean) / deviation
    return images


def questions(contract: Contract) -> Iterator[Question]:
    """Yield every question about every image."""
    scale = contract.prompts.size / contract.image.size
    for image, (rows, columns) in SIZES.items():
        height, width = (side * scale for side in contract.image.shown(rows, columns))
        frame = np.array([width, height], np.float32)

        def points(labels: list[list[int]], *places: tuple[float, float], frame: Array = frame) -> tuple[Array, Array]:
            marks = np.array(labels, np.float32)
            return np.array(places, np.float32).reshape(*marks.shape, 2) * frame, marks

        one = np.array([[0.2, 0.15, 0.7, 0.6]], np.float32) * np.tile(frame, 2)
        three = np.array(
            [[0.2, 0.15, 0.7, 0.6], [0.05, 0.5, 0.4, 0.98], [0.5, 0.02, 0.99, 0.97]], np.float32
        ) * np.tile(frame, 2)
        trio = points([[FOREGROUND, FOREGROUND, BACKGROUND]], (0.4, 0.4), (0.55, 0.3), (0.9, 0.9))
        pairs = points(
            [[FOREGROUND, BACKGROUND], [FOREGROUND, FOREGROUND], [FOREGROUND, BACKGROUND]],
            (0.4, 0.4), (0.1, 0.1), (0.2, 0.8), (0.3, 0.7), (0.8, 0.2), (0.5, 0.5),
        )  # fmt: skip
        single = points([[FOREGROUND]], (0.45, 0.35))
        yield Question(BOX, image, None, one, (False,))
        yield Question(BOXES, image, None, three, (False,) * 3)
        yield Question(POINT, image, single, None, (False,))
        yield Question(POINTS, image, trio, None, (False,))
        yield Question(PAIRS, image, pairs, None, (False,) * 3)
        yield Question(POINTS_AND_BOX, image, trio, one, (False,))
        yield Question(REFINED, image, single, None, (True,))
        yield Question(MIXED, image, None, three, (True, False, True))


def tokens(question: Question, contract: PromptContract) -> tuple[Array, Array]:
    """Return coordinates (n, p, 2) and labels (n, p) as the contract puts points and boxes."""
    framed = []
    for number in range(len(question.refined)):
        box = None if question.boxes is None else question.boxes[number].reshape(2, 2).astype(np.float64)
        places, labels = np.empty((0, 2)), np.empty(0, np.float32)
        if question.points is not None:
            places, labels = question.points[0][number].astype(np.float64), question.points[1][number]
        framed.append(joined_tokens(box, places, [int(label) for label in labels], None, contract))
    return np.stack([one.coords for one in framed]), np.stack([one.labels for one in framed])
