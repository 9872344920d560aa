"""A variant's contract for tests, and networks that a test can follow by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from operators.model_folder import file_digest, weights_files
from operators.model_manifest import FORMAT, MANIFEST_FILE
from operators.sam.contract import Contract, read_contract
from operators.sam.embeddings import EmbeddingCache
from operators.sam.predictor import SlicePredictor, Tensors

SIDE = 64
FIXTURES = Path(__file__).parent / "fixtures" / "sam"
"""Networks that Triton serves: `tests/fixtures/sam/make_models.py` says what they compute."""


def contract_content(**changes: dict[str, Any]) -> dict[str, Any]:
    """A manifest's ``contract``, as SAM's but for its size; `changes` by section."""
    content: dict[str, Any] = {
        "family": "sam",
        "image": {
            "size": SIDE,
            "fit": "longest-side",
            "resampling": "pillow-bilinear",
            "order": "resample-first",
            "intensity": "unit",
            "mean": [0, 0, 0],
            "deviation": [1, 1, 1],
        },
        "prompts": {
            "kinds": ["box", "points", "mask"],
            "size": SIDE,
            "rounding": "none",
            "box": "last",
            "padding": "without-box",
        },
        "logits": {
            "size": SIDE,
            "path": "through-input",
            "threshold": 0.0,
            "sigmoid": False,
            "single": "first",
            "several": True,
        },
        "memory": None,
        "licence": "Apache-2.0",
    }
    for section, change in changes.items():
        content[section] = {**content[section], **change} if isinstance(content[section], dict) else change
    return content


def contract(**changes: Any) -> Contract:
    """It, read."""
    return read_contract(contract_content(**changes))


class BrightInBox:
    """Networks that find what is bright within the box they are shown, or around the points. They note what is asked.

    Mask k of the four is found above 0.5 + k / 10, and thought to be as good as k / 4.
    """

    def __init__(self) -> None:
        self.encoded = 0
        self.requests: list[Tensors] = []

    def encode(self, image: NDArray[np.float32]) -> Tensors:
        self.encoded += 1
        return {"image_embeddings": image[:, :1].copy()}

    def decode(self, request: Tensors) -> Tensors:
        self.requests.append(request)
        picture = request["image_embeddings"][0, 0]
        masks = []
        for coords, labels in zip(request["point_coords"], request["point_labels"], strict=True):
            inside = np.zeros(picture.shape, bool)
            if (labels == 2).any():
                (left, top), (right, bottom) = coords[labels == 2][0], coords[labels == 3][0]
                inside[int(top) : int(np.ceil(bottom)) + 1, int(left) : int(np.ceil(right)) + 1] = True
            for x, y in coords[labels == 1]:
                inside[max(0, int(y) - 6) : int(y) + 7, max(0, int(x) - 6) : int(x) + 7] = True
            masks.append([np.where(inside, picture - 0.5 - k / 10, -1) for k in range(4)])
        quality = np.tile(np.arange(4) / 4, (len(masks), 1)).astype(np.float32)
        return {"masks": np.array(masks, np.float32), "iou_predictions": quality}


def bright_predictor(networks: BrightInBox, folder: Path, **changes: Any) -> SlicePredictor:
    """A predictor over them, of `contract` with `changes`."""
    cache = EmbeddingCache(folder, most_bytes=1 << 24)
    return SlicePredictor(contract(**changes), networks.encode, networks.decode, cache, encoder_digest="ab" * 32)


class BrightBesideRemembered(BrightInBox):
    """They find what is bright beside what was found on a remembered slice, up to `REACH` pixels further."""

    REACH = 3

    def infer(self, part: str, inputs: Tensors) -> Tensors:
        answer: Tensors = getattr(self, part)(inputs)
        return answer

    def encoder(self, inputs: Tensors) -> Tensors:
        return self.encode(inputs["image"])

    def decoder(self, inputs: Tensors) -> Tensors:
        if (inputs["point_labels"] == -1).all():  # nothing is shown: all that the memory lets through
            whole = np.array([[[0, 0], [SIDE, SIDE]]], np.float32)
            inputs = {**inputs, "point_coords": whole, "point_labels": np.array([[2, 3]], np.float32)}
        answer = self.decode(inputs)
        is_there = (answer["masks"] > 0).any()
        return {
            **answer,
            "object_pointers": np.zeros((1, 4, 16), np.float32),
            "object_score_logits": np.full((1, 1), 1.0 if is_there else -1.0, np.float32),
        }

    def memory_encoder(self, inputs: Tensors) -> Tensors:
        return {"memories": (inputs["masks"] > 0).astype(np.float32).reshape(1, SIDE * SIDE, 1)}

    def memory_attention(self, inputs: Tensors) -> Tensors:
        known = inputs["memories"].max(axis=(0, 1)).reshape(SIDE, SIDE) > 0
        near = binary_dilation(known, np.ones((3, 3), bool), iterations=self.REACH)
        return {"conditioned_embeddings": np.where(near, inputs["image_embeddings"], 0)}


MEMORY: dict[str, Any] = {
    "resampling": "pillow-bicubic",
    "memories": 2,
    "pointers": 2,
    "several": [0, 1],
    "stability": {"delta": 0.0, "threshold": 0.0},
    "mask_prompt": {"kernel": [[1.0]], "bias": 0.0, "no_memory": [0.0]},
}


def remembering_predictor(
    networks: BrightBesideRemembered, folder: Path, *, memory: dict[str, Any] = MEMORY, **changes: Any
) -> SlicePredictor:
    """A predictor of a variant with a memory over them, of `contract` with `changes`."""
    return SlicePredictor(
        contract(memory=memory, logits={"path": "direct"}, image={"fit": "square"}, **changes),
        networks.encode,
        networks.decode,
        EmbeddingCache(folder, most_bytes=1 << 24),
        encoder_digest="ab" * 32,
        infer=networks.infer,
    )


def put_generalist(repository: Path, name: str, **changes: Any) -> None:
    """Put the fixture's served networks into `repository` as a generalist with `contract_content(**changes)`."""
    networks = {}
    for part, model, source in (
        ("encoder", name, "limner_sam"),
        ("decoder", f"{name}_decoder", "limner_sam_decoder"),
    ):
        folder = repository / model
        shutil.copytree(FIXTURES / source, folder)
        configuration = folder / "config.pbtxt"
        configuration.write_text(configuration.read_text().replace(f'"{source}"', f'"{model}"'))
        networks[part] = {"model": model, "weights_sha256": file_digest(*weights_files(folder / "1"))}
    manifest = {
        "format": FORMAT,
        "family": "sam",
        "variant": "planted",
        "contract": contract_content(**changes),
        "networks": networks,
    }
    (repository / name / MANIFEST_FILE).write_text(json.dumps(manifest))
    (repository / name / "model_card.md").write_text(
        f'---\nname: {name}\nversion: "0.1"\nkind: generalist\nalgorithm_name: Planted generalist\n---\n'
    )
