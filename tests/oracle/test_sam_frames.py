"""What each variant's own code makes of an image, a prompt and logits: random shapes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from segment_anything.utils.transforms import ResizeLongestSide
from torchvision.transforms import Normalize, Resize, ToTensor

from operators.sam.contract import Contract, ImageContract
from operators.sam.frames import framed_prompt, network_image, on_image
from operators.sam.prompts import Box, Point, SlicePrompt
from tests.oracle.sam_reference import SIDE, drawn_slice, sam_contract, tiny_sam

Shape = tuple[int, int]

sides = st.integers(32, 400)
shapes = st.tuples(sides, sides)
seeds = st.integers(0, 1 << 16)
some = settings(max_examples=40)
UNIT_MEAN, UNIT_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SAM = tiny_sam()


def image_contract(**changes: Any) -> ImageContract:
    return replace(sam_contract().image, **changes)


def three(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(image[..., None], 3, axis=-1)


@some
@given(shape=shapes, seed=seeds)
def test_the_image_for_sam(shape: Shape, seed: int) -> None:
    image = drawn_slice(*shape, seed=seed)
    resized = ResizeLongestSide(SIDE).apply_image(three(image))
    expected = SAM.preprocess(torch.as_tensor(resized).permute(2, 0, 1)[None])
    np.testing.assert_array_equal(network_image(image, image_contract()), expected.numpy())


@some
@given(shape=shapes, seed=seeds)
def test_the_image_for_sam_2(shape: Shape, seed: int) -> None:
    image = drawn_slice(*shape, seed=seed)
    contract = image_contract(
        fit="square",
        resampling="antialiased-bilinear",
        order="intensity-first",
        intensity="unit",
        mean=UNIT_MEAN,
        deviation=UNIT_DEVIATION,
    )
    expected = Normalize(UNIT_MEAN, UNIT_DEVIATION)(Resize((SIDE, SIDE))(ToTensor()(three(image))))
    np.testing.assert_allclose(network_image(image, contract)[0], expected.numpy(), rtol=0, atol=1e-5)


@some
@given(shape=shapes, seed=seeds)
def test_the_image_for_medsam_2(shape: Shape, seed: int) -> None:
    image = drawn_slice(*shape, seed=seed)
    contract = image_contract(
        fit="square", resampling="pillow-bicubic", intensity="unit", mean=UNIT_MEAN, deviation=UNIT_DEVIATION
    )
    resized = np.asarray(Image.fromarray(image).convert("RGB").resize((SIDE, SIDE))).transpose(2, 0, 1)
    expected = (resized / 255.0 - np.reshape(UNIT_MEAN, (3, 1, 1))) / np.reshape(UNIT_DEVIATION, (3, 1, 1))
    np.testing.assert_allclose(network_image(image, contract)[0], expected, rtol=0, atol=1e-6)


@some
@given(shape=shapes, seed=seeds)
def test_the_image_for_sam_med2d(shape: Shape, seed: int) -> None:
    image = drawn_slice(*shape, seed=seed)
    contract = image_contract(fit="square", resampling="nearest", order="intensity-first")
    mean, deviation = (np.array(values, np.float32) for values in (contract.mean, contract.deviation))
    normalised = (three(image) - mean) / deviation
    expected = cv2.resize(normalised, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST).transpose(2, 0, 1)
    np.testing.assert_array_equal(network_image(image, contract)[0], expected)


@some
@given(shape=shapes, seed=seeds)
def test_a_prompt_for_sam(shape: Shape, seed: int) -> None:
    generator = np.random.default_rng(seed)
    rows, columns = shape
    x, y = np.sort(generator.uniform(0, columns, 2)), np.sort(generator.uniform(0, rows, 2))
    points = generator.uniform(0, 1, (3, 2)) * (columns, rows)
    prompt = SlicePrompt(Box(x[0], y[0], x[1], y[1]), tuple(Point(float(x), float(y)) for x, y in points))
    transform = ResizeLongestSide(SIDE)
    expected = [transform.apply_coords(points, shape), transform.apply_boxes(np.array([x[0], y[0], x[1], y[1]]), shape)]
    found = framed_prompt(prompt, rows, columns, sam_contract())
    np.testing.assert_array_equal(
        found.coords, np.concatenate([one.reshape(-1, 2) for one in expected]).astype(np.float32)
    )
    assert found.labels.tolist() == [1, 1, 1, 2, 3]


def logits_of(side: int, seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 4, (3, side, side)).astype(np.float32)


def through(logits: NDArray[np.float32], shape: Shape, contract: Contract) -> NDArray[np.float32]:
    return on_image(logits, shape[0], shape[1], contract)


def interpolated(values: torch.Tensor, shape: Shape) -> NDArray[np.float32]:
    found = torch.nn.functional.interpolate(values[None], shape, mode="bilinear", align_corners=False)
    return np.asarray(found[0].numpy())


@some
@given(shape=shapes, seed=seeds)
def test_logits_of_sam(shape: Shape, seed: int) -> None:
    contract = sam_contract()
    logits = logits_of(contract.logits.size, seed)
    expected = SAM.postprocess_masks(torch.from_numpy(logits)[None], contract.image.shown(*shape), shape)[0]
    np.testing.assert_allclose(through(logits, shape, contract), expected.numpy(), rtol=0, atol=1e-5)


@some
@given(shape=shapes, seed=seeds)
def test_logits_of_sam_med2d(shape: Shape, seed: int) -> None:
    contract = sam_contract()
    contract = replace(contract, image=replace(contract.image, fit="square"))
    logits = logits_of(contract.logits.size, seed)
    expected = interpolated(torch.from_numpy(interpolated(torch.from_numpy(logits), (SIDE, SIDE))), shape)
    np.testing.assert_allclose(through(logits, shape, contract), expected, rtol=0, atol=1e-5)


@some
@given(shape=shapes, seed=seeds, sigmoid=st.booleans())
def test_logits_straight_to_the_image(shape: Shape, seed: int, sigmoid: bool) -> None:
    contract = sam_contract()
    contract = replace(contract, logits=replace(contract.logits, path="direct", sigmoid=sigmoid))
    logits = logits_of(contract.logits.size, seed)
    values = torch.from_numpy(logits)
    expected = interpolated(torch.sigmoid(values) if sigmoid else values, shape)
    np.testing.assert_allclose(through(logits, shape, contract), expected, rtol=0, atol=5e-6)
