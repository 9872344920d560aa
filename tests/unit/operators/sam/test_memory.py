"""Objects followed through slices, with networks whose answers say what they were asked with."""

from __future__ import annotations

import gc
import itertools
import json
import tracemalloc
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from operators.errors import PromptRefused
from operators.sam.contract import Contract, read_contract
from operators.sam.memory import Features, Shown, ShownMask, ShownPoints, follow
from operators.sam.package import DECODER, MEMORY_ATTENTION, MEMORY_ENCODER
from tests.unit.operators.sam.test_memory_contract import MEMORY, VARIANTS

Array = NDArray[np.float32]
SIDE, TOKENS, CHANNELS, WIDTH = 4, 4, 8, 16


def contract() -> Contract:
    content = json.loads((VARIANTS / "medsam2.json").read_text(encoding="utf-8"))["contract"]
    logits = {**content["logits"], "size": SIDE}
    return read_contract({**content, "logits": logits, "memory": MEMORY, "licence": "none"})


class Networks:
    """Sums of what they are given, so that every answer depends on all that was asked with."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Array]]] = []
        self.presence = 1.0

    def __call__(self, part: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.asked.append((part, dict(inputs)))
        return getattr(self, part)(**inputs)  # type: ignore[no-any-return]

    def decoder(self, image_embeddings: Array, point_labels: Array, mask_input: Array, **_: Any) -> dict[str, Array]:
        value = np.float32(np.sin(image_embeddings.sum() + point_labels.sum() + mask_input.sum()))
        scales = np.arange(1, 5, dtype=np.float32)
        return {
            "masks": np.tile(value * scales[:, None, None], (1, 1, SIDE, SIDE)).reshape(1, 4, SIDE, SIDE),
            "iou_predictions": np.array([[0.9, 0.1, 0.3, 0.2]], np.float32),
            "object_pointers": np.tile(value * scales[:, None], (1, 1, WIDTH)).reshape(1, 4, WIDTH),
            "object_score_logits": np.full((1, 1), self.presence, np.float32),
        }

    def memory_encoder(self, image_embeddings: Array, masks: Array, **_: Any) -> dict[str, Array]:
        return {"memories": np.full((1, TOKENS, CHANNELS), image_embeddings.sum() + masks.sum(), np.float32)}

    def memory_attention(
        self, image_embeddings: Array, memories: Array, memory_steps: Array, pointers: Array, pointer_distances: Array
    ) -> dict[str, Array]:
        weighed = (memories.mean((2, 3)) * memory_steps).sum() + (pointers.mean(2) * (1 + pointer_distances)).sum()
        return {"conditioned_embeddings": image_embeddings + np.float32(np.sin(weighed))}


def features_of(index: int) -> Features:
    return {"image_embeddings": np.full((1, 8, 2, 2), index / 7, np.float32)}


BOX = ShownPoints(np.array([[1, 1], [3, 3]], np.float32), np.array([2, 3], np.float32))
POINT = ShownPoints(np.array([[2, 2]], np.float32), np.array([1], np.float32))
MASK = ShownMask(np.eye(16, dtype=bool))


def collected(objects: list[dict[int, Shown]], slices: int = 12) -> dict[tuple[int, int], Array]:
    """The logits by slice and object; none may come twice."""
    found: dict[tuple[int, int], Array] = {}
    for index, answers in follow(Networks(), contract(), slices, features_of, objects):
        for number, followed in answers.items():
            assert (index, number) not in found
            found[index, number] = followed.logits
    return found


def test_an_object_is_followed_to_both_ends_and_each_slice_comes_once() -> None:
    order = [index for index, _ in follow(Networks(), contract(), 9, features_of, [{4: BOX}])]
    assert order == [4, 5, 6, 7, 8, 3, 2, 1, 0]


def test_each_object_begins_where_it_is_shown_first() -> None:
    found = {
        (index, number)
        for index, answers in follow(Networks(), contract(), 6, features_of, [{4: BOX}, {1: POINT, 3: BOX}])
        for number in answers
    }
    assert found == set(itertools.product(range(6), range(2)))


def test_several_objects_are_followed_as_each_alone() -> None:
    objects: list[dict[int, Shown]] = [{4: BOX}, {1: POINT, 7: MASK}, {11: MASK}]
    together = collected(objects)
    for number, prompts in enumerate(objects):
        for (index, _), logits in collected([prompts]).items():
            np.testing.assert_array_equal(together[index, number], logits)


def test_going_back_starts_with_the_prompted_slices_alone() -> None:
    networks = Networks()
    list(follow(networks, contract(), 12, features_of, [{5: BOX}]))
    counts = [inputs["memories"].shape[1] for part, inputs in networks.asked if part == MEMORY_ATTENTION]
    assert counts == [1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5]


def test_pausing_and_stopping_change_nothing_that_came_before() -> None:
    whole = list(follow(Networks(), contract(), 12, features_of, [{5: BOX}]))
    running = follow(Networks(), contract(), 12, features_of, [{5: BOX}])
    pieces = [*itertools.islice(running, 1), *itertools.islice(running, 4), *itertools.islice(running, 3)]
    running.close()
    for (index, found), (same, expected) in zip(pieces, whole[:8], strict=True):
        assert index == same
        np.testing.assert_array_equal(found[0].logits, expected[0].logits)


def test_a_tracked_slice_is_asked_with_padding_alone_and_takes_the_best_of_three() -> None:
    networks = Networks()
    answers = dict(follow(networks, contract(), 2, features_of, [{0: BOX}]))
    prompted, tracked = [inputs for part, inputs in networks.asked if part == DECODER]
    assert prompted["point_labels"].tolist() == [[2, 3, -1]]
    assert tracked["point_labels"].tolist() == [[-1, -1]]
    assert tracked["has_mask_input"].tolist() == [0]
    assert answers[0][0].quality == pytest.approx(0.9)  # two corners: the single mask
    assert answers[1][0].quality == pytest.approx(0.3)
    remembered = [inputs["is_prompted"].tolist() for part, inputs in networks.asked if part == MEMORY_ENCODER]
    assert remembered == [[1], [0]]


def test_an_object_that_is_not_seen_leaves_an_empty_mask_and_is_remembered_as_absent() -> None:
    networks = Networks()
    networks.presence = -2.0
    answers = dict(follow(networks, contract(), 2, features_of, [{0: POINT}]))
    assert (answers[1][0].logits == -1024).all()
    assert answers[1][0].presence == -2
    scores = [inputs["object_score_logits"].tolist() for part, inputs in networks.asked if part == MEMORY_ENCODER]
    assert scores == [[[-2.0]], [[-2.0]]]


class Vanishing(Networks):
    """Sees the object on some slices only: `features_of` writes a slice's number into its embeddings."""

    def __init__(self, seen: range) -> None:
        super().__init__()
        self.seen = seen

    def __call__(self, part: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        if part == MEMORY_ATTENTION:
            return {"conditioned_embeddings": inputs["image_embeddings"]}
        if part == DECODER:
            self.presence = 1.0 if round(float(inputs["image_embeddings"][0, 0, 0, 0]) * 7) in self.seen else -1.0
        answer = super().__call__(part, inputs)
        return {**answer, "masks": np.ones_like(answer["masks"])} if part == DECODER else answer


def went(seen: range, shown: dict[int, Shown], **arguments: Any) -> list[int]:
    """The slices that were gone to, of twelve, in order."""
    return [index for index, _ in follow(Vanishing(seen), contract(), 12, features_of, [shown], **arguments)]


def test_within_a_range_the_way_ends_with_it() -> None:
    whole = {index: found[0].logits for index, found in follow(Networks(), contract(), 12, features_of, [{5: BOX}])}
    part = list(follow(Networks(), contract(), 12, features_of, [{5: BOX}], within=(3, 8)))
    assert [index for index, _ in part] == [5, 6, 7, 8, 4, 3]
    for index, found in part:
        np.testing.assert_array_equal(found[0].logits, whole[index])


def test_an_object_that_is_gone_is_followed_no_further() -> None:
    assert went(range(4, 8), {5: BOX}) == [5, *range(6, 12), *range(4, -1, -1)]
    assert went(range(4, 8), {5: BOX}, until_gone=True) == [5, 6, 7, 8, 4, 3]


def test_an_object_that_is_shown_again_is_followed_from_there() -> None:
    found = [
        (index, 0 in answers)
        for index, answers in follow(
            Vanishing(range(4, 6)), contract(), 12, features_of, [{4: BOX, 8: MASK}], until_gone=True
        )
    ]
    assert found == [(4, True), (5, True), (6, True), (7, False), (8, True), (9, True), (3, True)]


def test_a_mask_is_believed_and_seen_by_the_decoder_without_the_part_for_no_memory() -> None:
    networks = Networks()
    answers = dict(follow(networks, contract(), 1, lambda _: features_of(7), [{0: MASK}]))
    _, inputs = networks.asked[0]
    np.testing.assert_array_equal(inputs["image_embeddings"], np.full((1, 8, 2, 2), 0.75))
    assert inputs["mask_input"].shape == (1, 1, SIDE, SIDE)
    assert inputs["has_mask_input"].tolist() == [1]
    assert answers[0][0].presence == 10
    assert answers[0][0].logits[0, 0] > answers[0][0].logits[0, 3]


def test_features_are_let_go_slice_by_slice_and_memories_with_the_iterator() -> None:
    alive: list[weakref.ref[Array]] = []

    def watched(index: int) -> Features:
        values = np.full((1, 8, 2, 2), index, np.float32)
        alive.append(weakref.ref(values))
        return {"image_embeddings": values}

    class Forgetful(Networks):
        def __call__(self, part: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
            answer = super().__call__(part, inputs)
            self.asked.clear()
            return answer

    running = follow(Forgetful(), contract(), 40, watched, [{0: BOX}])
    for _ in itertools.islice(running, 30):
        gc.collect()
        assert sum(one() is not None for one in alive) <= 1
    running.close()
    gc.collect()
    assert all(one() is None for one in alive)


def test_what_is_held_does_not_grow_with_the_series() -> None:
    class Large(Networks):
        def memory_encoder(self, image_embeddings: Array, masks: Array, **_: Any) -> dict[str, Array]:
            return {"memories": np.ones((1, 4096, 64), np.float32)}

        def __call__(self, part: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
            answer = super().__call__(part, inputs)
            self.asked.clear()
            return answer

    tracemalloc.start()
    try:
        running = follow(Large(), contract(), 120, features_of, [{0: BOX}])
        for _ in itertools.islice(running, 12):
            pass
        early = tracemalloc.get_traced_memory()[0]
        for _ in itertools.islice(running, 100):
            pass
        late = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert early > 7 * 4096 * 64 * 2  # seven memories of two bytes a value
    assert late - early < 4096 * 64 * 2  # not one more


@pytest.mark.parametrize(
    ("prompts", "code"),
    [
        ({}, "prompt-empty"),
        ({3: ShownMask(np.zeros((16, 16), bool))}, "prompt-empty"),
        ({12: BOX}, "prompt-outside"),
        ({-1: BOX}, "prompt-outside"),
    ],
)
def test_what_shows_nothing_is_refused(prompts: dict[int, Shown], code: str) -> None:
    with pytest.raises(PromptRefused) as caught:
        collected([prompts])
    assert caught.value.code == code


def test_nothing_to_follow_gives_nothing() -> None:
    assert list(follow(Networks(), contract(), 5, features_of, [])) == []
