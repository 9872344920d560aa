"""What kinds of damage do to a series, put into words they share."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from pydicom import config
from pydicom.dataset import Dataset
from pydicom.valuerep import DSfloat

from tests.mutations.kind import Series
from tests.mutations.series import restore, stored

Vector = NDArray[np.float64]

MIDDLE = 9
"""A slice amid the 20."""


def each(series: Series, **attributes: object) -> Series:
    """Set attributes in every instance; None deletes one."""
    return some(series, range(len(series)), **attributes)


def some(series: Series, indices: Iterable[int], **attributes: object) -> Series:
    """Set attributes in some instances; None deletes one."""
    for index in indices:
        for keyword, value in attributes.items():
            if value is None:
                series[index].pop(keyword, None)
            else:
                setattr(series[index], keyword, value)
    return series


def one(series: Series, **attributes: object) -> Series:
    """Set attributes in the middle slice."""
    return some(series, [MIDDLE], **attributes)


def position(dataset: Dataset) -> Vector:
    """Image Position (Patient), mm."""
    return np.array(dataset.ImagePositionPatient, dtype=float)


def normal(dataset: Dataset) -> Vector:
    """The unit vector that rows and columns stand on."""
    orientation = np.array(dataset.ImageOrientationPatient, dtype=float)
    across: Vector = np.cross(orientation[:3], orientation[3:])
    return across


def move(dataset: Dataset, by: Vector) -> None:
    """Move a slice in patient coordinates, mm."""
    dataset.ImagePositionPatient = decimals(position(dataset) + by)


def decimals(numbers: Iterable[float]) -> list[str]:
    """As Decimal Strings, 16 characters at most."""
    return [f"{number:.12g}"[:16] for number in numbers]


def step(series: Series) -> Vector:
    """From each slice to the next, mm."""
    return position(series[1]) - position(series[0])


def copies(series: Series) -> Series:
    """The same instances again."""
    return copy.deepcopy(series)


def set_text(dataset: Dataset, keyword: str, text: str | list[str]) -> None:
    """Set a Decimal String to characters as they are, whatever pydicom thinks of them."""
    texts = [text] if isinstance(text, str) else text
    config.settings.writing_validation_mode, before = config.IGNORE, config.settings.writing_validation_mode
    try:
        numbers = [_verbatim(one) for one in texts]
        setattr(dataset, keyword, numbers if len(numbers) > 1 else numbers[0])
    finally:
        config.settings.writing_validation_mode = before


def _verbatim(text: str) -> DSfloat:
    number = DSfloat(0.0, validation_mode=config.IGNORE)
    number.original_string = text
    return number


def brighter(dataset: Dataset, factor: float = 1.3) -> Dataset:
    """Other pixels of the same anatomy, as another phase or echo has them; whatever bits there are, they hold them."""
    restore(dataset, np.minimum(stored(dataset) * factor, 2 ** (int(dataset.BitsStored) - 1) - 1))
    return dataset
