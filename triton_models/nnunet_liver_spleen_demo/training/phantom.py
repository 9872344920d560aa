"""Geometric CT phantoms: ellipsoids for liver and spleen in a soft-tissue cylinder.

They are a small share of the training data, they reach the model at many voxel spacings, and other
seeds of the same generator serve as held-out cases that anyone can make again.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torso import LIVER, SPLEEN, Image, Labels

Mask = NDArray[np.bool_]


class Scene:
    """Voxel centres of one phantom in millimetres about its middle, with the image being painted."""

    def __init__(self, shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> None:
        axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)]
        self.z, self.y, self.x = np.meshgrid(*axes, indexing="ij")
        self.image = np.full(shape, -1000.0, np.float32)
        self.labels = np.zeros(shape, np.uint8)

    def ellipsoid(self, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> Mask:
        """Mask of the ellipsoid with ``centre`` and ``radii`` (z, y, x) in millimetres."""
        distance = (
            ((self.z - centre[0]) / radii[0]) ** 2
            + ((self.y - centre[1]) / radii[1]) ** 2
            + ((self.x - centre[2]) / radii[2]) ** 2
        )
        return np.asarray(distance < 1)

    def paint(self, mask: Mask, hounsfield: float, label: int = 0) -> None:
        """Fill ``mask`` with one value and one label."""
        self.image[mask] = hounsfield
        self.labels[mask] = label


def make_phantom(generator: np.random.Generator) -> tuple[Image, Labels, tuple[float, float, float]]:
    """Image (HU), labels (0, 1 liver, 2 spleen), both (z, y, x), and the spacing (z, y, x) in mm."""
    in_plane = float(generator.uniform(1.5, 2.6))
    spacing = (float(generator.uniform(2.0, 5.0)), in_plane, in_plane)
    extent = (generator.uniform(50, 140), generator.uniform(230, 300), generator.uniform(280, 370))
    shape = tuple(round(length / step) for length, step in zip(extent, spacing, strict=True))
    scene = Scene((shape[0], shape[1], shape[2]), spacing)
    size = float(generator.uniform(0.85, 1.15))
    draw_organs(scene, size, generator)
    blurred = ndimage.gaussian_filter(scene.image, 0.6)
    noisy = blurred + generator.normal(0, generator.uniform(5, 25), shape)
    return noisy.astype(np.float32), scene.labels, spacing


def draw_organs(scene: Scene, size: float, generator: np.random.Generator) -> None:
    """Paint skin to spine, outermost first; ``size`` scales all lengths, x rises to the patient's left."""

    def about(value: float, spread: float) -> float:
        return float(generator.uniform(value - spread, value + spread)) * size

    scene.paint(scene.ellipsoid((0, 0, 0), (500, 105 * size, 135 * size)), generator.normal(-100, 6))
    muscle = scene.ellipsoid((0, 0, 0), (500, 94 * size, 124 * size))
    scene.paint(muscle, generator.normal(50, 6))
    fat = scene.ellipsoid((0, -8 * size, 0), (500, 78 * size, 110 * size))
    scene.paint(fat, generator.normal(-90, 8))
    liver = scene.ellipsoid((about(10, 20), about(-10, 10), about(-52, 8)), (about(75, 10), about(62, 8), about(52, 8)))
    lobe = scene.ellipsoid((about(15, 15), about(-45, 6), about(0, 12)), (about(45, 8), about(24, 5), about(48, 6)))
    spleen = scene.ellipsoid((about(10, 20), about(34, 10), about(78, 6)), (about(46, 10), about(34, 7), about(20, 6)))
    stomach = scene.ellipsoid((about(10, 15), about(-22, 8), about(58, 8)), (about(40, 10), about(28, 6), about(30, 6)))
    scene.paint(stomach & fat, generator.uniform(-10, 80))
    scene.paint((liver | lobe) & fat, generator.uniform(45, 130), LIVER)
    scene.paint(spleen & fat & ~liver, generator.uniform(40, 150), SPLEEN)
    for side in (-1, 1):
        kidney = scene.ellipsoid(
            (about(-45, 12), about(48, 6), side * about(50, 5)), (about(50, 6), 22 * size, 20 * size)
        )
        scene.paint(kidney & fat & (scene.labels == 0), generator.uniform(30, 200))
    scene.paint(scene.ellipsoid((0, 42 * size, 8 * size), (500, 11, 11)), generator.uniform(40, 280))
    scene.paint(scene.ellipsoid((0, 68 * size, 0), (500, 20, 19)), generator.uniform(180, 450))
    scene.paint(scene.ellipsoid((0, 92 * size, 0), (500, 8, 6)), generator.uniform(180, 450))
    for place in ((scene.image > 150) & (scene.labels > 0),):
        scene.labels[place] = 0
