"""The parity gate of SAM 2: each graph against the reference's own functions, on seeded inputs of every kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from app.errors import ImportRefused
from app.exporters.onnx_graphs import open_session
from app.exporters.parity import SEED, Array
from operators.sam.contract import Contract
from operators.sam.memory_bank import MemoryBank, Remembered, lengthened, shortened
from operators.sam.memory_contract import read_memory_contract
from operators.sam.package import DECODER, ENCODER, MEMORY_ATTENTION, MEMORY_ENCODER

MOST_RELATIVE_ERROR = 1e-3
"""Of an output's largest value. Nothing here is normalised over a whole image, so far less strays than in nnU-Net: some
1e-6 of untrained networks, and 1e-2 where a memory is taken for its neighbour."""
_SLICES = 40
_FOLLOWED = {"one slice behind": 1, "three slices behind": 3, "twenty slices behind": 20}
_PROMPTS = {
    "a box": [[2, 3, -1]],
    "a point": [[1, -1]],
    "three boxes with a point": [[2, 3, 1, -1], [2, 3, 0, -1], [2, 3, 1, -1]],
    "nothing": [[-1, -1]],
}


@dataclass(frozen=True)
class Case:
    """One request to a part, and what the reference answers."""

    part: str
    kind: str
    inputs: Mapping[str, Array]
    expected: Mapping[str, Array]


@dataclass(frozen=True)
class Figures:
    """How one case fared."""

    kind: str
    largest_error: float
    relative_error: float
    """As a share of the largest value of the same output."""


def judge_graphs(
    network: Any,
    contract: Contract,
    graphs: Mapping[str, Path],
    keep: Callable[[Case], None] = lambda _case: None,
) -> dict[str, list[Figures]]:
    """Compare each part's graph with the reference, and return the figures of each case by part.

    Parameters
    ----------
    network
        The reference's, in evaluation.
    contract
        With the ``memory`` that belongs to the network.
    keep
        Told each case.

    Raises
    ------
    ImportRefused
        ``parity-refused``, naming the part, the case and the output.
    """
    sessions = {part: open_session(path) for part, path in graphs.items()}
    figures: dict[str, list[Figures]] = {part: [] for part in graphs}
    with torch.inference_mode():
        for case in reference_cases(network, contract):
            keep(case)
            names = list(case.expected)
            answers = sessions[case.part].run(names, dict(case.inputs))
            figures[case.part].append(_judged(case, dict(zip(names, answers, strict=True))))
    return figures


def _judged(case: Case, found: Mapping[str, Array]) -> Figures:
    largest = relative = 0.0
    for name, expected in case.expected.items():
        error = float(np.abs(found[name] - expected).max()) if found[name].shape == expected.shape else np.inf
        share = error / max(float(np.abs(expected).max()), 1e-6)
        if not share <= MOST_RELATIVE_ERROR:  # not a number is refused too
            raise ImportRefused(
                f"the graph of the {case.part} does not compute what was trained, and nothing is published. With "
                f"{case.kind}, {name} is off by {error:.3g}, {share:.2g} of its largest value where "
                f"{MOST_RELATIVE_ERROR:g} is allowed",
                code="parity-refused",
            )
        largest, relative = max(largest, error), max(relative, share)
    return Figures(case.kind, largest, relative)


def reference_cases(network: Any, contract: Contract) -> Iterator[Case]:
    """Yield requests to each part, with the reference's own answers."""
    random = np.random.default_rng(SEED)
    features = _features(network, random)
    yield Case(ENCODER, "an image", {"image": features.pop("image")}, dict(features))
    for kind, labels in _PROMPTS.items():
        yield _decoder_case(network, kind, np.array(labels, np.float32), features, random)
    memories = []
    for prompted in (True, False):
        for presence in (4.0, -4.0):
            case = _memory_encoder_case(network, features, presence, random, prompted=prompted)
            memories.append(case.expected["memories"][0])
            yield case
    for kind, index in _FOLLOWED.items():
        yield _attention_case(network, contract, kind, index, features, memories, random)


def _features(network: Any, random: np.random.Generator) -> dict[str, Array]:
    """An image, and what the reference's encoder gives for it; as the image predictor has it, without memory."""
    side = network.image_size // 8
    coarse = torch.from_numpy(random.standard_normal((1, 3, side, side), np.float32))
    image = nn.functional.interpolate(coarse, scale_factor=8, mode="bicubic")
    fine, middle, embeddings = network.forward_image(image)["backbone_fpn"]
    embeddings = embeddings + network.no_mem_embed.reshape(1, -1, 1, 1)
    answers = {"image": image, "image_embeddings": embeddings, "high_res_0": fine, "high_res_1": middle}
    return {name: value.numpy() for name, value in answers.items()}


def _decoder_case(
    network: Any, kind: str, labels: Array, features: Mapping[str, Array], random: np.random.Generator
) -> Case:
    count, side = len(labels), network.image_size // 4
    given = np.arange(count) % 2 == 1  # of three prompts, the second brings a mask
    coordinates = random.uniform(0, network.image_size, (*labels.shape, 2)).astype(np.float32)
    masks = random.normal(0, 5, (count, 1, side, side)).astype(np.float32)
    answers = [
        _decoded(network, features, coordinates[one], labels[one], masks[one] if given[one] else None)
        for one in range(count)
    ]
    inputs = {
        **features,
        "point_coords": coordinates,
        "point_labels": labels,
        "mask_input": masks,
        "has_mask_input": given.astype(np.float32),
    }
    return Case(DECODER, kind, inputs, {name: np.concatenate([one[name] for one in answers]) for name in answers[0]})


def _decoded(
    network: Any, features: Mapping[str, Array], coordinates: Array, labels: Array, mask: Array | None
) -> dict[str, Array]:
    """The reference's answer to one prompt; it puts the last point, which is padding, there itself."""
    points = torch.from_numpy(coordinates[None, :-1]), torch.from_numpy(labels[None, :-1])
    sparse, dense = network.sam_prompt_encoder(points, None, None if mask is None else torch.from_numpy(mask[None]))
    masks, qualities, tokens, presence = network.sam_mask_decoder.predict_masks(
        image_embeddings=torch.from_numpy(features["image_embeddings"]),
        image_pe=network.sam_prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        repeat_image=False,
        high_res_features=[torch.from_numpy(features[name]) for name in ("high_res_0", "high_res_1")],
    )
    seen = (presence > 0).float()[..., None]
    pointers = seen * network.obj_ptr_proj(tokens) + (1 - seen) * network.no_obj_ptr
    answers = {
        "masks": masks,
        "iou_predictions": qualities,
        "object_pointers": pointers,
        "object_score_logits": presence,
    }
    return {name: value.numpy() for name, value in answers.items()}


def _memory_encoder_case(
    network: Any, features: Mapping[str, Array], presence: float, random: np.random.Generator, *, prompted: bool
) -> Case:
    side, size = network.image_size // 4, (network.image_size,) * 2
    masks = random.normal(0, 5, (1, 1, side, side)).astype(np.float32)
    score = np.full((1, 1), presence, np.float32)
    large = nn.functional.interpolate(torch.from_numpy(masks), size, mode="bilinear", align_corners=False)
    values, _ = network._encode_new_memory(*_current(network, features), large, torch.from_numpy(score), prompted)
    return Case(
        MEMORY_ENCODER,
        f"a mask that is {'shown' if prompted else 'found'}, the object {'there' if presence > 0 else 'absent'}",
        {
            "image_embeddings": features["image_embeddings"],
            "masks": masks,
            "object_score_logits": score,
            "is_prompted": np.full(1, prompted, np.float32),
        },
        {"memories": values.flatten(2).transpose(1, 2).numpy()},
    )


def _current(network: Any, features: Mapping[str, Array]) -> tuple[list[Tensor], list[tuple[int, int]]]:
    """An encoder's answer as the reference passes it on: tokens, and the size of their grid."""
    embeddings = torch.from_numpy(features["image_embeddings"]) - network.no_mem_embed.reshape(1, -1, 1, 1)
    return [embeddings.flatten(2).permute(2, 0, 1)], [(embeddings.shape[2], embeddings.shape[3])]


def _attention_case(
    network: Any,
    contract: Contract,
    kind: str,
    index: int,
    features: Mapping[str, Array],
    memories: list[Array],
    random: np.random.Generator,
) -> Case:
    pointers = random.standard_normal((index, network.hidden_dim)).astype(np.float32)
    left = [Remembered(shortened(memories[number % len(memories)]), pointers[number]) for number in range(index)]
    bank = MemoryBank(read_memory_contract(contract.memory or {}), {0: left[0]}, _SLICES, backwards=False)
    for number in range(1, index):
        bank.add(number, left[number])
    recalled = bank.recall(index)
    return Case(
        MEMORY_ATTENTION,
        kind,
        {
            "image_embeddings": features["image_embeddings"],
            "memories": recalled.memories[None],
            "memory_steps": recalled.steps[None],
            "pointers": recalled.pointers[None],
            "pointer_distances": recalled.distances[None],
        },
        {"conditioned_embeddings": _conditioned(network, features, index, left)},
    )


def _conditioned(network: Any, features: Mapping[str, Array], index: int, left: list[Remembered]) -> Array:
    tokens, sizes = _current(network, features)
    grid = (1, network.mem_dim, *sizes[0])
    outputs = {
        number: {
            "maskmem_features": torch.from_numpy(lengthened(one.memory)).T.reshape(grid),
            "maskmem_pos_enc": [network.memory_encoder.position_encoding(torch.zeros(grid))],
            "obj_ptr": torch.from_numpy(one.pointer[None]),
        }
        for number, one in enumerate(left)
    }
    positions = network.image_encoder.neck.position_encoding(torch.from_numpy(features["image_embeddings"]))
    answer: Array = network._prepare_memory_conditioned_features(
        index,
        False,
        tokens,
        [positions.flatten(2).permute(2, 0, 1)],
        sizes,
        {"cond_frame_outputs": {0: outputs.pop(0)}, "non_cond_frame_outputs": outputs},
        _SLICES,
    ).numpy()
    return answer
