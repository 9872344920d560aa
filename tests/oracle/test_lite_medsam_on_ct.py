"""The graphs that are served find in a real CT what LiteMedSAM's script finds with its class in torch, by voxel."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from app.exporters.onnx_graphs import ask, open_session
from benchmarks.sam.script import Script
from lite_medsam import CACHE, MODEL, fetch, put
from operators.sam.embeddings import EmbeddingCache
from operators.sam.package import DECODER, ENCODER, GeneralistPackage
from operators.sam.predictor import SlicePredictor
from operators.sam.prompts import Box, SlicePrompt
from operators.sam.propagation import middle_slice, propagate
from tests import data
from tests.fixtures.lite_medsam.make_expected import EXPECTED, ORGANS, corners_of, labels_by

pytestmark = pytest.mark.timeout(900)  # torch's encoder takes 2 s for a slice on one thread of a quiet machine
AT_ONCE = 5
"""Slices in one test."""
MOST_DIFFERING = 1e-4
"""Of all voxels: what two libraries' convolutions round differently."""


@pytest.fixture(scope="module")
def reference(abdominal_ct_source: Path) -> NDArray[np.uint8]:
    """The labels that came with the CT, which boxes are drawn around; z descends."""
    return data.reference_labels(abdominal_ct_source)[::-1]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> SlicePredictor:
    folder = tmp_path_factory.mktemp("lite_medsam")
    put(fetch(CACHE), folder / "models")
    package = GeneralistPackage.load(folder / "models" / MODEL)
    encoder, decoder = (
        open_session(package.folder.parent / package.parts[part].model / "1" / "model.onnx")
        for part in (ENCODER, DECODER)
    )
    return SlicePredictor(
        package.contract,
        lambda image: ask(encoder, {"image": image}),
        partial(ask, decoder),
        EmbeddingCache(folder / "embeddings", most_bytes=1 << 28),
        encoder_digest=package.parts[ENCODER].weights_digest,
    )


def assert_same(found: NDArray[np.uint8], expected: NDArray[np.uint8], reference: NDArray[np.uint8]) -> None:
    for label in ORGANS:  # a map that shows nothing proves nothing
        share = np.count_nonzero((expected == label) & (reference == label)) / np.count_nonzero(reference == label)
        assert share > 0.6, label
    assert np.mean(found != expected) <= MOST_DIFFERING


@pytest.mark.parametrize("begin", range(0, data.SLICES, AT_ONCE))
def test_a_box_on_every_slice(
    ours: SlicePredictor, lite_medsam: Any, abdomen: NDArray[np.uint8], reference: NDArray[np.uint8], begin: int
) -> None:
    part = slice(begin, begin + AT_ONCE)
    expected, found = labels_by(Script(lite_medsam), abdomen[part], reference[part]), np.zeros_like(reference[part])
    for index, (image, organs) in enumerate(zip(abdomen[part], reference[part], strict=True)):
        for label in ORGANS:
            if not (organs == label).any():
                continue
            (prediction,) = ours.predict(image, [SlicePrompt(box=Box(*map(float, corners_of(organs == label))))])
            found[index][prediction.mask] = label
    assert_same(found, expected, reference[part])
    with np.load(EXPECTED) as stored:  # what the whole server is held to
        assert np.mean(stored["labels"][part] != expected) <= MOST_DIFFERING


def test_one_box_on_the_middle_slice_of_each(
    ours: SlicePredictor, lite_medsam: Any, abdomen: NDArray[np.uint8], reference: NDArray[np.uint8]
) -> None:
    found, expected = np.zeros_like(reference), np.zeros_like(reference)
    for label in ORGANS:
        slices = np.flatnonzero((reference == label).any(axis=(1, 2)))
        first, last = int(slices[0]), int(slices[-1])
        middle = middle_slice(first, last)
        left, top, right, bottom = corners_of(reference[middle] == label)
        expected[Script(lite_medsam).volume(abdomen, (left, top, first, right, bottom, last)) > 0] = label
        prompt = SlicePrompt(box=Box(left, top, right, bottom))
        for index, prediction in propagate(ours, abdomen, middle, prompt, slices=(first, last)):
            found[index][prediction.mask] = label
    assert_same(found, expected, reference)
