"""Changing an image's grid, with the numbers of the library that each variant of the family was trained with.

A network that learnt from one library's resampling sees other edges when another one does it, so each is repeated
here to the last bit that matters, without that library: Pillow is asked itself, OpenCV's and torch's arithmetic is
done again, and what scikit-image asks of SciPy is asked of it where it matters.

All functions take an image (rows, columns) and the rows and columns it shall have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from operators.sam.contract import Resampling

Shape = tuple[int, int]
Resize = Callable[[NDArray[Any], Shape], NDArray[Any]]

_CHANNELS = 3
_BESIDE = 1e-8
"""Two ways of reckoning a spline differ by less."""
_NEGLIGIBLE = 1e-3
"""Of a pixel: OpenCV leaves a cell's smaller overlaps out."""
_FIXED_POINT = 1 << 11
"""OpenCV's weights of 8-bit interpolation are whole numbers of this part."""
_CACHED = 64


# --- Pillow ---


def pillow_bilinear(image: NDArray[np.uint8], shape: Shape) -> NDArray[np.uint8]:
    """Return Pillow's BILINEAR, whose triangle widens where the image shrinks."""
    return _pillow(image, shape, Image.Resampling.BILINEAR)


def pillow_bicubic(image: NDArray[np.uint8], shape: Shape) -> NDArray[np.uint8]:
    """Return Pillow's BICUBIC, which widens as well."""
    return _pillow(image, shape, Image.Resampling.BICUBIC)


def _pillow(image: NDArray[np.uint8], shape: Shape, how: Image.Resampling) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(image).resize((shape[1], shape[0]), how))


# --- OpenCV ---


def nearest(image: NDArray[Any], shape: Shape) -> NDArray[Any]:
    """Return OpenCV's INTER_NEAREST: the pixel that a pixel's upper left corner falls into. Any element type."""
    rows, columns = (_nearest_indices(old, new) for old, new in zip(image.shape, shape, strict=True))
    return image[np.ix_(rows, columns)]


@lru_cache(maxsize=_CACHED)
def _nearest_indices(old: int, new: int) -> NDArray[np.intp]:
    indices = np.floor(np.arange(new) * (1.0 / (new / old))).astype(np.intp)
    return np.asarray(np.minimum(indices, old - 1), np.intp)


def area(image: NDArray[np.uint8], shape: Shape) -> NDArray[np.uint8]:
    """Return OpenCV's INTER_AREA: the mean of what a pixel covers; where the image grows, bilinear of its own kind."""
    if image.shape == shape:
        return image.copy()
    down, across = (1.0 / (new / old) for old, new in zip(image.shape, shape, strict=True))
    if down < 1 or across < 1:
        return _area_growing(image, shape, (down, across))
    if image.shape[0] % shape[0] == 0 and image.shape[1] % shape[1] == 0:
        return _area_of_blocks(image, shape)
    return _area_shrinking(image, shape)


def _area_of_blocks(image: NDArray[np.uint8], shape: Shape) -> NDArray[np.uint8]:
    """Pixels that cover whole pixels. OpenCV rounds the mean of two by two up at the half, all others to even."""
    height, width = image.shape[0] // shape[0], image.shape[1] // shape[1]
    sums = image.reshape(shape[0], height, shape[1], width).sum(axis=(1, 3), dtype=np.int32)
    if (height, width) == (2, 2):
        return np.asarray((sums + 2) >> 2, np.uint8)
    return _to_bytes(sums.astype(np.float32) * np.float32(1.0 / (height * width)))


def _area_shrinking(image: NDArray[np.uint8], shape: Shape) -> NDArray[np.uint8]:
    """Single precision, and one pixel after the other in OpenCV's order: halves then round as they do there."""
    (down, down_weights), (across, across_weights) = (
        _covered(old, new) for old, new in zip(image.shape, shape, strict=True)
    )
    values = image.astype(np.float32)
    lines = np.zeros((image.shape[0], shape[1]), np.float32)
    for index, weight in zip(across, across_weights, strict=True):
        lines += values[:, index] * weight
    sums = np.zeros(shape, np.float32)
    for index, weight in zip(down, down_weights, strict=True):
        sums += lines[index] * weight[:, None]
    return _to_bytes(sums)


@lru_cache(maxsize=_CACHED)
def _covered(old: int, new: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """The pixels that each new one covers and their shares, (cover, `new`); a share of 0 fills up."""
    scale = 1.0 / (new / old)
    start = np.arange(new) * scale
    end = start + scale
    width = np.minimum(scale, old - start)
    last = np.minimum(np.floor(end), old - 1).astype(np.intp)
    first = np.minimum(np.ceil(start).astype(np.intp), last)
    before = np.where(first - start > _NEGLIGIBLE, (first - start) / width, 0.0)
    after = np.where(end - last > _NEGLIGIBLE, np.minimum(np.minimum(end - last, 1.0), width) / width, 0.0)
    indices, weights = [np.maximum(first - 1, 0)], [before]
    for step in range(int((last - first).max())):
        indices.append(np.minimum(first + step, old - 1))
        weights.append(np.where(first + step < last, 1.0 / width, 0.0))
    return np.stack([*indices, last]), np.stack([*weights, after]).astype(np.float32)


def _area_growing(image: NDArray[np.uint8], shape: Shape, scales: tuple[float, float]) -> NDArray[np.uint8]:
    """OpenCV's bilinear interpolation in whole numbers, with the positions that INTER_AREA asks for."""
    (top, bottom, upper, lower), (left, right, near, far) = (
        _growing_weights(old, new, scale) for old, new, scale in zip(image.shape, shape, scales, strict=True)
    )
    values = image.astype(np.int32)
    lines = values[:, left] * near + values[:, right] * far
    first, second = (lines[top] >> 4) * upper[:, None], (lines[bottom] >> 4) * lower[:, None]
    return np.asarray(((first >> 16) + (second >> 16) + 2) >> 2, np.uint8)


@lru_cache(maxsize=_CACHED)
def _growing_weights(old: int, new: int, scale: float) -> tuple[NDArray[Any], ...]:
    """Both neighbours of each new pixel, and their weights in parts of `_FIXED_POINT`."""
    place = np.arange(new)
    first = np.floor(place * scale).astype(np.intp)
    share = ((place + 1) - (first + 1) * (new / old)).astype(np.float32)
    share = np.where(share <= 0, np.float32(0), share - np.floor(share))
    share = np.where(first >= old - 1, np.float32(0), share)
    first = np.minimum(first, old - 1)
    second = np.minimum(first + 1, old - 1)
    near, far = (np.rint(part * _FIXED_POINT).astype(np.int32) for part in (np.float32(1) - share, share))
    return first, second, near, far


def _to_bytes(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Rounded to the nearest, halves to even, and held within 8 bits."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


# --- scikit-image ---


def smoothed_cubic(image: NDArray[np.uint8], shape: Shape) -> NDArray[np.uint8]:
    """Return scikit-image's ``resize(order=3, anti_aliasing=True, preserve_range=True)``, cut to whole numbers.

    scikit-image takes seconds for it, because it goes over three equal channels as over a volume. Two small matrices
    give the same but for the last bits, and those matter only to a value beside a whole number, which the cut takes to
    either side of it. Such values alone are computed as they are there.

    Returns
    -------
    (rows, columns, 3). The channels are equal but for such values.
    """
    if image.shape == shape:
        return np.repeat(image[..., None], _CHANNELS, axis=-1)
    sigmas = [max(0.0, (old / new - 1) / 2) for old, new in zip(image.shape, shape, strict=True)]
    smooth = ndimage.gaussian_filter(image.astype(np.float64), sigmas, mode="mirror")
    down, across = (_spline_weights(old, new) for old, new in zip(image.shape, shape, strict=True))
    values = np.repeat((down @ smooth @ across.T)[..., None], _CHANNELS, axis=-1)
    whole = np.rint(values)
    is_close = (np.abs(values - whole) < _BESIDE) & (whole > 0)  # cut, both sides of 0 are 0
    if is_close.any():
        values[is_close] = _as_scikit_image(smooth, shape, np.nonzero(is_close))
    return np.asarray(np.clip(values, image.min(), image.max()), np.uint8)


def _as_scikit_image(
    smooth: NDArray[np.float64], shape: Shape, places: tuple[NDArray[np.intp], ...]
) -> NDArray[np.float64]:
    """Some pixels, by row, column and channel, with the sums in the order that scikit-image's have."""
    channels = np.repeat(smooth[..., None], _CHANNELS, axis=-1)
    coefficients = ndimage.spline_filter(channels, 3, output=np.float64, mode="mirror")
    scales = np.divide(channels.shape, (*shape, _CHANNELS))
    positions = [(place + 0.5) * scale - 0.5 for place, scale in zip(places, scales, strict=True)]
    found = ndimage.map_coordinates(coefficients, positions, order=3, mode="mirror", prefilter=False)
    return np.asarray(found, np.float64)


@lru_cache(maxsize=_CACHED)
def _spline_weights(old: int, new: int) -> NDArray[np.float64]:
    """The matrix, `new` x `old`, of a cubic spline along one axis that is mirrored at its ends."""
    weights = ndimage.zoom(np.eye(old), (new / old, 1), order=3, mode="mirror", grid_mode=True)
    return np.asarray(weights, np.float64)


# --- torch ---


def antialiased_bilinear(image: NDArray[Any], shape: Shape) -> NDArray[np.float32]:
    """Return torch's ``interpolate(mode="bilinear", antialias=True)`` in single precision."""
    down, across = (antialiased_weights(old, new) for old, new in zip(image.shape, shape, strict=True))
    return down @ (image.astype(np.float32) @ across.T)


@lru_cache(maxsize=_CACHED)
def antialiased_weights(old: int, new: int) -> NDArray[np.float32]:
    """The matrix, `new` x `old`, of a triangle that is as wide as two new pixels, or two old ones where wider."""
    scale = np.float32(old) / np.float32(new)
    widened = max(scale, np.float32(1))
    centre = scale * (np.arange(new, dtype=np.float32) + np.float32(0.5))
    first = np.maximum((centre - widened + np.float32(0.5)).astype(np.intp), 0)
    last = np.minimum((centre + widened + np.float32(0.5)).astype(np.intp), old)
    pixel = np.arange(old)
    distance = np.abs((pixel - centre[:, None] + np.float32(0.5)) / widened)
    inside = (pixel >= first[:, None]) & (pixel < last[:, None])
    weights = np.where(inside, np.maximum(1 - distance, 0), 0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


@lru_cache(maxsize=_CACHED)
def bilinear_weights(old: int, new: int) -> NDArray[np.float32]:
    """Return the matrix, `new` x `old`, of torch's ``interpolate(mode="bilinear", align_corners=False)`` of one axis.

    Positions are reckoned as they are there, a scale of single precision and one rounding after the multiplication and
    the addition: at a thousand pixels it shows in the fifth digit.
    """
    weights = np.zeros((new, old), np.float32)
    rows = np.arange(new)
    if old == new:
        weights[rows, rows] = 1
        return weights
    scale = np.float64(np.float32(old) / np.float32(new))
    place = np.maximum((scale * (rows + 0.5) - 0.5).astype(np.float32), 0)
    first = np.minimum(place.astype(np.intp), old - 1)
    share = np.clip(place - first.astype(np.float32), 0, 1).astype(np.float32)
    weights[rows, first] = 1 - share
    weights[rows, np.minimum(first + 1, old - 1)] += share
    return weights


RESIZES: Mapping[Resampling, Resize] = MappingProxyType(
    {
        "pillow-bilinear": pillow_bilinear,
        "pillow-bicubic": pillow_bicubic,
        "area": area,
        "smoothed-cubic": smoothed_cubic,
        "antialiased-bilinear": antialiased_bilinear,
        "nearest": nearest,
    }
)
"""What each word of the contract means."""
ON_BYTES: frozenset[Resampling] = frozenset({"pillow-bilinear", "pillow-bicubic", "area", "smoothed-cubic"})
"""Those that work on 8 bits and give 8 bits, so that intensities can only be changed afterwards."""
