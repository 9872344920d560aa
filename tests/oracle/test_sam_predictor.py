"""Our predictor gives what SAM's own predictor, MedSAM's script and LiteMedSAM's scripts give, on the same networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage.transform import resize

from benchmarks.sam.script import Script, decoded
from operators.sam.predictor import SlicePrediction
from operators.sam.prompts import Box, Point, SlicePrompt
from operators.sam.propagation import middle_slice, propagate
from tests.oracle.sam_reference import (
    LITE_MEDSAM,
    MEDSAM,
    SIDE,
    TorchNetworks,
    asked_of_sam,
    drawn_slice,
    predictor_of,
    reference_of,
    sam_contract,
    tiny_sam,
)

Shape = tuple[int, int]

BOX = Box(30, 20, 90, 70.5)
POINT = (Point(60, 42.25),)
POINTS = (Point(60, 42.25), Point(35, 30), Point(10, 70, is_foreground=False))
PROMPTS = {
    "box": SlicePrompt(box=BOX),
    "point": SlicePrompt(points=POINT),
    "points": SlicePrompt(points=POINTS),
    "points and box": SlicePrompt(box=BOX, points=POINTS),
}
ASPECTS = [(120, 200), (200, 120), (300, 300)]


# --- SAM ---


@pytest.fixture(scope="module")
def sam() -> Any:
    return tiny_sam()


def assert_same(found: SlicePrediction, expected: tuple[NDArray[Any], ...]) -> None:
    logits_on_image, iou, logits = expected
    np.testing.assert_allclose(found.logits, logits, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.iou, iou, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found.masks, logits_on_image > 0)
    assert 0 < found.masks.mean() < 1, "a mask that shows nothing proves nothing"


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("kind", PROMPTS)
@pytest.mark.parametrize("shape", ASPECTS)
def test_sam(sam: Any, shape: Shape, kind: str, several: bool, tmp_path: Path) -> None:
    image = drawn_slice(*shape)
    reference, prompt = reference_of(sam, image), PROMPTS[kind]
    ours = predictor_of(TorchNetworks(sam), sam_contract(), tmp_path)
    (found,) = ours.predict(image, [prompt], several=several)
    assert_same(found, asked_of_sam(reference, prompt, several=several))


@pytest.mark.parametrize("kind", PROMPTS)
@pytest.mark.parametrize("shape", ASPECTS)
def test_sam_refines_its_former_answer(sam: Any, shape: Shape, kind: str, tmp_path: Path) -> None:
    image = drawn_slice(*shape)
    reference, prompt = reference_of(sam, image), PROMPTS[kind]
    ours = predictor_of(TorchNetworks(sam), sam_contract(), tmp_path)
    (first,) = ours.predict(image, [prompt])
    again = SlicePrompt(prompt.box, prompt.points, first.logits[0])
    (found,) = ours.predict(image, [again])
    assert_same(found, asked_of_sam(reference, again, several=False))
    assert np.abs(found.logits - first.logits).max() > 1e-4, "the former answer was not looked at"


def test_many_prompts_on_one_slice_are_each_what_they_are_alone(sam: Any, tmp_path: Path) -> None:
    image = drawn_slice(120, 200)
    reference = reference_of(sam, image)
    networks = TorchNetworks(sam)
    prompts = [*PROMPTS.values(), SlicePrompt(box=Box(5, 5, 50, 60)), SlicePrompt(points=(Point(9, 9),))]
    for prompt, found in zip(
        prompts, predictor_of(networks, sam_contract(), tmp_path).predict(image, prompts), strict=True
    ):
        assert_same(found, asked_of_sam(reference, prompt, several=False))
    assert networks.encoded == 1
    assert sorted(networks.decoded) == [1, 1, 4], "two boxes and two single points are two tokens each"


# --- MedSAM ---


def by_medsam(model: Any, image: NDArray[np.uint8], box: list[float]) -> NDArray[np.bool_]:
    """What ``MedSAM_Inference.py`` does, with a smaller network."""
    rows, columns = image.shape
    three = np.repeat(image[..., None], 3, axis=-1)
    small = resize(three, (SIDE, SIDE), order=3, preserve_range=True, anti_aliasing=True).astype(np.uint8)
    small = (small - small.min()) / np.clip(small.max() - small.min(), 1e-8, None)
    scaled = np.array([box]) / np.array([columns, rows, columns, rows]) * SIDE
    with torch.no_grad():
        embedding = model.image_encoder(torch.tensor(small).float().permute(2, 0, 1)[None])
        logits = decoded(model, embedding, scaled)
        probability = torch.nn.functional.interpolate(
            torch.sigmoid(logits), size=(rows, columns), mode="bilinear", align_corners=False
        )
    return np.asarray(probability[0, 0].numpy() > 0.5)


@pytest.mark.parametrize("shape", [*ASPECTS, (512, 400)])
def test_medsam(sam: Any, shape: Shape, tmp_path: Path) -> None:
    image = drawn_slice(*shape, seed=3)
    (found,) = predictor_of(TorchNetworks(sam), MEDSAM, tmp_path).predict(image, [SlicePrompt(box=BOX)])
    expected = by_medsam(sam, image, [BOX.left, BOX.top, BOX.right, BOX.bottom])
    np.testing.assert_array_equal(found.mask, expected)
    assert 0 < expected.mean() < 1


# --- LiteMedSAM, with its real weights ---


@pytest.mark.parametrize("cut", [(512, 333), (301, 512), (200, 180)])
def test_lite_medsam_on_a_real_slice(lite_medsam: Any, abdomen: NDArray[np.uint8], cut: Shape, tmp_path: Path) -> None:
    image = np.ascontiguousarray(abdomen[10, : cut[0], : cut[1]])
    rows, columns = image.shape
    corners = np.array([columns // 6, rows // 4, columns // 2, rows * 3 // 4])
    script = Script(lite_medsam)
    expected = script.one(image, script.first_box(corners, image.shape))
    ours = predictor_of(TorchNetworks(lite_medsam), LITE_MEDSAM, tmp_path)
    (found,) = ours.predict(image, [SlicePrompt(box=Box(*map(float, corners)))])
    assert expected.any()
    np.testing.assert_array_equal(found.mask, expected.astype(bool))


def test_lite_medsam_through_a_real_volume(lite_medsam: Any, abdomen: NDArray[np.uint8], tmp_path: Path) -> None:
    rows, columns = abdomen.shape[1:]
    left, top, right, bottom = columns // 6, rows // 4, columns // 2, rows * 3 // 4
    expected = Script(lite_medsam).volume(abdomen, (left, top, 7, right, bottom, 12))
    ours = predictor_of(TorchNetworks(lite_medsam), LITE_MEDSAM, tmp_path)
    found = np.zeros_like(expected, bool)
    prompt = SlicePrompt(box=Box(left, top, right, bottom))
    for index, prediction in propagate(ours, abdomen, middle_slice(7, 12), prompt, slices=(7, 12)):
        found[index] = prediction.mask
    assert expected.any(axis=(1, 2)).sum() == 6
    np.testing.assert_array_equal(found, expected.astype(bool))
