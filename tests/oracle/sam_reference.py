"""Networks of the family in torch, behind the two functions that our predictor asks, and the variants' contracts."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything import SamPredictor
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

from operators.sam.contract import Contract, read_contract
from operators.sam.embeddings import EmbeddingCache
from operators.sam.predictor import SlicePredictor, Tensors
from operators.sam.prompts import SlicePrompt

SIDE, PATCH, WIDTH = 256, 16, 256
IMAGENET = {"mean": [123.675, 116.28, 103.53], "deviation": [58.395, 57.12, 57.375]}


def sam_contract(size: int = SIDE, logits: int = SIDE // 4) -> Contract:
    """SAM's own, at another size."""
    return read_contract(
        {
            "family": "sam",
            "image": {
                "size": size,
                "fit": "longest-side",
                "resampling": "pillow-bilinear",
                "order": "resample-first",
                "intensity": "byte",
                **IMAGENET,
            },
            "prompts": {
                "kinds": ["box", "points", "mask"],
                "size": size,
                "rounding": "none",
                "box": "last",
                "padding": "without-box",
            },
            "logits": {
                "size": logits,
                "path": "through-input",
                "threshold": 0.0,
                "sigmoid": False,
                "single": "first",
                "several": True,
            },
            "memory": None,
            "licence": "Apache-2.0",
        }
    )


def box_contract(
    *, size: int, logits: int, fit: str, resampling: str, rounding: str, path: str, threshold: float, sigmoid: bool
) -> Contract:
    """One of the MedSAMs': boxes only, values from the image's minimum to its maximum."""
    return read_contract(
        {
            "family": "sam",
            "image": {
                "size": size,
                "fit": fit,
                "resampling": resampling,
                "order": "resample-first",
                "intensity": "range",
                "mean": [0, 0, 0],
                "deviation": [1, 1, 1],
            },
            "prompts": {"kinds": ["box"], "size": size, "rounding": rounding, "box": "last", "padding": "without-box"},
            "logits": {
                "size": logits,
                "path": path,
                "threshold": threshold,
                "sigmoid": sigmoid,
                "single": "first",
                "several": False,
            },
            "memory": None,
            "licence": "Apache-2.0",
        }
    )


LITE_MEDSAM = box_contract(
    size=256,
    logits=256,
    fit="longest-side",
    resampling="area",
    rounding="floor",
    path="cropped",
    threshold=0.0,
    sigmoid=False,
)
MEDSAM = box_contract(
    size=SIDE,
    logits=SIDE // 4,
    fit="square",
    resampling="smoothed-cubic",
    rounding="none",
    path="direct",
    threshold=0.5,
    sigmoid=True,
)
"""At a smaller size than MedSAM's 1024."""


def tiny_sam(seed: int = 0) -> Sam:
    """SAM's own classes, small and untrained."""
    torch.manual_seed(seed)
    return Sam(
        image_encoder=ImageEncoderViT(
            depth=2,
            embed_dim=64,
            img_size=SIDE,
            mlp_ratio=4,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            num_heads=2,
            patch_size=PATCH,
            qkv_bias=True,
            use_rel_pos=True,
            global_attn_indexes=[1],
            window_size=14,
            out_chans=WIDTH,
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=WIDTH,
            image_embedding_size=(SIDE // PATCH,) * 2,
            input_image_size=(SIDE, SIDE),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(depth=2, embedding_dim=WIDTH, mlp_dim=256, num_heads=8),
            transformer_dim=WIDTH,
            iou_head_depth=3,
            iou_head_hidden_dim=256,
        ),
    ).eval()


class TorchNetworks:
    """An encoder and a decoder of torch as functions of arrays; counts what they are asked."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.encoded = 0
        self.decoded: list[int] = []

    def encode(self, image: NDArray[np.float32]) -> Tensors:
        self.encoded += 1
        with torch.no_grad():
            return {"image_embeddings": self.model.image_encoder(torch.from_numpy(image)).numpy()}

    def decode(self, request: Tensors) -> Tensors:
        given = {name: torch.from_numpy(np.array(array)) for name, array in request.items()}
        prompts, decoder = self.model.prompt_encoder, self.model.mask_decoder
        count = len(given["point_labels"])
        self.decoded.append(count)
        with torch.no_grad():
            masks, qualities = decoder.predict_masks(
                image_embeddings=given["image_embeddings"],
                image_pe=prompts.get_dense_pe(),
                sparse_prompt_embeddings=self._points(given["point_coords"], given["point_labels"]),
                dense_prompt_embeddings=self._masks(given["mask_input"], given["has_mask_input"]),
            )
        return {"masks": masks.numpy(), "iou_predictions": qualities.numpy()}

    def _points(self, coords: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Each point by its label, corners of boxes among them."""
        prompts = self.model.prompt_encoder
        embedded = prompts.pe_layer.forward_with_coords(coords + 0.5, prompts.input_image_size)
        embedded = torch.where((labels == -1)[..., None], prompts.not_a_point_embed.weight, embedded)
        for label, learnt in enumerate(prompts.point_embeddings):
            embedded = torch.where((labels == label)[..., None], embedded + learnt.weight, embedded)
        return embedded

    def _masks(self, former: torch.Tensor, has_former: torch.Tensor) -> torch.Tensor:
        prompts = self.model.prompt_encoder
        without = prompts.no_mask_embed.weight.reshape(1, -1, 1, 1)
        return torch.where(has_former.bool()[:, None, None, None], prompts.mask_downscaling(former), without)


class Remembered(torch.nn.Module):
    """An encoder that sees each image once: the script's and ours are one, to the last bit, or both are computed."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder
        self.seen: dict[bytes, torch.Tensor] = {}

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        key = image.contiguous().numpy().tobytes()
        if key not in self.seen:
            self.seen[key] = self.encoder(image)
        return self.seen[key]


def predictor_of(networks: TorchNetworks, contract: Contract, folder: Path) -> SlicePredictor:
    """Our predictor over networks of torch."""
    cache = EmbeddingCache(folder, most_bytes=1 << 28)
    return SlicePredictor(contract, networks.encode, networks.decode, cache, encoder_digest="0" * 64)


def reference_of(sam: Any, image: NDArray[np.uint8]) -> SamPredictor:
    """SAM's own predictor, shown a slice."""
    reference = SamPredictor(sam)
    reference.set_image(coloured(image))
    return reference


def asked_of_sam(reference: SamPredictor, prompt: SlicePrompt, *, several: bool) -> tuple[NDArray[Any], ...]:
    """Its logits on the slice, the quality it says they have, and its logits at the decoder's size."""
    arguments: dict[str, Any] = {}
    if prompt.box is not None:
        box = prompt.box
        arguments["box"] = np.array([box.left, box.top, box.right, box.bottom])
    if prompt.points:
        arguments["point_coords"] = np.array([[point.x, point.y] for point in prompt.points])
        arguments["point_labels"] = np.array([int(point.is_foreground) for point in prompt.points])
    if prompt.logits is not None:
        arguments["mask_input"] = prompt.logits[None]
    masks, iou, logits = reference.predict(**arguments, multimask_output=several, return_logits=True)
    return masks, iou, logits


def coloured(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(rows, columns, 3) with three equal channels."""
    return np.repeat(image[..., None], 3, axis=-1)


def drawn_slice(rows: int, columns: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth spots and some noise."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:rows, :columns]
    image = 40 + generator.normal(0, 6, (rows, columns))
    for _ in range(5):
        row, column, wide = generator.uniform(0, rows), generator.uniform(0, columns), generator.uniform(8, rows / 3)
        image += 90 * np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * wide**2))
    return np.clip(image, 0, 255).astype(np.uint8)
