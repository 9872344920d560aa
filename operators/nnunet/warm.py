"""Importing this compiles the loops of `kernels` and `painting`, or reads them from disk where that was done before.

A process that is forked afterwards has them: no study waits for a compiler.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from operators.label_scheme import LabelScheme
from operators.nnunet.normalisation import NoNormalisation
from operators.nnunet.plans import Configuration, Resampling
from operators.nnunet.postprocess import paint_labels
from operators.nnunet.prediction import Rows, predict_planes
from operators.nnunet.preprocess import place, preprocess

_RESAMPLING = Resampling(order=1, separate_z=None)
_CONFIGURATION = Configuration(
    spacing=(2.0, 2.0, 2.0),
    patch_size=(2, 2, 2),
    transpose_forward=(0, 1, 2),
    transpose_backward=(0, 1, 2),
    normalisations=(NoNormalisation(),),
    image_resampling=_RESAMPLING,
    labels_resampling=_RESAMPLING,
    logits_resampling=_RESAMPLING,
    labels=LabelScheme(values=(0, 1), has_regions=False, foreground=(1,)),
    sees_labels=False,
    mirroring_axes=(),
    tile_step_size=0.5,
)
_MANY_LABELS = replace(_CONFIGURATION.labels, foreground=tuple(range(1, 256)))
"""So many that label maps have two bytes a voxel: for them there is machine code of its own."""


class _Doubling:
    """A network that answers with the image and its opposite."""

    rows = 1

    def __call__(self, requests: Iterable[Rows]) -> Iterator[NDArray[np.float32]]:
        for rows in requests:
            tiles = np.stack(rows)
            yield np.concatenate([tiles, -tiles], axis=1)


def _compile() -> None:
    """Send a tiny image the whole way: what is compiled is then what will be called."""
    image = np.linspace(-1, 1, 216, dtype=np.float32).reshape(6, 6, 6)
    placement = place([image], (1.0, 1.0, 1.0), _CONFIGURATION)
    seen = preprocess([image], placement, _CONFIGURATION)
    for configuration in (_CONFIGURATION, replace(_CONFIGURATION, labels=_MANY_LABELS)):
        paint_labels(predict_planes(seen, configuration, _Doubling(), lambda _: None), placement, configuration)


_compile()
