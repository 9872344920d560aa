"""The whole of nnU-Net v2's inference on one image, with the network behind a function."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from operators.model_package import ModelPackage
from operators.nnunet.plans import read_configuration
from operators.nnunet.postprocess import labels_from_logits
from operators.nnunet.preprocess import preprocess
from operators.nnunet.resampling import Spacing
from operators.nnunet.sliding_window import Infer, Progress, predict_logits


def segment_volume(
    array: NDArray[np.float32],
    spacing: Spacing,
    package: ModelPackage,
    infer: Infer,
    progress: Progress,
) -> NDArray[np.uint8]:
    """Return the labels, axes z, y, x, that ``nnUNetPredictor`` gives for the same array.

    Parameters
    ----------
    array
        Hounsfield units, axes z, y, x as SimpleITK reads a DICOM series: slices by rising position along the cross
        product of the row and column directions, rows and columns as stored.
    spacing
        In mm, z, y, x.
    package
        The model: plans and labels.
    infer
        The network, from a batch of tiles (1, 1, z, y, x) to logits (1, class, z, y, x).
    progress
        Told the tiles done and the tiles in all.

    Raises
    ------
    ModelPackageError
        If the model needs what is not supported.
    InferenceFailed
        If the network can't be reached or answers with what was not planned.
    """
    configuration = read_configuration(package)
    image, placement = preprocess(array, spacing, configuration)
    logits = predict_logits(image, configuration.patch_size, configuration.classes, infer, progress)
    return labels_from_logits(logits, placement, configuration)
