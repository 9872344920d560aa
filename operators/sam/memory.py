"""Follows objects through the slices of a series, from the slices on which they are shown: SAM 2 and MedSAM2.

Each slice is looked at with what is remembered of those behind it, and then remembered itself. An object is followed
forwards from the first slice on which it is shown, then backwards from there with a memory that holds the prompted
slices alone. Nothing depends on how many slices are asked for at once, and what is held does not grow with the series.

The networks compute all that needs trained weights; here is only what decides which memory is used where.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from operators.errors import PromptRefused
from operators.sam.choosing import best_of_three, single
from operators.sam.contract import Contract
from operators.sam.mask_prompts import decoder_mask, mask_logits
from operators.sam.memory_bank import MemoryBank, Remembered, shortened
from operators.sam.memory_contract import read_memory_contract
from operators.sam.package import DECODER, MEMORY_ATTENTION, MEMORY_ENCODER

Array = NDArray[np.float32]
Features = Mapping[str, Array]
"""What the encoder gives for one slice, by name; ``image_embeddings`` among it."""
Infer = Callable[[str, Mapping[str, Array]], Mapping[str, Array]]
"""Asks a part of the package, named as in `operators.sam.package`, for its outputs by name."""

_EMBEDDINGS = "image_embeddings"
_ABSENT = np.float32(-1024.0)
"""The logit everywhere on a slice on which the object is not seen."""
_PADDING = -1


@dataclass(frozen=True)
class ShownPoints:
    """Points, or a box's two corners and then points, on one slice."""

    coordinates: Array
    """(p, 2), x and y in the square that the encoder sees, without padding."""
    labels: Array
    """(p,)."""


@dataclass(frozen=True)
class ShownMask:
    """The object itself on one slice."""

    mask: NDArray[np.bool_]
    """(S, S), in the square that the encoder sees."""


Shown = ShownPoints | ShownMask


@dataclass(frozen=True)
class Followed:
    """One object on one slice."""

    logits: Array
    """(L, L), at the decoder's size; as the contract's ``logits`` say they come onto the image."""
    presence: float
    """Logit of the object being seen there; the mask is empty where it is not above zero."""
    quality: float
    """How well the mask lies, as the model expects (IoU); 1 for a mask that was shown."""


@dataclass(frozen=True)
class _Outcome:
    followed: Followed
    pointer: Array


def follow(
    infer: Infer,
    contract: Contract,
    slices: int,
    features_of: Callable[[int], Features],
    objects: Sequence[Mapping[int, Shown]],
    *,
    within: tuple[int, int] | None = None,
    until_gone: bool = False,
) -> Generator[tuple[int, dict[int, Followed]], None, None]:
    """Follow objects through a series: yield each slice's number, and by object's number what is found there.

    Parameters
    ----------
    slices
        Of the whole series: distances between slices are measured by it, so it is no choice of the caller.
    features_of
        Gives the encoder's answer for the slice of a number. It is asked for one slice after the other, again for the
        slices on which an object was shown where another one is followed.
    objects
        For each, by the slice's number, what is shown of it.
    within
        The first and the last slice to go to, both included; None: the series' ends.
    until_gone
        Follow an object no further in a direction once a slice there has nothing of it, which is yielded; but go on
        from the next slice on which it is shown.

    Yields
    ------
    From the first prompted slice to the last of the series, then from there to the first; each object from the first
    slice on which it is shown, and no slice twice for one object. Whoever has seen enough closes the iterator.

    Raises
    ------
    PromptRefused
        ``prompt-empty`` if an object is not shown at all, ``prompt-outside`` if it is shown beyond the series.
    """
    for shown in objects:
        _check(shown, slices)
    follower = _Follower(infer, contract)
    prompted = _prompted(follower, features_of, objects)
    first, last = within or (0, slices - 1)
    starts = [min(shown) for shown in objects]
    begin = min(starts, default=slices)
    for way in (range(max(begin, first), last + 1), range(min(max(starts, default=0) - 1, last), first - 1, -1)):
        yield from _one_way(follower, slices, way, features_of, prompted, until_gone=until_gone)


def _prompted(
    follower: _Follower, features_of: Callable[[int], Features], objects: Sequence[Mapping[int, Shown]]
) -> list[dict[int, tuple[_Outcome, Remembered]]]:
    """Look at the slices on which something is shown, each without any other."""
    prompted: list[dict[int, tuple[_Outcome, Remembered]]] = [{} for _ in objects]
    for index in sorted({index for shown in objects for index in shown}):
        features = features_of(index)
        for shown, outcomes in zip(objects, prompted, strict=True):
            if index in shown:
                outcome = follower.shown(features, shown[index])
                outcomes[index] = outcome, follower.remembered(features, outcome, is_prompted=True)
    return prompted


def _one_way(
    follower: _Follower,
    slices: int,
    way: range,
    features_of: Callable[[int], Features],
    prompted: Sequence[Mapping[int, tuple[_Outcome, Remembered]]],
    *,
    until_gone: bool,
) -> Generator[tuple[int, dict[int, Followed]], None, None]:
    backwards = way.step < 0
    banks = [
        MemoryBank(
            follower.memory,
            {index: remembered for index, (_, remembered) in outcomes.items()},
            slices,
            backwards=backwards,
        )
        for outcomes in prompted
    ]
    starts = [min(outcomes) for outcomes in prompted]
    gone: set[int] = set()
    for index in way:
        if all(number in gone and (backwards or index > max(prompted[number])) for number in range(len(prompted))):
            return
        found: dict[int, Followed] = {}
        features: Features | None = None
        for number, start in enumerate(starts):
            if (index >= start) == backwards:
                continue
            if index in prompted[number]:
                found[number] = prompted[number][index][0].followed
                gone.discard(number)
            if index in prompted[number] or number in gone:
                continue
            features = features_of(index) if features is None else features
            outcome = follower.tracked(features, banks[number], index)
            found[number] = outcome.followed
            if until_gone and not (outcome.followed.logits > follower.threshold).any():
                gone.add(number)
            else:
                banks[number].add(index, follower.remembered(features, outcome, is_prompted=False))
        yield index, found


class _Follower:
    """What is asked of the networks for one object on one slice."""

    def __init__(self, infer: Infer, contract: Contract) -> None:
        if contract.memory is None:
            raise ValueError("a variant without memory can't follow an object")
        self._infer = infer
        self._size = contract.logits.size
        self.threshold = contract.logits.threshold
        self.memory = read_memory_contract(contract.memory)

    def shown(self, features: Features, shown: Shown) -> _Outcome:
        """Return what a prompted slice gives, without looking at any other."""
        if isinstance(shown, ShownMask):
            return self._from_mask(features, shown.mask)
        return self._decoded(features, shown.coordinates, shown.labels)

    def tracked(self, features: Features, bank: MemoryBank, index: int) -> _Outcome:
        """Return what a slice gives where nothing is shown, but slices behind are remembered."""
        recalled = bank.recall(index)
        conditioned = self._infer(
            MEMORY_ATTENTION,
            {
                _EMBEDDINGS: features[_EMBEDDINGS],
                "memories": recalled.memories[None],
                "memory_steps": recalled.steps[None],
                "pointers": recalled.pointers[None],
                "pointer_distances": recalled.distances[None],
            },
        )
        nothing = np.zeros((1, 2), np.float32), np.full(1, _PADDING, np.float32)
        return self._decoded({**features, _EMBEDDINGS: conditioned["conditioned_embeddings"]}, *nothing)

    def remembered(self, features: Features, outcome: _Outcome, *, is_prompted: bool) -> Remembered:
        """Return what is kept of a slice."""
        answer = self._infer(
            MEMORY_ENCODER,
            {
                _EMBEDDINGS: features[_EMBEDDINGS],
                "masks": outcome.followed.logits[None, None],
                "object_score_logits": np.full((1, 1), outcome.followed.presence, np.float32),
                "is_prompted": np.full(1, is_prompted, np.float32),
            },
        )
        return Remembered(shortened(answer["memories"][0]), outcome.pointer)

    def _decoded(self, features: Features, coordinates: Array, labels: Array) -> _Outcome:
        answer = self._asked(features, coordinates, labels, None)
        masks, qualities = answer["masks"][0], answer["iou_predictions"][0]
        presence = float(answer["object_score_logits"][0, 0])
        fewest, most = self.memory.several
        if fewest <= np.count_nonzero(labels != _PADDING) <= most:
            token = chosen = best_of_three(qualities)
        else:
            # what wavers is replaced, and remembered by the single mask's pointer all the same
            token, chosen = 0, single(masks, qualities, self.memory.stability)
        logits = masks[chosen] if presence > 0 else np.full_like(masks[chosen], _ABSENT)
        return _Outcome(Followed(logits, presence, float(qualities[chosen])), answer["object_pointers"][0, token])

    def _from_mask(self, features: Features, mask: NDArray[np.bool_]) -> _Outcome:
        prompt = self.memory.mask_prompt
        bare = features[_EMBEDDINGS] - prompt.no_memory[None, :, None, None]
        nothing = np.zeros((1, 2), np.float32), np.full(1, _PADDING, np.float32)
        answer = self._asked({**features, _EMBEDDINGS: bare}, *nothing, decoder_mask(mask, prompt))
        return _Outcome(Followed(mask_logits(mask, self._size), 10.0, 1.0), answer["object_pointers"][0, 0])

    def _asked(self, features: Features, coordinates: Array, labels: Array, mask: Array | None) -> Mapping[str, Array]:
        """Ask the decoder for one prompt; a point of padding comes after it always."""
        size = (self._size, self._size)
        return self._infer(
            DECODER,
            {
                **features,
                "point_coords": np.concatenate([coordinates, np.zeros((1, 2))])[None].astype(np.float32),
                "point_labels": np.append(labels, _PADDING)[None].astype(np.float32),
                "mask_input": (np.zeros(size, np.float32) if mask is None else mask)[None, None],
                "has_mask_input": np.full(1, mask is not None, np.float32),
            },
        )


def _check(shown: Mapping[int, Shown], slices: int) -> None:
    if not shown or any(isinstance(one, ShownMask) and not one.mask.any() for one in shown.values()):
        raise PromptRefused("an object can be followed only if it is shown on a slice", code="prompt-empty")
    outside = [index for index in shown if not 0 <= index < slices]
    if outside:
        raise PromptRefused(
            f"an object is shown on slice {outside[0]}, and the series has slices 0 to {slices - 1}",
            code="prompt-outside",
        )
