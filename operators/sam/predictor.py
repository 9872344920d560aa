"""One slice, its prompts, and the masks that a generalist finds: encoder once, decoder for what is asked.

The predictor knows the networks as two functions of arrays, so that it is the same over Triton
(`operators.sam.network`) and, in tests, over torch.

Prompts on one slice go to the decoder together where they have equally many points. Those with fewer are never filled
up with points labelled -1: such a point is a token that the others attend to, and changes the logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from operators.errors import InferenceFailed, PromptRefused
from operators.sam.choosing import single
from operators.sam.contract import Contract, ImageContract
from operators.sam.embeddings import EmbeddingCache, embedding_key
from operators.sam.frames import FramedPrompt, framed_prompt, network_image, on_image
from operators.sam.memory_contract import Stability
from operators.sam.prompts import SlicePrompt

Tensors = Mapping[str, NDArray[np.float32]]
Encode = Callable[[NDArray[np.float32]], Tensors]
"""The encoder: from ``image`` (1, 3, S, S) to all that it gives, by name."""
Decode = Callable[[Tensors], Tensors]
"""The decoder: from what `operators.sam.package` lists to ``masks`` (n, 4, L, L) and ``iou_predictions`` (n, 4)."""
Infer = Callable[[str, Tensors], Tensors]
"""Any part, named as in `operators.sam.package`."""

MOST_AT_ONCE = 16
"""Prompts in one request: beyond it nothing is gained, and the decoder holds some ten megabytes for each."""
_STABILITY = Stability(delta=0.05, threshold=0.98)
"""SAM 2's, from its configurations: how far logits must lie from 0, and which share of the mask must."""
_SAM2_BOUND = 32.0
"""SAM 2 hands logits on within this."""


@dataclass(frozen=True)
class SlicePrediction:
    """What the model finds for one prompt: one mask, or three at three scales (whole, part, part of a part)."""

    masks: NDArray[np.bool_]
    """(1 or 3, rows, columns)."""
    iou: NDArray[np.float32]
    """(1 or 3,): the model's own guess at each mask's intersection over union."""
    logits: NDArray[np.float32]
    """(1 or 3, L, L): the decoder's answer at its own size, to be refined with `SlicePrompt.logits`."""

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(rows, columns): the single mask, or of three the one that the model thinks best."""
        best: NDArray[np.bool_] = self.masks[int(self.iou.argmax())]
        return best


class SlicePredictor:
    """A generalist asked slice by slice; from one thread at a time, as the handles on its networks.

    Parameters
    ----------
    contract
        What the variant wants and gives.
    encode, decode
        Its networks.
    cache
        Where embeddings are kept; the encoder runs only for a slice that is not there.
    encoder_digest
        SHA-256 of the encoder's weights, hexadecimal: what embeddings of other weights are told apart by.
    infer
        All its networks by their part, for a variant with a memory (`operators.sam.following`).
    """

    def __init__(
        self,
        contract: Contract,
        encode: Encode,
        decode: Decode,
        cache: EmbeddingCache,
        *,
        encoder_digest: str,
        infer: Infer | None = None,
    ) -> None:
        self.contract = contract
        self.infer = infer
        self._encode = encode
        self._decode = decode
        self._cache = cache
        self._encoder_digest = encoder_digest

    def predict(
        self, image: NDArray[np.uint8], prompts: Sequence[SlicePrompt], *, several: bool = False
    ) -> list[SlicePrediction]:
        """Return what is found for each of `prompts`, in their order.

        Parameters
        ----------
        image
            The slice, (rows, columns), 0 to 255 (`operators.sam.windowing`).
        prompts
            In pixels of the image.
        several
            Three masks for each, for a prompt that may mean a part or the whole; otherwise one.

        Raises
        ------
        PromptRefused
            If a prompt can't be followed (`framed_prompt`), or ``several-unsupported``; no network was asked then.
        SeriesRefused
            ``image-too-narrow``.
        InferenceFailed
            If a network does not answer, or ``logits-not-finite`` if it answers with what are no numbers.
        """
        if several and not self.contract.logits.several:
            raise PromptRefused(
                "the model gives one mask for a prompt, and three were asked for; ask for one, or another model",
                code="several-unsupported",
            )
        rows, columns = image.shape
        framed = [framed_prompt(prompt, rows, columns, self.contract) for prompt in prompts]
        return self.ask(image, framed, several=several)

    def ask(
        self, image: NDArray[np.uint8], prompts: Sequence[FramedPrompt], *, several: bool = False
    ) -> list[SlicePrediction]:
        """Return what is found for prompts that are in the network's frame already; else as `predict`."""
        if not prompts:
            return []
        embedding = self.embedding(image, self.contract.image)
        found: dict[int, SlicePrediction] = {}
        for indices in _groups(prompts):
            answer = self._decode({**embedding, **self._request([prompts[index] for index in indices])})
            masks, iou = answer["masks"], answer["iou_predictions"]
            if not (np.isfinite(masks).all() and np.isfinite(iou).all()):
                raise InferenceFailed(
                    "the decoder answered with values that are no numbers; check the model and what it is served by",
                    code="logits-not-finite",
                )
            for index, logits, guess in zip(indices, masks, iou, strict=True):
                found[index] = self._prediction(logits, guess, image.shape, several=several)
        return [found[index] for index in range(len(prompts))]

    def embedding(self, image: NDArray[np.uint8], shown_as: ImageContract) -> Tensors:
        """Return what the encoder gives for a slice, (rows, columns), that is brought to it as `shown_as` says."""
        key = embedding_key(image, self._encoder_digest, shown_as)
        return self._cache.get(key, lambda: self._encode(network_image(image, shown_as)))

    def _request(self, prompts: Sequence[FramedPrompt]) -> dict[str, NDArray[np.float32]]:
        side = self.contract.logits.size
        former = np.zeros((len(prompts), 1, side, side), np.float32)
        for place, prompt in zip(former, prompts, strict=True):
            if prompt.logits is not None:
                place[0] = prompt.logits
        return {
            "point_coords": np.stack([prompt.coords for prompt in prompts]),
            "point_labels": np.stack([prompt.labels for prompt in prompts]),
            "mask_input": former,
            "has_mask_input": np.array([prompt.logits is not None for prompt in prompts], np.float32),
        }

    def _prediction(
        self, logits: NDArray[np.float32], iou: NDArray[np.float32], shape: tuple[int, ...], *, several: bool
    ) -> SlicePrediction:
        if several:
            chosen = slice(1, None)
        else:
            first = single(logits, iou, _STABILITY) if self.contract.logits.single == "stable" else 0
            chosen = slice(first, first + 1)
        kept = logits[chosen]
        masks = on_image(kept, shape[0], shape[1], self.contract) > self.contract.logits.threshold
        if self.contract.family == "sam2":
            kept = np.clip(kept, -_SAM2_BOUND, _SAM2_BOUND)
        return SlicePrediction(masks, iou[chosen].copy(), kept.copy())


def _groups(prompts: Sequence[FramedPrompt]) -> Iterator[list[int]]:
    """Indices of prompts that may go into one request: with equally many points, and `MOST_AT_ONCE` at most."""
    by_length: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt.labels), []).append(index)
    for indices in by_length.values():
        for start in range(0, len(indices), MOST_AT_ONCE):
            yield indices[start : start + MOST_AT_ONCE]
