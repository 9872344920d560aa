from dataclasses import replace

import numpy as np
import pytest

from operators.errors import ModelPackageError, PromptRefused, SeriesRefused
from operators.sam.frames import framed_box, framed_prompt, network_image, on_image
from operators.sam.prompts import Box, Point, SlicePrompt
from tests.sam_fixture import SIDE, contract

BOX, POINTS = Box(10, 20, 40, 50), (Point(8, 12), Point(30, 4, is_foreground=False))


def test_the_image_lies_in_the_upper_left_and_zeros_beyond() -> None:
    said = contract(image={"mean": [0.1, 0.2, 0.3], "deviation": [0.5, 1, 2]}).image
    image = np.full((50, 100), 255, np.uint8)
    seen = network_image(image, said)
    assert seen.shape == (1, 3, SIDE, SIDE)
    assert seen.dtype == np.float32
    for channel, expected in zip(seen[0], (1.8, 0.8, 0.35), strict=True):
        np.testing.assert_allclose(channel[:32], expected, rtol=1e-6)
        assert (channel[32:] == 0).all()


def test_a_square_fit_stretches() -> None:
    seen = network_image(np.full((50, 100), 255, np.uint8), contract(image={"fit": "square"}).image)
    assert (seen == 1).all()


def test_the_range_is_that_of_the_resampled_image_and_padding_is_not_in_it() -> None:
    said = contract(image={"intensity": "range", "resampling": "area"}).image
    image = np.full((64, 128), 100, np.uint8)
    image[:, 64:] = 200
    image[0, 0] = 0  # one of four that become one
    seen = network_image(image, said)
    assert (seen[0, 0].min(), seen[0, 0].max()) == (0, 1)
    assert seen[0, 0, 5, 5] == pytest.approx((100 - 75) / (200 - 75))
    assert network_image(np.full((9, 9), 7, np.uint8), said).max() == 0


def test_intensities_can_not_come_before_a_resampling_of_bytes() -> None:
    with pytest.raises(ModelPackageError) as refusal:
        network_image(np.zeros((9, 9), np.uint8), contract(image={"order": "intensity-first"}).image)
    assert refusal.value.code == "contract-contradiction"


def test_a_strip_is_refused() -> None:
    with pytest.raises(SeriesRefused) as refusal:
        network_image(np.zeros((1, 1000), np.uint8), contract().image)
    assert refusal.value.code == "image-too-narrow"


def test_coordinates_follow_the_images_own_scales() -> None:
    found = framed_prompt(SlicePrompt(BOX, POINTS), 50, 101, contract())
    across, down = 64 / 101, 32 / 50
    expected = np.array([[8, 12], [30, 4], [10, 20], [40, 50]]) * (across, down)
    np.testing.assert_allclose(found.coords, expected, rtol=1e-6)
    assert found.labels.tolist() == [1, 0, 2, 3]
    squared = framed_prompt(SlicePrompt(BOX), 50, 101, contract(image={"fit": "square"}))
    np.testing.assert_allclose(squared.coords[1], [40 * 64 / 101, 50 * 64 / 50], rtol=1e-6)


def test_corners_are_cut_to_whole_numbers_by_one_scale_where_the_variant_does_it() -> None:
    floor = contract(prompts={"rounding": "floor"})
    assert framed_prompt(SlicePrompt(BOX), 50, 101, floor).coords.tolist() == [[6, 12], [25, 31]]
    assert framed_prompt(SlicePrompt(Box(-5, -1, 40, 50)), 50, 101, floor).coords[0].tolist() == [-3, 0]


@pytest.mark.parametrize(
    ("padding", "place", "box", "points", "labels"),
    [
        ("without-box", "last", True, True, [1, 0, 2, 3]),
        ("without-box", "last", True, False, [2, 3]),
        ("without-box", "last", False, True, [1, 0, -1]),
        ("always", "first", True, True, [2, 3, 1, 0, -1]),
        ("always", "first", False, True, [1, 0, -1]),
        ("never", "first", False, True, [1, 0]),
    ],
)
def test_order_and_padding(padding: str, place: str, box: bool, points: bool, labels: list[int]) -> None:
    prompt = SlicePrompt(BOX if box else None, POINTS if points else ())
    found = framed_prompt(prompt, 64, 64, contract(prompts={"padding": padding, "box": place}))
    assert found.labels.tolist() == labels
    assert (found.coords[found.labels == -1] == 0).all()


@pytest.mark.parametrize("padding", ["without-box", "always"])
def test_a_mask_alone_has_no_points(padding: str) -> None:
    prompt = SlicePrompt(logits=np.zeros((SIDE, SIDE), np.float32))
    found = framed_prompt(prompt, 64, 64, contract(prompts={"padding": padding}))
    assert (found.coords.shape, found.labels.shape) == ((0, 2), (0,))


def test_a_box_in_the_frame_stays_as_it_is() -> None:
    found = framed_box(np.array([1.0, 2, 3, 4]), contract(prompts={"padding": "always"}))
    assert found.coords.tolist() == [[1, 2], [3, 4], [0, 0]]
    assert found.labels.tolist() == [2, 3, -1]


@pytest.mark.parametrize(
    ("prompt", "code"),
    [
        (SlicePrompt(points=POINTS), "prompt-kind-unsupported"),
        (SlicePrompt(BOX, logits=np.zeros((9, 9), np.float32)), "prompt-mask-size"),
        (SlicePrompt(), "prompt-empty"),
        (SlicePrompt(Box(70, 0, 90, 9)), "prompt-outside"),
    ],
)
def test_what_the_model_can_not_be_shown_is_refused(prompt: SlicePrompt, code: str) -> None:
    with pytest.raises(PromptRefused) as refusal:
        framed_prompt(prompt, 64, 64, contract(prompts={"kinds": ["box", "mask"]}))
    assert refusal.value.code == code


def step(column: int) -> np.ndarray:
    """Logits that change their sign at a column."""
    return np.where(np.arange(SIDE)[None, None] < column, -1, 1).repeat(SIDE, axis=1).astype(np.float32)


@pytest.mark.parametrize("path", ["through-input", "cropped"])
def test_logits_over_the_padding_do_not_come_onto_the_image(path: str) -> None:
    said = contract(logits={"path": path})
    mask = on_image(step(16), 128, 64, said)[0]  # shown in 64 rows and 32 columns
    assert mask.shape == (128, 64)
    assert (mask[:, :31] == -1).all()
    assert (mask[:, 33:] == 1).all()


def test_straight_to_the_image_and_as_probabilities() -> None:
    said = contract(logits={"path": "direct", "sigmoid": True})
    mask = on_image(100 * step(16), 128, 64, said)[0]
    np.testing.assert_allclose(mask[:, :16], 0, rtol=0, atol=1e-6)
    np.testing.assert_allclose(mask[:, 16:], 1, rtol=0, atol=1e-6)


def test_smaller_masks_come_through_the_encoders_frame() -> None:
    said = contract(logits={"size": 16})
    logits = np.random.default_rng(0).normal(size=(2, 16, 16)).astype(np.float32)
    assert on_image(logits, 30, 40, said).shape == (2, 30, 40)
    cropped = on_image(logits, 40, 30, replace(said, logits=replace(said.logits, path="cropped")))
    assert cropped.shape == (2, 40, 30)
