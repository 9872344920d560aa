import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from operators.errors import InferenceFailed
from operators.nnunet.resampling import Shape
from operators.nnunet.sliding_window import gaussian_weights, pad_to_tile, predict_logits, tile_starts
from tests.unit.operators.nnunet.oracle import fixture


@pytest.mark.parametrize("case", range(4))
def test_tiles_begin_where_nnunets_do(case: int) -> None:
    stages = fixture("stages")
    image, tile = (stages[f"steps_{case}_{which}"].tolist() for which in ("image", "tile"))
    expected = [stages[f"steps_{case}_axis{axis}"].tolist() for axis in range(3)]
    assert tile_starts(image, tile, float(stages[f"steps_{case}_step"])) == expected


def test_weights_are_nnunets() -> None:
    stages = fixture("stages")
    first, second, third = stages["gaussian_tile"].tolist()
    np.testing.assert_array_equal(gaussian_weights((first, second, third)), stages["gaussian"].astype(np.float32))


@given(extra=st.integers(0, 300), tile=st.integers(1, 200), step=st.sampled_from([0.25, 0.5, 0.8, 1.0]))
def test_tiles_cover_the_axis(extra: int, tile: int, step: float) -> None:
    (starts,) = tile_starts([tile + extra], [tile], step)
    assert starts[0] == 0
    assert starts[-1] == extra
    assert all(0 <= after - before <= tile for before, after in itertools.pairwise(starts))


@given(shape=st.tuples(*[st.integers(1, 12)] * 3), tile=st.tuples(*[st.integers(1, 12)] * 3))
def test_padding_is_even_and_undone(shape: Shape, tile: Shape) -> None:
    image = np.random.default_rng(0).random(shape, dtype=np.float32) + 1
    padded, place = pad_to_tile(image, tile)
    assert padded.shape == tuple(np.maximum(shape, tile))
    np.testing.assert_array_equal(padded[place], image)
    assert padded.sum(dtype=float) == pytest.approx(image.sum(dtype=float))
    for part, size, whole in zip(place, shape, padded.shape, strict=True):
        assert part.start == (whole - size) // 2  # the odd voxel goes behind


@settings(max_examples=30, deadline=None)
@given(shape=st.tuples(*[st.integers(1, 20)] * 3), seed=st.integers(0, 1 << 16))
def test_a_network_that_sees_one_voxel_is_not_changed_by_tiles(shape: Shape, seed: int) -> None:
    image = np.random.default_rng(seed).normal(size=shape).astype(np.float32)

    def pointwise(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.concatenate([tiles, 1 - tiles], axis=1)

    reports: list[tuple[int, int]] = []
    logits = predict_logits(image, (4, 6, 8), 2, pointwise, lambda done, of: reports.append((done, of)))
    np.testing.assert_allclose(logits, np.stack([image, 1 - image]), atol=1e-5)
    assert reports == [(done, reports[-1][1]) for done in range(reports[-1][1] + 1)]


def test_overlapping_tiles_are_blended_by_their_weights() -> None:
    answers = iter([1.0, 3.0])
    logits = predict_logits(
        np.zeros((6, 4, 4), np.float32), (4, 4, 4), 1, lambda tiles: np.full_like(tiles, next(answers)), lambda *_: None
    )
    weights = gaussian_weights((4, 4, 4))
    before, after = weights[2:], weights[:2]
    np.testing.assert_allclose(logits[0, :2], 1)
    np.testing.assert_allclose(logits[0, 2:4], (before + 3 * after) / (before + after), rtol=1e-6)
    np.testing.assert_allclose(logits[0, 4:], 3)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (np.zeros((1, 3, 4, 4, 4), np.float32), "model-mismatch"),
        (np.zeros((1, 2, 4, 4, 5), np.float32), "model-mismatch"),
        (np.full((1, 2, 4, 4, 4), np.nan, np.float32), "logits-not-finite"),
        (np.full((1, 2, 4, 4, 4), np.inf, np.float32), "logits-not-finite"),
    ],
)
def test_a_wrong_answer_is_an_error(answer: NDArray[np.float32], code: str) -> None:
    with pytest.raises(InferenceFailed) as caught:
        predict_logits(np.ones((4, 4, 4), np.float32), (4, 4, 4), 2, lambda _: answer, lambda *_: None)
    assert caught.value.code == code
