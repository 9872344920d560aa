import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.errors import InferenceFailed
from operators.nnunet.plans import Configuration
from operators.nnunet.resampling import Shape
from operators.nnunet.sliding_window import Blending, TilePlan, gaussian_weights, tile_starts
from tests.unit.operators.nnunet.oracle import demo_configuration, fixture


def tiled(*patch: int, mirroring: tuple[int, ...] = ()) -> Configuration:
    return replace(demo_configuration(), patch_size=patch, mirroring_axes=mirroring)


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


@given(shape=st.tuples(*[st.integers(1, 20)] * 3), patch=st.tuples(*[st.integers(3, 12)] * 3))
def test_tiles_show_every_voxel_and_padding_is_even(shape: Shape, patch: Shape) -> None:
    plan = TilePlan(shape, tiled(*patch))
    assert plan.padded_shape == tuple(np.maximum(shape, patch))
    seen = np.zeros(shape, bool)
    for corner in plan.corners:
        shown, placed = plan.window(corner)
        seen[shown] = True
        assert [side.stop - side.start for side in shown] == [side.stop - side.start for side in placed]
        assert all(
            side.start - start + before == part.start
            for side, part, start, before in zip(shown, placed, corner, plan.before, strict=True)
        )
    assert seen.all()
    # the odd voxel goes behind
    assert plan.before == tuple((whole - size) // 2 for whole, size in zip(plan.padded_shape, shape, strict=True))


def test_a_2d_network_sees_every_slice() -> None:
    plan = TilePlan((5, 9, 8), tiled(6, 8, mirroring=(1,)))
    assert plan.tile == (1, 6, 8)
    assert [corner[0] for corner in plan.corners] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert plan.mirrorings == [(False, False, False), (False, False, True)]  # its second axis is the image's third
    assert plan.count == 20


def test_all_ways_of_mirroring() -> None:
    plan = TilePlan((4, 4, 4), tiled(4, 4, 4, mirroring=(0, 1, 2)))
    assert len(set(plan.mirrorings)) == 8
    assert plan.mirrorings[0] == (False, False, False)


@settings(max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 20), st.integers(1, 9), st.integers(1, 9)),
    mirroring=st.sampled_from([(), (0,), (0, 2), (0, 1, 2)]),
    step=st.sampled_from([0.5, 1.0, 0.15]),  # the last gives tiles that begin at one place
    seed=st.integers(0, 1 << 16),
)
def test_planes_are_the_weighted_mean_of_all_answers(
    shape: Shape, mirroring: tuple[int, ...], step: float, seed: int
) -> None:
    """Against the plain sum over the whole image at once."""
    configuration = replace(tiled(6, 4, 5, mirroring=mirroring), tile_step_size=step)
    plan, generator = TilePlan(shape, configuration), np.random.default_rng(seed)
    weights = gaussian_weights((6, 4, 5))
    heads = configuration.labels.heads
    total, weight_total = np.zeros((heads, *plan.padded_shape)), np.zeros(plan.padded_shape)
    blending, planes = Blending(plan, configuration), []
    for corner in plan.corners:
        for mirrored in plan.mirrorings:
            answer = generator.normal(size=(heads, *plan.tile)).astype(np.float32)
            planes += [(one.index, one.logits.copy(), one.winners.copy()) for one in blending.finished(corner[0])]
            blending.add(answer, corner, mirrored)
            window = tuple(slice(start, start + size) for start, size in zip(corner, plan.tile, strict=True))
            turned = np.flip(answer, tuple(axis + 1 for axis, turn in enumerate(mirrored) if turn))
            total[(slice(None), *window)] += turned * weights
            weight_total[window] += weights
    planes += [(one.index, one.logits.copy(), one.winners.copy()) for one in blending.finished(plan.padded_shape[0])]
    place = tuple(slice(before, before + size) for before, size in zip(plan.before, shape, strict=True))
    expected = (total / weight_total)[(slice(None), *place)]
    assert [index for index, _, _ in planes] == list(range(shape[0]))
    found = np.stack([logits for _, logits, _ in planes], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(np.stack([winners for _, _, winners in planes]), found.argmax(axis=0))


def test_with_regions_the_last_one_above_zero_wins() -> None:
    configuration = tiled(1, 1, 4)
    configuration = replace(configuration, labels=replace(configuration.labels, has_regions=True))
    blending = Blending(TilePlan((1, 1, 4), configuration), configuration)
    answer = np.array([[3, -1, 2, -1], [1, 2, -3, -1], [-1, 1, -1, -2]], np.float32)[:, None, None]
    blending.add(answer, (0, 0, 0), (False, False, False))
    (plane,) = blending.finished(1)
    np.testing.assert_array_equal(plane.winners, [[1, 2, 0, -1]])


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_an_error(wrong: float) -> None:
    configuration = tiled(2, 2, 2)
    blending = Blending(TilePlan((2, 2, 2), configuration), configuration)
    answer = np.zeros((3, 2, 2, 2), np.float32)
    answer[1, 1, 0, 1] = wrong
    blending.add(answer, (0, 0, 0), (False, False, False))
    with pytest.raises(InferenceFailed) as caught:
        list(blending.finished(2))
    assert caught.value.code == "logits-not-finite"
