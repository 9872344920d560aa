"""Our resampling is that of Pillow, OpenCV, scikit-image and torch: random shapes and values."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from skimage.transform import resize

from operators.sam import resampling

Shape = tuple[int, int]

shapes = st.tuples(st.integers(1, 90), st.integers(1, 90))
factors = st.tuples(st.integers(1, 5), st.integers(1, 5))
seeds = st.integers(0, 1 << 16)
many = settings(max_examples=300)


def drawn_image(seed: int, shape: Shape) -> NDArray[np.uint8]:
    """Noise, few values (halves that must be rounded), or a plain block: what rounds differently."""
    generator = np.random.default_rng(seed)
    image = generator.integers(0, (256, 2, 4)[seed % 3], shape, dtype=np.uint8)
    image[: shape[0] // 2] += np.uint8(seed % 4 * 60 if seed % 3 else 0)
    return image


def by_opencv(image: NDArray[Any], shape: Shape, how: int) -> NDArray[Any]:
    return np.asarray(cv2.resize(image, (shape[1], shape[0]), interpolation=how)).reshape(shape)


@many
@given(old=shapes, new=shapes, seed=seeds)
def test_the_mean_of_what_a_pixel_covers(old: Shape, new: Shape, seed: int) -> None:
    image = drawn_image(seed, old)
    np.testing.assert_array_equal(resampling.area(image, new), by_opencv(image, new, cv2.INTER_AREA))


@many
@given(new=shapes, factor=factors, seed=seeds)
def test_the_mean_of_whole_pixels(new: Shape, factor: Shape, seed: int) -> None:
    image = drawn_image(seed, (new[0] * factor[0], new[1] * factor[1]))
    np.testing.assert_array_equal(resampling.area(image, new), by_opencv(image, new, cv2.INTER_AREA))


@settings(max_examples=60)
@given(old=st.tuples(st.integers(200, 800), st.integers(200, 800)), seed=seeds)
def test_the_mean_as_a_slice_is_brought_to_256(old: Shape, seed: int) -> None:
    image = drawn_image(seed, old)
    scale = 256 / max(old)
    new = int(old[0] * scale + 0.5), int(old[1] * scale + 0.5)
    three = np.repeat(image[..., None], 3, axis=-1)
    expected = cv2.resize(three, (new[1], new[0]), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(np.repeat(resampling.area(image, new)[..., None], 3, axis=-1), expected)


@many
@given(old=shapes, new=shapes, seed=seeds)
def test_the_nearest_pixel(old: Shape, new: Shape, seed: int) -> None:
    image = np.random.default_rng(seed).normal(size=old).astype(np.float32)
    np.testing.assert_array_equal(resampling.nearest(image, new), by_opencv(image, new, cv2.INTER_NEAREST))


@many
@given(old=shapes, new=shapes, seed=seeds, cubic=st.booleans())
def test_pillow(old: Shape, new: Shape, seed: int, cubic: bool) -> None:
    image = drawn_image(seed, old)
    ours, how = (
        (resampling.pillow_bicubic, Image.Resampling.BICUBIC)
        if cubic
        else (resampling.pillow_bilinear, Image.Resampling.BILINEAR)
    )
    expected = np.asarray(Image.fromarray(image).convert("RGB").resize((new[1], new[0]), how))
    np.testing.assert_array_equal(np.repeat(ours(image, new)[..., None], 3, axis=-1), expected)


def by_scikit_image(image: NDArray[np.uint8], shape: Shape) -> NDArray[np.uint8]:
    three = np.repeat(image[..., None], 3, axis=-1)
    return np.asarray(resize(three, shape, order=3, preserve_range=True, anti_aliasing=True).astype(np.uint8))


@many
@given(old=shapes, new=shapes, seed=seeds)
def test_scikit_image_and_the_cut_to_whole_numbers(old: Shape, new: Shape, seed: int) -> None:
    image = drawn_image(seed, old)
    np.testing.assert_array_equal(resampling.smoothed_cubic(image, new), by_scikit_image(image, new))


@many
@given(old=shapes, new=shapes, value=st.integers(0, 255), edge=st.integers(0, 90))
def test_scikit_image_where_all_values_are_whole(old: Shape, new: Shape, value: int, edge: int) -> None:
    image = np.full(old, value, np.uint8)
    image[edge:] = 255
    np.testing.assert_array_equal(resampling.smoothed_cubic(image, new), by_scikit_image(image, new))


# torch repeats the first row where the new image is one column wide; no network's is
@many
@given(old=shapes, new=st.tuples(st.integers(1, 90), st.integers(2, 90)), seed=seeds)
def test_torch_with_antialiasing(old: Shape, new: Shape, seed: int) -> None:
    image = np.random.default_rng(seed).random(old).astype(np.float32)
    three = torch.from_numpy(image).expand(1, 3, *old).contiguous()
    expected = torch.nn.functional.interpolate(three, new, mode="bilinear", align_corners=False, antialias=True)
    np.testing.assert_allclose(resampling.antialiased_bilinear(image, new), expected[0, 0].numpy(), rtol=0, atol=2e-6)


@many
@given(old=shapes, new=shapes, seed=seeds)
def test_torch_without(old: Shape, new: Shape, seed: int) -> None:
    logits = np.random.default_rng(seed).normal(size=old).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(logits)[None, None], new, mode="bilinear", align_corners=False
    )
    down, across = (resampling.bilinear_weights(*pair) for pair in zip(old, new, strict=True))
    np.testing.assert_allclose(down @ logits @ across.T, expected[0, 0].numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("old", "new"), [(512, 1024), (1024, 400), (256, 1024), (1000, 1024)])
def test_torch_at_the_size_of_images(old: int, new: int) -> None:
    image = np.random.default_rng(1).random((old, old)).astype(np.float32)
    tensor = torch.from_numpy(image)[None, None]
    plain = torch.nn.functional.interpolate(tensor, (new, new), mode="bilinear", align_corners=False)
    weights = resampling.bilinear_weights(old, new)
    np.testing.assert_allclose(weights @ image @ weights.T, plain[0, 0].numpy(), rtol=0, atol=1e-6)
    smooth = torch.nn.functional.interpolate(tensor, (new, new), mode="bilinear", align_corners=False, antialias=True)
    found = resampling.antialiased_bilinear(image, (new, new))
    np.testing.assert_allclose(found, smooth[0, 0].numpy(), rtol=0, atol=5e-6)
