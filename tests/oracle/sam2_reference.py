"""The reference implementation of SAM 2 on untrained networks, and the same by our graphs and numpy."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from PIL import Image
from sam2.sam2_image_predictor import SAM2ImagePredictor
from sam2.sam2_video_predictor import SAM2VideoPredictor
from sam2.utils.misc import load_video_frames

from app.exporters.sam2.exporting import mask_prompt_of, write_graphs
from app.exporters.sam2.networks import build_network
from operators.sam.contract import Contract, read_contract
from operators.sam.mask_prompts import mask_in_square
from operators.sam.memory import Features, Followed, Shown, ShownMask, ShownPoints, follow
from operators.sam.package import ENCODER

Array = NDArray[np.float32]
VARIANTS = Path(__file__).resolve().parents[2] / "app/exporters/sam_variants"
TINY_ENCODER = {
    "type": "hiera",
    "size": 128,
    "width": 16,
    "heads": 1,
    "depths": [1, 2, 2, 1],
    "windows": [8, 4, 4, 2],
    "global_blocks": [4],
    "background": [7, 7],
}


def variant(name: str, encoder: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A variant's file, with another encoder if one is given."""
    content: dict[str, Any] = json.loads((VARIANTS / f"{name}.json").read_text(encoding="utf-8"))
    if encoder is not None:
        content["architecture"]["encoder"] = dict(encoder)
        content["contract"]["image"]["size"] = content["contract"]["prompts"]["size"] = encoder["size"]
        content["contract"]["logits"]["size"] = encoder["size"] // 4
    return content


def untrained(architecture: Mapping[str, Any], seed: int) -> SAM2VideoPredictor:
    """The reference's predictor with random weights, those that start at zero and hardly matter among them."""
    torch.manual_seed(seed)
    network = build_network(architecture, SAM2VideoPredictor, fill_hole_area=0)
    with torch.no_grad():
        for name, value in network.named_parameters():
            if name.endswith(("pos_embed", "pos_embed_window", "gamma")):
                value.normal_(std=0.2)
            elif name.endswith(("no_obj_ptr", "no_obj_embed_spatial", "maskmem_tpos_enc", "no_mem_embed")):
                value.mul_(25)
            elif name.endswith("weight") and value.ndim > 1:
                value.mul_(3**0.5)  # torch's own start lets what goes in fade, layer by layer
    return network


@dataclass
class Ours:
    """What an import makes of a network, and how it is asked."""

    contract: Contract
    sessions: Mapping[str, onnxruntime.InferenceSession]

    @classmethod
    def of(cls, network: Any, content: Mapping[str, Any], folder: Path) -> Ours:
        signatures = write_graphs(network, lambda part: folder / part / "model.onnx")
        filled = copy.deepcopy(dict(content["contract"]))
        filled["memory"]["mask_prompt"] = mask_prompt_of(network)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = torch.get_num_threads()
        sessions = {
            part: onnxruntime.InferenceSession(
                folder / part / "model.onnx", options, providers=["CPUExecutionProvider"]
            )
            for part in signatures
        }
        # as the manifest has it: text between
        return cls(read_contract(json.loads(json.dumps({**filled, "licence": content["licence"]}))), sessions)

    def infer(self, part: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        session = self.sessions[part]
        names = [one.name for one in session.get_outputs()]
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))

    def encode(self, image: Array) -> dict[str, Array]:
        return self.infer(ENCODER, {"image": image[None]})

    def follow(
        self, images: Array, objects: Sequence[Mapping[int, Shown]]
    ) -> Iterator[tuple[int, dict[int, Followed]]]:
        def features_of(index: int) -> Features:
            return self.encode(images[index])

        return follow(self.infer, self.contract, len(images), features_of, objects)


def draw_frames(folder: Path, count: int, rows: int, columns: int, seed: int) -> None:
    """A blurred disc that wanders over noise, as the files that the reference reads."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    y, x = np.mgrid[:rows, :columns]
    for number in range(count):
        distance = np.hypot(y - rows * (0.4 + 0.01 * number), x - columns * (0.5 - 0.01 * number)) / rows
        values = 120 / (1 + np.exp((distance - 0.2) * 40)) + random.normal(90, 12, (rows, columns))
        pixels = np.repeat(values.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
        Image.fromarray(pixels).save(folder / f"{number:05}.jpg", quality=95)


def frames_of(folder: Path, size: int) -> Array:
    """What the reference shows its encoder of each frame: (n, 3, size, size)."""
    images, _, _ = load_video_frames(str(folder), size, offload_video_to_cpu=True, compute_device=torch.device("cpu"))
    values: Array = images.numpy()
    return values


def follow_by_reference(
    predictor: SAM2VideoPredictor, folder: Path, prompts: Mapping[int, Mapping[str, Any]]
) -> dict[int, tuple[Array, float]]:
    """By frame, the logits of one object at the decoder's size and its presence: forwards, then anew backwards.

    Parameters
    ----------
    prompts
        By frame, what is shown there, as the predictor takes it.
    """
    found: dict[int, tuple[Array, float]] = {}
    for reverse in (True, False):
        state = predictor.init_state(str(folder), offload_video_to_cpu=True)
        for index, prompt in prompts.items():
            add = predictor.add_new_mask if "mask" in prompt else predictor.add_new_points_or_box
            add(state, frame_idx=index, obj_id=1, **prompt)
        for _ in predictor.propagate_in_video(state, reverse=reverse):
            pass
        outputs = state["output_dict_per_obj"][0]
        for index, out in {**outputs["non_cond_frame_outputs"], **outputs["cond_frame_outputs"]}.items():
            found[index] = out["pred_masks"][0, 0].numpy(), float(out["object_score_logits"])
    return found


def let_objects_be(network: Any, presence: float) -> None:
    """Add to what decides whether the object is there."""
    with torch.no_grad():
        network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.add_(presence)


def image_predictor(network: Any) -> SAM2ImagePredictor:
    """The reference's predictor of single images; the sizes of its features are written into it for 1024 pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that it compiles its transforms in a way of yesterday
        predictor = SAM2ImagePredictor(network)
    predictor._bb_feat_sizes = [(network.image_size // step,) * 2 for step in (4, 8, 16)]
    return predictor


def shown(prompt: Mapping[str, Any], rows: int, columns: int, size: int) -> Shown:
    """The same prompt as our side takes it."""
    if "mask" in prompt:
        return ShownMask(mask_in_square(prompt["mask"], size))
    corners = np.asarray(prompt.get("box", np.zeros(0)), np.float32).reshape(-1, 2)
    points = np.asarray(prompt.get("points", np.zeros((0, 2))), np.float32)
    labels = np.concatenate([[2, 3][: len(corners)], prompt.get("labels", [])]).astype(np.float32)
    coordinates = np.concatenate([corners, points]) / np.array([columns, rows], np.float32) * np.float32(size)
    return ShownPoints(coordinates.astype(np.float32), labels)
