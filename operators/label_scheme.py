"""What the outputs of an nnU-Net mean: one head a label, or one head a region made of several labels.

As ``nnunetv2.utilities.label_handling`` reads ``dataset.json``: ``labels`` maps names to a label value, or to the list
of values a region is made of; a label called ``ignore`` marks what was not annotated and is never predicted; with
regions, ``regions_class_order`` says what each region paints, in the order in which they paint over each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

IGNORE = "ignore"
BACKGROUND = 0
_MOST_UINT8_LABELS = 254
"""nnU-Net writes 8 bits a voxel up to so many labels, and 16 bits beyond."""


@dataclass(frozen=True)
class LabelScheme:
    """What each head of a network stands for."""

    values: tuple[int, ...]
    """What each head paints. Without regions head ``i`` paints ``i``, and head 0 is the background; with regions there
    is no head for it."""
    has_regions: bool
    """Whether heads are regions, which may overlap: a later one paints over an earlier one."""
    foreground: tuple[int, ...]
    """The label values a training annotation holds, background and ignore label left out."""

    @property
    def heads(self) -> int:
        """Channels of the network's output."""
        return len(self.values)

    @property
    def painted(self) -> frozenset[int]:
        """Every value but 0 that a label map of this network can hold."""
        return frozenset(self.values) - {BACKGROUND}

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type of the label maps that nnU-Net writes."""
        return np.dtype(np.uint8 if len(self.foreground) <= _MOST_UINT8_LABELS else np.uint16)


def read_label_scheme(dataset: Mapping[str, Any]) -> LabelScheme:
    """Return the scheme that nnU-Net's ``dataset.json`` describes.

    Raises
    ------
    KeyError, TypeError, ValueError
        If it is not what nnU-Net v2 writes; the message says what is wrong.
    """
    labels: Mapping[str, Any] = dataset["labels"]
    named = {name: _members(value) for name, value in labels.items() if name != IGNORE}
    if named.get("background") != (BACKGROUND,):
        raise ValueError("'labels' must hold a background of value 0")
    known = sorted({member for members in named.values() for member in members})
    if IGNORE in labels and labels[IGNORE] != known[-1] + 1:
        raise ValueError(f"the ignore label must be the highest, {known[-1] + 1}, and is {labels[IGNORE]}")
    foreground = tuple(value for value in known if value != BACKGROUND)
    if not any(len(members) > 1 for members in named.values()):
        if known != list(range(len(known))) or not foreground:
            raise ValueError(f"labels must be numbered from 0 without gaps, and at least one beyond 0; got {known}")
        return LabelScheme(tuple(known), has_regions=False, foreground=foreground)
    regions = [members for members in named.values() if set(members) != {BACKGROUND}]
    order = dataset.get("regions_class_order")
    if not isinstance(order, Sequence) or len(order) != len(regions):
        raise ValueError(f"'regions_class_order' must say what each of {len(regions)} regions paints; it is {order}")
    return LabelScheme(tuple(int(value) for value in order), has_regions=True, foreground=foreground)


def _members(value: Any) -> tuple[int, ...]:
    return tuple(int(one) for one in value) if isinstance(value, (list, tuple)) else (int(value),)
