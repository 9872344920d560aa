"""The parity gate between torch and ONNX Runtime for networks of the SAM family. Runs in the exporter environment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from app.exporters.onnx_graphs import ask, open_session
from app.exporters.parity import Array
from app.exporters.sam.cases import NO_PROMPT, Question, fixed_images, questions, tokens
from app.exporters.sam.kept import keep_case
from app.exporters.sam.parity import NEAR, Case, judge
from operators.sam.contract import Contract

if TYPE_CHECKING:
    import torch


def encoder_cases(network: Any, contract: Contract) -> Iterator[Case]:
    """Yield the fixed images and torch's embeddings of them."""
    import torch

    for name, image in fixed_images(contract).items():
        with torch.inference_mode():
            embedding = network.image_encoder(torch.from_numpy(image[None])).numpy()
        yield Case(NO_PROMPT, name, {"image": image[None]}, {"image_embeddings": embedding})


def decoder_cases(network: Any, contract: Contract, embeddings: Mapping[str, Array]) -> Iterator[Case]:
    """Yield every question about the fixed images, and the network's own answer."""
    for question in questions(contract):
        embedding = embeddings[question.image]
        masks = _masks_to_refine(network, question, embedding)
        coordinates, labels = tokens(question, contract.prompts)
        yield Case(
            question.kind,
            question.image,
            {
                "image_embeddings": embedding,
                "point_coords": coordinates,
                "point_labels": labels,
                "mask_input": masks,
                "has_mask_input": np.array(question.refined, np.float32),
            },
            _answer(network, question, embedding, masks),
        )


def judge_encoder(what: str, graph: Path, cases: list[Case]) -> list[dict[str, Any]]:
    """Compare the encoder's graph with torch.

    Raises
    ------
    ImportRefused
        ``parity-refused``.
    """
    return judge(what, cases, partial(ask, open_session(graph)), NEAR, has_masks=False)


def judge_decoder(
    what: str, graph: Path, network: Any, contract: Contract, embeddings: Mapping[str, Array], kept: Path | None
) -> list[dict[str, Any]]:
    """Compare the decoder's graph with torch, question by question.

    Parameters
    ----------
    kept
        Where the questions and torch's answers are written for a later comparison.

    Raises
    ------
    ImportRefused
        ``parity-refused``, naming the kind of prompt and, if it is found out, what the decoder does otherwise.
    """

    def cases() -> Iterator[Case]:
        for case in decoder_cases(network, contract, embeddings):
            if kept is not None:
                keep_case(case, kept)
            yield case

    return judge(what, cases(), partial(ask, open_session(graph)), NEAR, has_masks=True, explain=partial(_why, network))


def _masks_to_refine(network: Any, question: Question, embedding: Array) -> Array:
    """The network's first answer to the same prompts, where they are to bring a mask; zeros where not."""
    side = network.prompt_encoder.mask_input_size
    masks = np.zeros((len(question.refined), 1, *side), np.float32)
    if any(question.refined):
        answered = _reference(network, embedding, question.points, question.boxes, None)["masks"]
        masks[list(question.refined)] = answered[list(question.refined), :1]
    return masks


def _answer(network: Any, question: Question, embedding: Array, masks: Array) -> dict[str, Array]:
    """The network's own answer: at once if no prompt brings a mask, else prompt by prompt, as it knows no mixture."""
    if not any(question.refined):
        return _reference(network, embedding, question.points, question.boxes, None)
    answers = []
    for number, refined in enumerate(question.refined):
        this = slice(number, number + 1)
        points = None if question.points is None else (question.points[0][this], question.points[1][this])
        boxes = None if question.boxes is None else question.boxes[this]
        answers.append(_reference(network, embedding, points, boxes, masks[this] if refined else None))
    return {name: np.concatenate([one[name] for one in answers]) for name in answers[0]}


def _reference(
    network: Any, embedding: Array, points: tuple[Array, Array] | None, boxes: Array | None, masks: Array | None
) -> dict[str, Array]:
    import torch

    from app.exporters.sam.modules import reference

    def given(array: Array | None) -> torch.Tensor | None:
        return None if array is None else torch.from_numpy(array)

    marks = None if points is None else (given(points[0]), given(points[1]))
    answer, quality = reference(network, given(embedding), marks, given(boxes), given(masks))
    return {"masks": answer, "iou_predictions": quality}


def _why(network: Any, case: Case, found: Mapping[str, Array]) -> str | None:
    """What the decoder does otherwise, if it is one of two things that exports of this family are known to do."""
    masks, quality = case.expected["masks"], case.expected["iou_predictions"]
    answered = found.get("masks")
    if answered is None:
        return None
    if answered.shape == (len(masks), 1, *masks.shape[2:]):
        best = np.take_along_axis(masks[:, 1:], quality[:, 1:].argmax(1)[:, None, None, None], axis=1)
        which = "the best of three" if _alike(answered, best) else "one"
        return f"it chooses among the masks itself and answers {which} (return_single_mask); all of them must come out"
    if answered.shape != masks.shape:
        return "it brings masks to another size, as for an image of one aspect ratio; they must come out as they are"
    if _alike(answered, _padded(network, case)["masks"]):
        return "it agrees if one more point of padding is put to the prompt: it adds one itself"
    return None


def _padded(network: Any, case: Case) -> dict[str, Array]:
    """What torch says of the same tokens and one more of padding, given as they are."""
    import torch

    from app.exporters.sam.modules import Decoder

    inputs = {name: torch.from_numpy(value) for name, value in case.inputs.items()}
    coordinates, labels = inputs["point_coords"], inputs["point_labels"]
    inputs["point_coords"] = torch.cat([coordinates, torch.zeros_like(coordinates[:, :1])], dim=1)
    inputs["point_labels"] = torch.cat([labels, -torch.ones_like(labels[:, :1])], dim=1)
    with torch.inference_mode():
        masks, quality = Decoder(network)(**inputs)
    return {"masks": masks.numpy(), "iou_predictions": quality.numpy()}


def _alike(one: Array, other: Array) -> bool:
    return bool(np.abs(one - other).max() <= (NEAR.logit_error or 0) * max(float(np.ptp(other)), 1e-6))
