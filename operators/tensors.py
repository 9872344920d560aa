"""What a served model takes and gives: element types and shapes by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class TensorSpec:
    """The element type and the shape of one input or output; -1 stands for any length."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def admits(self, dtype: np.dtype[Any], shape: Sequence[int]) -> bool:
        """Whether an array of this type and shape fits."""
        fits = len(shape) == len(self.shape) and all(
            want in (-1, have) for want, have in zip(self.shape, shape, strict=True)
        )
        return fits and dtype == self.dtype

    @property
    def is_batched(self) -> bool:
        """Whether its first axis may have any length."""
        return self.shape[:1] == (-1,)

    def of_batch(self, length: int) -> TensorSpec:
        """Return this for a batch of `length`; itself if it has no such axis."""
        return replace(self, shape=(length, *self.shape[1:])) if self.is_batched else self

    @property
    def size(self) -> int:
        """The bytes of such an array, whose lengths must all be known."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a model, by name."""

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
