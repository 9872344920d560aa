"""One picture of all slices with the outlines of the segments over them, as one model found them or two."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

WINDOW_CENTRE, WINDOW_WIDTH = 40.0, 400.0
"""The usual soft tissue window, in Hounsfield units."""
TILE = 256
"""Edge of one slice in the picture, in pixels."""


def write_contact_sheet(
    hounsfield: NDArray[np.float32],
    labels: NDArray[np.uint8],
    others: NDArray[np.uint8],
    colours: Mapping[int, tuple[int, int, int]],
    caption: str,
    path: Path,
    columns: int = 5,
) -> None:
    """Draw every slice with the segments' outlines.

    Parameters
    ----------
    hounsfield, labels, others
        Axes slice, row, column; same shape. `labels` are filled and outlined in their colours, `others` have an
        outline of a lighter one over them.
    colours
        Label value to RGB.
    """
    count = len(hounsfield)
    rows = -(-count // columns)
    header = 28
    sheet = Image.new("RGB", (columns * TILE, rows * TILE + header), "black")
    ImageDraw.Draw(sheet).text((8, 8), caption, fill="white")
    for index in range(count):
        tile = Image.fromarray(_outlined(hounsfield[index], labels[index], others[index], colours)).resize((TILE, TILE))
        ImageDraw.Draw(tile).text((6, 6), str(index + 1), fill="white")
        sheet.paste(tile, ((index % columns) * TILE, header + (index // columns) * TILE))
    sheet.save(path)


def _outlined(
    plane: NDArray[np.float32],
    labels: NDArray[np.uint8],
    others: NDArray[np.uint8],
    colours: Mapping[int, tuple[int, int, int]],
) -> NDArray[np.uint8]:
    grey = np.clip((plane - (WINDOW_CENTRE - WINDOW_WIDTH / 2)) / WINDOW_WIDTH, 0, 1) * 255
    picture = np.repeat(grey[..., None], 3, axis=2)
    for value, colour in colours.items():
        mask = labels == value
        outline = mask & ~ndimage.binary_erosion(mask, iterations=2)
        picture[mask] = 0.8 * picture[mask] + 0.2 * np.asarray(colour)
        picture[outline] = colour
    for value, colour in colours.items():
        mask = others == value
        picture[mask & ~ndimage.binary_erosion(mask, iterations=2)] = 0.2 * np.asarray(colour) + 0.8 * 255
    return picture.astype(np.uint8)
