"""What of the network the encoder's and the decoder's graph compute, beside `operators.sam.package`.

``image_embeddings`` hold the part that stands for having no memory, so that they go into the decoder as they are; the
graphs that remember take it off again. What depends on the size of the image alone is made a constant.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_ATTENDING = 256
"""Queries in one piece of an attention: its scores are what fills the memory where it is run."""


def attention(query: Tensor, key: Tensor, value: Tensor, **_none: Any) -> Tensor:
    """Return scaled dot-product attention (…, queries, channels), computed for some queries after the others."""
    scaled = query * (1.0 / math.sqrt(query.shape[-1]))
    keys = key.transpose(-2, -1)
    pieces = [torch.softmax(piece @ keys, dim=-1) @ value for piece in _pieces(scaled)]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=-2)


def _pieces(query: Tensor) -> Iterator[Tensor]:
    count = int(query.shape[-2])
    for start in range(0, count, MOST_ATTENDING):
        yield query if count <= MOST_ATTENDING else query[..., start : min(start + MOST_ATTENDING, count), :]


class Encoder(nn.Module):
    """From ``image`` (1, 3, S, S) to ``image_embeddings`` (1, C, h, w) and the features of two finer levels."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.encoder, self.decoder = network.image_encoder, network.sam_mask_decoder
        self.no_memory = nn.Parameter(network.no_mem_embed.reshape(1, -1, 1, 1))
        side = network.image_size // 4
        with torch.no_grad():
            positions = self.encoder.trunk._get_pos_embed((side, side))
        self.register_buffer("positions", positions)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the embeddings, then the finest level and the one between."""
        trunk, neck = self.encoder.trunk, self.encoder.neck
        values = trunk.patch_embed(image) + self.positions
        levels = []
        for number, block in enumerate(trunk.blocks):
            values = block(values)
            if number in trunk.stage_ends:
                levels.append(values.permute(0, 3, 1, 2))
        fine, middle, coarse, coarsest = (conv(level) for conv, level in zip(reversed(neck.convs), levels, strict=True))
        embeddings = coarse + nn.functional.interpolate(coarsest, scale_factor=2.0, mode=neck.fpn_interp_model)
        return embeddings + self.no_memory, self.decoder.conv_s0(fine), self.decoder.conv_s1(middle)


class Decoder(nn.Module):
    """From one slice's features and n prompts to four masks for each, and what is remembered of the object."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.prompts, self.decoder = network.sam_prompt_encoder, network.sam_mask_decoder
        self.pointers, self.no_pointer = network.obj_ptr_proj, network.no_obj_ptr
        self.size = network.image_size
        with torch.no_grad():
            positions = self.prompts.get_dense_pe()
        self.register_buffer("positions", positions)

    def forward(
        self,
        image_embeddings: Tensor,
        high_res_0: Tensor,
        high_res_1: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return masks (n, 4, L, L), their qualities (n, 4), pointers (n, 4, C), and the object's presence (n, 1)."""
        tokens = torch.cat([self._own_tokens(point_coords), self._points(point_coords, point_labels)], dim=1)
        answers, image = self.decoder.transformer(
            image_embeddings + self._mask(mask_input, has_mask_input), self.positions, tokens
        )
        presence = self.decoder.pred_obj_score_head(answers[:, 0])
        masks = self._masks(answers[:, 2:6], image, high_res_0, high_res_1)
        seen = (presence > 0).to(answers.dtype)[:, None]
        pointers = seen * self.pointers(answers[:, 2:6]) + (1 - seen) * self.no_pointer
        return masks, self.decoder.iou_prediction_head(answers[:, 1]), pointers, presence

    def _own_tokens(self, coordinates: Tensor) -> Tensor:
        decoder = self.decoder
        own = torch.cat([decoder.obj_score_token.weight, decoder.iou_token.weight, decoder.mask_tokens.weight])
        return own[None].expand(coordinates.shape[0], -1, -1)

    def _points(self, coordinates: Tensor, labels: Tensor) -> Tensor:
        """Embed points (n, p, 2) by what their labels (n, p) say."""
        encoded = self.prompts.pe_layer._pe_encoding((coordinates + 0.5) / self.size)
        kinds = labels[..., None]
        encoded = torch.where(kinds == -1, self.prompts.not_a_point_embed.weight, encoded)
        for kind, embedding in enumerate(self.prompts.point_embeddings):
            encoded = encoded + (kinds == kind).to(encoded.dtype) * embedding.weight
        return encoded

    def _mask(self, mask: Tensor, has_mask: Tensor) -> Tensor:
        has = has_mask.reshape(-1, 1, 1, 1)
        none = self.prompts.no_mask_embed.weight.reshape(1, -1, 1, 1)
        return has * self.prompts.mask_downscaling(mask) + (1 - has) * none

    def _masks(self, tokens: Tensor, image: Tensor, fine: Tensor, middle: Tensor) -> Tensor:
        side = self.size // 16
        first, norm, act, second, last = self.decoder.output_upscaling
        values = image.transpose(1, 2).reshape(-1, image.shape[-1], side, side)
        values = last(second(act(norm(first(values) + middle))) + fine)
        weights = [mlp(tokens[:, number]) for number, mlp in enumerate(self.decoder.output_hypernetworks_mlps)]
        length = self.size // 4
        masks = torch.stack(weights, dim=1) @ values.flatten(2)
        return masks.reshape(-1, len(weights), length, length)
