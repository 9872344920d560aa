"""What a person draws with a generalist in one session: one structure, slice by slice, with a way back.

A state is a table of slices that nothing changes; each step makes a new one, and undo takes the one before. Coordinates
and slices are those of the series' volume (`operators.series_volume`).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, get_args

import highdicom
import numpy as np
from numpy.typing import NDArray

from operators.errors import PromptRefused
from operators.sam.contract import PromptKind
from operators.sam.following import follow_structure, kept_parts
from operators.sam.predictor import SlicePrediction, SlicePredictor
from operators.sam.prompts import SlicePrompt
from operators.sam.volume import Shown
from operators.series_volume import SeriesVolume

MOST_STEPS = 50
"""Steps that can be undone."""
_CUBIC_MM_PER_ML = 1000.0

Bits = NDArray[np.bool_]


@dataclass(frozen=True)
class Prompted:
    """What was asked on a slice, and all that was answered."""

    prompt: SlicePrompt
    answer: SlicePrediction
    chosen: int
    """Which of the answer's masks is the slice's."""


@dataclass(frozen=True)
class DrawnSlice:
    """One slice of the structure."""

    packed: bytes
    """Its mask, eight pixels a byte, row by row, the first pixel in the highest bit."""
    area: int
    """Pixels."""
    kinds: frozenset[PromptKind]
    """What its mask comes of: the prompts on this slice, or on the one that it was followed from."""
    prompted: Prompted | None = None
    """None where it came from the slice beside it."""


@dataclass(frozen=True)
class Found:
    """What a step changed."""

    slices: Mapping[int, bytes]
    """The packed masks of the slices that changed."""
    facts: Mapping[str, Any] = field(default_factory=dict)


_Slices = Mapping[int, DrawnSlice]


class Drawing:
    """One structure on one series.

    Parameters
    ----------
    series
        What is drawn on.
    shown
        Its slices as the generalist sees them.
    predictor
        The generalist.
    """

    def __init__(self, series: SeriesVolume, shown: Shown, predictor: SlicePredictor) -> None:
        self.series = series
        self._shown = shown
        self._predictor = predictor
        self._slices: _Slices = MappingProxyType({})
        self._last: int | None = None
        self._history: list[tuple[_Slices, int | None]] = []

    def prompt(self, index: int, prompt: SlicePrompt, *, refine: bool, several: bool) -> Found:
        """Ask on slice `index`; the best answer becomes its mask. All masks of the answer are returned, packed in one.

        Raises
        ------
        PromptRefused
            ``nothing-to-refine`` if nothing was asked on the slice before; else as `SlicePredictor.predict`.
        InferenceFailed
            If a network does not answer.
        """
        kinds: frozenset[PromptKind] = frozenset()
        if refine:
            former = self._prompted(index, "nothing-to-refine", "was answered on this slice that could be refined")
            prompt = replace(prompt, logits=former.answer.logits[former.chosen])
            kinds = self._slices[index].kinds  # of what is refined, shown again or not
        kinds |= set(prompt.kinds)
        began = time.monotonic()
        (answer,) = self._predictor.predict(self._shown[index], [prompt], several=several)
        chosen = int(answer.iou.argmax())
        drawn = _drawn(answer.masks[chosen], kinds, Prompted(prompt, answer, chosen))
        self._step({**self._slices, index: drawn}, index)
        facts = {
            "slice": index,
            "chosen": chosen,
            "iou": [float(one) for one in answer.iou],
            "areas": [int(np.count_nonzero(mask)) for mask in answer.masks],
            "seconds": round(time.monotonic() - began, 4),
            "steps": len(self._history),
        }
        return Found({index: b"".join(np.packbits(mask).tobytes() for mask in answer.masks)}, facts)

    def choose(self, number: int) -> Found:
        """Take another mask of the last answer.

        Raises
        ------
        PromptRefused
            ``choice-unknown`` if it has no such mask; ``nothing-to-choose`` if there is no answer.
        """
        index = -1 if self._last is None else self._last
        former = self._prompted(index, "nothing-to-choose", "was asked yet")
        count = len(former.answer.masks)
        if not 0 <= number < count:
            raise PromptRefused(
                f"the last answer has {count} masks, numbered from 0, and number {number} was chosen; ask with "
                '"several": true for three',
                code="choice-unknown",
            )
        drawn = _drawn(former.answer.masks[number], self._slices[index].kinds, replace(former, chosen=number))
        self._step({**self._slices, index: drawn}, index)
        return self._found([index])

    def propagate(
        self,
        slices: tuple[int | None, int | None] | None,
        progress: Callable[[int, int], None],
        is_cancelled: Callable[[], bool],
    ) -> Found:
        """Go on from the slice that was asked last, through `slices` or until the structure ends.

        Slices that a person prompted keep their masks; of the others stays what the variant keeps. Cancelled, it leaves
        everything as it was.

        Raises
        ------
        PromptRefused
            ``nothing-to-propagate`` if nothing was asked yet; else as `operators.sam.following.follow_structure`.
        InferenceFailed
            If a network does not answer.
        """
        start = -1 if self._last is None else self._last
        former = self._prompted(start, "nothing-to-propagate", "was asked yet that could be followed")
        prompt = former.prompt
        if len(former.answer.masks) > 1:  # one of several was meant: it says which
            prompt = replace(prompt, logits=former.answer.logits[former.chosen])
        reach = None
        if slices is not None:
            first, last = slices
            reach = (0 if first is None else first, len(self._shown) - 1 if last is None else last)
        masks: dict[int, Bits] = {}
        steps = follow_structure(self._predictor, self._shown, start, prompt, slices=reach, progress=progress)
        with closing(steps):
            for index, found in steps:
                if is_cancelled():
                    return Found({}, {"cancelled": True, "steps": len(self._history)})
                masks[index] = found.mask
        parts = kept_parts(masks, self._predictor.contract)
        drawn = {index: _drawn(mask, self._slices[start].kinds) for index, mask in parts.items()}
        kept = {index: one for index, one in self._slices.items() if one.prompted is not None}
        self._step({**self._slices, **drawn, **kept}, start)
        changed = sorted(set(drawn) - set(kept))
        return Found({}, {"cancelled": False, "slices": changed, "steps": len(self._history)})

    def undo(self) -> Found:
        """Take back the last step; return the slices that it had changed, as they are now.

        Raises
        ------
        PromptRefused
            ``nothing-to-undo``.
        """
        if not self._history:
            raise PromptRefused("there is no step that could be undone", code="nothing-to-undo")
        before = self._slices
        self._slices, self._last = self._history.pop()
        changed = [index for index in {*before, *self._slices} if before.get(index) is not self._slices.get(index)]
        return self._found(sorted(changed))

    def clear(self) -> Found:
        """Begin anew, with another structure or the same; the step can be undone."""
        changed = sorted(self._slices)
        self._step({}, None)
        return self._found(changed)

    def mask(self, index: int | None = None) -> Found:
        """Return the slices that hold a pixel of the structure, or one slice whatever it holds.

        Raises
        ------
        PromptRefused
            ``slice-unknown``.
        """
        if index is not None and not 0 <= index < len(self._shown):
            raise PromptRefused(
                f"slice {index} was asked for, counted from 0, and the series has {len(self._shown)}",
                code="slice-unknown",
            )
        return self._found([index] if index is not None else self._with_pixels())

    def digest(self) -> str:
        """Return the SHA-256 of the structure, 64 hexadecimal digits.

        Raises
        ------
        PromptRefused
            ``nothing-to-accept`` if it has no pixel.
        """
        found = self._with_pixels()
        if not found:
            raise PromptRefused(
                "nothing is drawn that could be accepted; prompt a slice first", code="nothing-to-accept"
            )
        digest = hashlib.sha256()
        for index in found:
            digest.update(index.to_bytes(4) + self._slices[index].packed)
        return digest.hexdigest()

    def kinds(self) -> tuple[PromptKind, ...]:
        """Return what was shown for what is drawn, in the order of `PromptKind`; a refined answer is a mask."""
        shown = {kind for index in self._with_pixels() for kind in self._slices[index].kinds}
        return tuple(kind for kind in get_args(PromptKind) if kind in shown)

    def labels(self) -> highdicom.Volume:
        """Return the structure as a label map on the series' grid: uint8, 1 where it is."""
        volume = self.series.volume
        array = np.zeros(volume.spatial_shape, np.uint8)
        for index in self._with_pixels():
            bits = np.unpackbits(np.frombuffer(self._slices[index].packed, np.uint8), count=array[index].size)
            array[index] = bits.reshape(array[index].shape)
        return volume.with_array(array)

    def _prompted(self, index: int, code: str, what: str) -> Prompted:
        drawn = self._slices.get(index)
        if drawn is None or drawn.prompted is None:
            raise PromptRefused(f"nothing {what}; prompt a slice first", code=code)
        return drawn.prompted

    def _with_pixels(self) -> list[int]:
        return sorted(index for index, drawn in self._slices.items() if drawn.area)

    def _step(self, slices: _Slices, last: int | None) -> None:
        self._history.append((self._slices, self._last))
        del self._history[:-MOST_STEPS]
        self._slices, self._last = MappingProxyType(dict(slices)), last

    def _found(self, indices: list[int]) -> Found:
        _, rows, columns = self.series.volume.spatial_shape
        empty = bytes(-(-rows * columns // 8))
        voxels = sum(drawn.area for drawn in self._slices.values())
        return Found(
            {index: self._slices[index].packed if index in self._slices else empty for index in indices},
            {
                "slices": indices,
                "steps": len(self._history),
                "voxels": voxels,
                "volume_ml": round(voxels * float(self.series.volume.voxel_volume) / _CUBIC_MM_PER_ML, 3),
            },
        )


def _drawn(mask: Bits, kinds: frozenset[PromptKind], prompted: Prompted | None = None) -> DrawnSlice:
    return DrawnSlice(np.packbits(mask).tobytes(), int(np.count_nonzero(mask)), kinds, prompted)
