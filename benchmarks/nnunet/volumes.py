"""Phantoms of a CT, and the cheap function that answers where a forward pass is replaced."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.nnunet.cases import Triple

AIR_HU, BODY_HU = -1024, 0
CLIP_HU = (-800.0, 1000.0)
"""As the plans of the benchmark's networks clip."""
MEAN_HU, DEVIATION_HU = 30.0, 350.0
"""As they normalise."""
_NOISE_HU = 15
_SHARPNESS = 10.0
_NOWHERE_HU = -3000.0
_DENSITIES_HU = (-420.0, 170.0, 410.0, 980.0)
"""Of organs: far apart as ratios, since a network that normalises by what it sees knows nothing else."""
_ORGANS = 24


def organ_densities(classes: int) -> dict[int, float]:
    """Return the Hounsfield units of the labels that are in a phantom.

    Of many classes most are not in one image, as in a CT of the abdomen for a network that knows the whole body; and a
    short training can't tell more of them apart.
    """
    count = min(classes - 1, len(_DENSITIES_HU))
    chosen = (_DENSITIES_HU[index] for index in np.linspace(0, len(_DENSITIES_HU) - 1, count).round().astype(int))
    labels = np.linspace(1, classes - 1, count).round().astype(int)
    return dict(zip(labels.tolist(), chosen, strict=True))


def phantom(shape: Triple, classes: int, seed: int) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Return a CT of a body of ellipsoids (Hounsfield units) and its labels, axes z, y, x.

    Parameters
    ----------
    shape
        Voxels; the body's size is a share of it.
    classes
        Organs and the background.
    seed
        Of organs and noise.
    """
    generator = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, size, dtype=np.float32) for size in shape), indexing="ij", sparse=True)
    body = np.broadcast_to((y / 0.75) ** 2 + (x / 0.9) ** 2 < 1, shape)
    image = np.where(body, np.float32(BODY_HU), np.float32(AIR_HU))
    labels = np.zeros(shape, np.uint8)
    densities = organ_densities(classes)
    for label in generator.choice(list(densities), _ORGANS):
        centre = generator.uniform((-0.8, -0.45, -0.6), (0.8, 0.45, 0.6))
        radii = generator.uniform((0.15, 0.1, 0.1), (0.35, 0.22, 0.24))
        distance = sum(
            ((axis - middle) / radius) ** 2 for axis, middle, radius in zip((z, y, x), centre, radii, strict=True)
        )
        organ = body & (distance < 1)
        labels[organ] = label
        image[organ] = densities[label]
    image += generator.standard_normal(shape, np.float32) * _NOISE_HU
    return np.clip(image, AIR_HU, 3071).astype(np.int16), labels


def cheap_answer(tiles: NDArray[np.float32], classes: int) -> NDArray[np.float32]:
    """Return logits (tile, class, z, y, x) of normalised `tiles` (tile, 1, z, y, x), by how dense each voxel is.

    Each class is the less likely the farther a smoothed voxel is from its Hounsfield units: organs of one class, with
    edges, as a trained network finds them. Classes that are in no phantom are never near.
    """
    densities = {0: float(BODY_HU), **organ_densities(classes)}
    logits = np.empty((len(tiles), classes, *tiles.shape[2:]), np.float32)
    for tile, answer in zip(tiles[:, 0], logits, strict=True):
        smooth: NDArray[Any] = ndimage.uniform_filter(tile, 3)
        for label, plane in enumerate(answer):
            density = densities.get(label, _NOWHERE_HU - label)
            np.subtract(smooth, np.float32((density - MEAN_HU) / DEVIATION_HU), out=plane)
            np.abs(plane, out=plane)
            plane *= np.float32(-_SHARPNESS)
    return logits
