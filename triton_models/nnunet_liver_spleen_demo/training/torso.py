"""Deformed copies of one labelled torso CT: the anatomical half of the training data.

Every array is indexed (z, y, x) in the patient frame of DICOM: z rises towards the head, y towards the
back and x towards the patient's left, as SimpleITK lays out an axial CT series. Images are Hounsfield
units in float32, label maps are uint8 and hold the organ numbers of TotalSegmentator.
"""

import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK
from numpy.typing import NDArray
from scipy import ndimage

Image = NDArray[np.float32]
Labels = NDArray[np.uint8]
Points = NDArray[np.float64]

SPACING_MM = (3.0, 3.0, 3.0)
AIR_HU = -1024.0
LIVER, SPLEEN = 1, 2
SOURCE_SPLEEN, SOURCE_LIVER = 1, 5
MEMBER_FOLDER = "tests/reference_files"
IMAGE_NAME = "example_ct.nii.gz"
LABEL_NAME = "example_seg_fast_force_split.nii.gz"

# Mean Hounsfield units an organ may take over all contrast phases: (source labels, lowest, highest).
ORGAN_RANGES: tuple[tuple[tuple[int, ...], float, float], ...] = (
    ((SOURCE_LIVER,), 35.0, 135.0),
    ((SOURCE_SPLEEN,), 32.0, 150.0),
    ((2, 3), 25.0, 220.0),
    ((4,), -5.0, 30.0),
    ((6,), -20.0, 110.0),
    ((7, 8, 9), 20.0, 130.0),
    ((18, 19, 20), -10.0, 140.0),
    ((51, 52, 61, 65, 66), 35.0, 300.0),
    ((62, 63, 64), 30.0, 200.0),
    (tuple(range(80, 90)), 35.0, 75.0),
)
NOISE_HU = (2.0, 32.0)
SLAB_PLANES = (12, 40)


@dataclass(frozen=True)
class Torso:
    """One labelled CT: ``image`` in Hounsfield units and ``labels``, both (z, y, x) at 3 mm."""

    image: Image
    labels: Labels


def read_torso(sdist: Path, work: Path) -> Torso:
    """Take the example CT and its 62 organs out of a TotalSegmentator source archive (``.tar.gz``)."""
    arrays = []
    with tarfile.open(sdist) as archive:
        root = archive.getnames()[0].split("/")[0]
        for name in (IMAGE_NAME, LABEL_NAME):
            member = archive.extractfile(f"{root}/{MEMBER_FOLDER}/{name}")
            if member is None:
                raise FileNotFoundError(name)
            target = work / name
            target.write_bytes(member.read())
            oriented = SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(target)), "LPS")
            arrays.append(SimpleITK.GetArrayFromImage(oriented))
    return Torso(arrays[0].astype(np.float32), arrays[1].astype(np.uint8))


def make_copy(torso: Torso, generator: np.random.Generator) -> tuple[Image, Labels]:
    """One training case: the torso reshaped, recoloured, degraded and perhaps cut to a slab.

    The label map that comes back holds 0 background, 1 liver, 2 spleen.
    """
    image, source = reshape(torso, generator)
    image = recolour(image, source, generator)
    if generator.random() < 0.35:
        image = add_arms(image, generator)
    if generator.random() < 0.5:
        image = add_table(image, generator)
    image = degrade(image, generator)
    labels = np.zeros(source.shape, np.uint8)
    labels[source == SOURCE_LIVER] = LIVER
    labels[source == SOURCE_SPLEEN] = SPLEEN
    if generator.random() < 0.7:
        return cut_slab(image, labels, generator)
    return image, labels


def reshape(torso: Torso, generator: np.random.Generator) -> tuple[Image, Labels]:
    """Affine and elastic deformation, with liver and spleen swollen or shrunk about their centres."""
    shape = np.array(torso.image.shape)
    scale = generator.uniform(0.8, 1.3) * generator.uniform(0.9, 1.1, 3)
    margin = generator.integers(0, 70 if generator.random() < 0.4 else 20, 2)
    target = np.round(shape * np.maximum(scale, 0.85)).astype(int)
    target[1:] += margin
    grid = np.stack(np.meshgrid(*[np.arange(n, dtype=np.float32) for n in target], indexing="ij"))
    centred = grid - ((target - 1) / 2)[:, None, None, None]
    matrix = rotation(generator) / scale[None, :]
    points = np.tensordot(matrix.astype(np.float32), centred, axes=1)
    off_centre = (generator.uniform(-4, 4, 3) + (0, *generator.uniform(-0.3, 0.3, 2) * margin)).astype(np.float32)
    points += ((shape - 1) / 2).astype(np.float32)[:, None, None, None] + off_centre[:, None, None, None]
    points += elastic(target, generator)
    points += swelling(torso.labels, points, generator)
    image = ndimage.map_coordinates(torso.image, points, order=1, cval=AIR_HU)
    labels = ndimage.map_coordinates(torso.labels, points, order=0, cval=0)
    return image.astype(np.float32), labels.astype(np.uint8)


def rotation(generator: np.random.Generator) -> NDArray[np.float64]:
    """A random 3x3 rotation: up to 14 degrees about z, 7 about the other two axes."""
    about_z, about_y, about_x = np.deg2rad(generator.uniform(-1, 1, 3) * (14, 7, 7))
    matrix = np.eye(3)
    for angle, (i, j) in ((about_z, (1, 2)), (about_y, (0, 2)), (about_x, (0, 1))):
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    return matrix


def elastic(shape: NDArray[np.int_], generator: np.random.Generator) -> Image:
    """A smooth random displacement field (3, z, y, x) in voxels: one coarse and one finer wave."""
    field = np.zeros((3, *shape), np.float32)
    for knots, strength in ((24, generator.uniform(1, 6)), (10, generator.uniform(0.3, 1.8))):
        coarse = np.maximum(shape // knots, 2) + 1
        for axis in range(3):
            nodes = generator.normal(0, strength, coarse).astype(np.float32)
            field[axis] += upsample(nodes, shape)
    return field


def upsample(nodes: Image, shape: NDArray[np.int_]) -> Image:
    """Spread a coarse grid over ``shape`` with cubic interpolation along each axis in turn."""
    result = nodes
    for axis, size in enumerate(shape):
        result = stretch(result, axis, int(size))
    return result


def stretch(array: Image, axis: int, size: int) -> Image:
    """Interpolate ``array`` to ``size`` points along ``axis``, both ends kept, as one matrix product."""
    count = array.shape[axis]
    places = np.stack(np.meshgrid(np.linspace(0, count - 1, size), np.arange(count), indexing="ij"))
    weights = ndimage.map_coordinates(np.eye(count), places, order=3, mode="nearest").astype(np.float32)
    moved = np.moveaxis(np.tensordot(weights, array, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(moved, np.float32)


def swelling(source: Labels, points: Points, generator: np.random.Generator) -> Points:
    """Displacement (3, z, y, x) in voxels that enlarges or shrinks liver and spleen about their centres."""
    field = np.zeros_like(points)
    for organ, reach, most in ((SOURCE_LIVER, 24.0, 0.22), (SOURCE_SPLEEN, 12.0, 0.4)):
        centre = np.array(ndimage.center_of_mass(source == organ), np.float32)
        offset = points - centre[:, None, None, None]
        weight = np.exp(-np.square(offset).sum(axis=0) / (2 * reach**2))
        field -= np.float32(generator.uniform(-0.15, most)) * offset * weight
    return field


def recolour(image: Image, source: Labels, generator: np.random.Generator) -> Image:
    """Give each organ a new mean and contrast, as another patient in another contrast phase would have."""
    shift = np.zeros(image.shape, np.float32)
    for organs, lowest, highest in ORGAN_RANGES:
        mask = np.isin(source, organs)
        if mask.any():
            mean = float(image[mask].mean())
            shift[mask] = generator.uniform(lowest, highest) - mean
    shift = ndimage.gaussian_filter(shift, generator.uniform(0.3, 0.9))
    soft_tissue = (source == 0) & (image > -150) & (image < 150)
    shift[soft_tissue] += generator.uniform(-15, 25)
    result = np.asarray((image + shift) * generator.uniform(0.96, 1.04), np.float32)
    bone = result > 150
    result[bone] = 150 + (result[bone] - 150) * np.float32(generator.uniform(0.6, 1.4))
    return result


def add_table(image: Image, generator: np.random.Generator) -> Image:
    """Lay two bent plates of a patient table somewhere behind the back."""
    result = image.copy()
    body = np.nonzero((image > -300).mean(axis=(0, 2)) > 0.02)[0]
    back = int(body[-1]) if body.size else image.shape[1] - 1
    column = np.arange(image.shape[2]) - image.shape[2] / 2
    bend = generator.uniform(-0.0015, 0.004) * column**2
    rows = np.arange(image.shape[1])[:, None]
    for gap in (generator.uniform(-2, 6), generator.uniform(8, 30)):
        top = back + gap - bend
        plate = (rows >= top) & (rows < top + generator.uniform(1, 2.5))
        result[:, plate] = np.where(result[:, plate] < -300, generator.uniform(-700, 300), result[:, plate])
    return result


def add_arms(image: Image, generator: np.random.Generator) -> Image:
    """Put an arm (fat, muscle, bone) beside the body on each side where there is air."""
    result = image.copy()
    body = np.nonzero((image > -300).any(axis=0))
    if body[0].size == 0:
        return result
    rows, columns = np.ogrid[: image.shape[1], : image.shape[2]]
    for edge, outwards in ((int(body[1].min()), -1), (int(body[1].max()), 1)):
        radius = generator.uniform(11, 19)
        centre_y = body[0].mean() + generator.uniform(-15, 15)
        centre_x = edge + outwards * (radius * generator.uniform(0.9, 1.2) + 1)
        distance = np.hypot(rows - centre_y, (columns - centre_x) * generator.uniform(0.85, 1.15)) / radius
        for limit, value in ((1.0, -100.0), (0.85, generator.uniform(40, 70)), (0.25, generator.uniform(300, 900))):
            ring = (distance < limit) & (image < -300)
            result[ring] = value
    return result


def degrade(image: Image, generator: np.random.Generator) -> Image:
    """Blur and noise of another scanner and reconstruction kernel; values end in -1024..3071 HU."""
    sigma = generator.uniform(0, 0.7, 3)
    blurred = ndimage.gaussian_filter(image, sigma)
    if generator.random() < 0.3:
        blurred = image + generator.uniform(0.3, 1.0) * (image - ndimage.gaussian_filter(image, 1.0))
    noise = generator.normal(0, 1, image.shape)
    correlated = ndimage.gaussian_filter(noise, generator.uniform(0, 0.9, 3))
    strength = generator.uniform(*NOISE_HU) / max(float(correlated.std()), 1e-6)
    return np.asarray(np.clip(blurred + strength * correlated, AIR_HU, 3071.0), np.float32)


def cut_slab(image: Image, labels: Labels, generator: np.random.Generator) -> tuple[Image, Labels]:
    """Keep 12 to 40 planes (36 to 120 mm) around a random plane of the liver."""
    planes = np.nonzero((labels == LIVER).any(axis=(1, 2)))[0]
    thin = generator.random() < 0.5
    count = int(generator.integers(SLAB_PLANES[0], 20 if thin else SLAB_PLANES[1] + 1))
    middle = int(generator.choice(planes)) if planes.size else image.shape[0] // 2
    first = int(np.clip(middle - count // 2, 0, max(image.shape[0] - count, 0)))
    return image[first : first + count], labels[first : first + count]
