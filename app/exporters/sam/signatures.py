"""What the two networks take and give, for Triton's configuration and for a handle on what it serves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from operators.tensors import Signature, TensorSpec

ENCODER_INPUTS, ENCODER_OUTPUTS = ("image",), ("image_embeddings",)
DECODER_INPUTS = ("image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input")
DECODER_OUTPUTS = ("masks", "iou_predictions")
_ANY = -1


@dataclass(frozen=True)
class Shapes:
    """The lengths that are fixed."""

    image: int
    """Side of the encoder's image."""
    width: int
    """Of the embedding."""
    grid: int
    """Side of the embedding."""
    mask: int
    """Side of the decoder's masks."""
    masks: int
    """Masks in an answer."""

    @property
    def encoder(self) -> Signature:
        """The encoder's inputs and outputs."""
        return _signature(
            {"image": (1, 3, self.image, self.image)},
            {"image_embeddings": (1, self.width, self.grid, self.grid)},
        )

    @property
    def decoder(self) -> Signature:
        """The decoder's inputs and outputs, n prompts of p points."""
        return _signature(
            {
                "image_embeddings": (1, self.width, self.grid, self.grid),
                "point_coords": (_ANY, _ANY, 2),
                "point_labels": (_ANY, _ANY),
                "mask_input": (_ANY, 1, self.mask, self.mask),
                "has_mask_input": (_ANY,),
            },
            {
                "masks": (_ANY, self.masks, self.mask, self.mask),
                "iou_predictions": (_ANY, self.masks),
            },
        )


def _signature(inputs: dict[str, tuple[int, ...]], outputs: dict[str, tuple[int, ...]]) -> Signature:
    single = np.dtype(np.float32)
    return Signature(
        {name: TensorSpec(single, shape) for name, shape in inputs.items()},
        {name: TensorSpec(single, shape) for name, shape in outputs.items()},
    )
