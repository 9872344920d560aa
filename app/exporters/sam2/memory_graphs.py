"""What of the network the graphs that remember compute, beside `operators.sam.package`.

The reference turns queries and keys by complex numbers (rotary position encoding), which ONNX lacks; here each pair of
channels is turned by a cosine and a sine, which is the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from app.exporters.sam2.graphs import attention


class MemoryEncoder(nn.Module):
    """From a slice's embeddings and the mask found on it to what is remembered of it, token by token."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.encoder = network.memory_encoder
        self.size = network.image_size
        self.scale, self.offset = network.sigmoid_scale_for_mem_enc, network.sigmoid_bias_for_mem_enc
        self.no_memory = nn.Parameter(network.no_mem_embed.reshape(1, -1, 1, 1))
        absent = network.no_obj_embed_spatial
        # SAM 2 marks nothing; adding nothing keeps the input, and so the same requests fit all variants
        self.absent = torch.zeros(1, network.mem_dim) if absent is None else absent

    def forward(
        self, image_embeddings: Tensor, masks: Tensor, object_score_logits: Tensor, is_prompted: Tensor
    ) -> Tensor:
        """Return the memories (n, h * w, M) of n objects on one slice."""
        size = (self.size, self.size)
        large = nn.functional.interpolate(masks, size=size, mode="bilinear", align_corners=False)
        prompted = is_prompted.reshape(-1, 1, 1, 1)
        shown = prompted * (large > 0).to(large.dtype) + (1 - prompted) * torch.sigmoid(large)
        values = self.encoder.mask_downsampler(shown * self.scale + self.offset)
        values = values + self.encoder.pix_feat_proj(image_embeddings - self.no_memory)
        memories = self.encoder.out_proj(self.encoder.fuser(values)).flatten(2).transpose(1, 2)
        missing = (object_score_logits <= 0).to(memories.dtype)[:, None]
        return memories + missing * self.absent


class MemoryAttention(nn.Module):
    """From a slice's embeddings and what is remembered of others to embeddings that know the object."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.layers, self.norm = network.memory_attention.layers, network.memory_attention.norm
        self.no_memory = nn.Parameter(network.no_mem_embed.reshape(1, -1, 1, 1))
        self.dates, self.steps = network.obj_ptr_tpos_proj, network.maskmem_tpos_enc
        self.is_dated = network.add_tpos_enc_to_obj_ptrs
        self.side = network.image_size // 16
        width, memory_width = network.hidden_dim, network.mem_dim
        self.split = width // memory_width
        with torch.no_grad():
            positions = network.image_encoder.neck.position_encoding(torch.zeros(1, width, self.side, self.side))
            places = network.memory_encoder.position_encoding(torch.zeros(1, memory_width, self.side, self.side))
        self.register_buffer("positions", positions.flatten(2).transpose(1, 2))
        self.register_buffer("places", places.flatten(2).transpose(1, 2))
        turns = self.layers[0].self_attn.freqs_cis
        self.register_buffer("cosines", turns.real.clone())
        self.register_buffer("sines", turns.imag.clone())

    def forward(
        self,
        image_embeddings: Tensor,
        memories: Tensor,
        memory_steps: Tensor,
        pointers: Tensor,
        pointer_distances: Tensor,
    ) -> Tensor:
        """Return the embeddings (1, C, h, w), conditioned on m memories and p pointers."""
        steps = self.steps.flatten(1)[memory_steps[0].to(torch.int64) - 1]
        memory_keys = memories[0] + self.places + steps[:, None]
        tokens = pointers.reshape(1, -1, memories.shape[-1])
        pointer_keys = tokens + self._dated(pointer_distances[0])
        values = torch.cat([memories.reshape(1, -1, memories.shape[-1]), tokens], dim=1)

        output = (image_embeddings - self.no_memory).flatten(2).transpose(1, 2) + 0.1 * self.positions
        for layer in self.layers:
            output = self._layer(layer, output, memory_keys, pointer_keys, values)
        return self.norm(output).transpose(1, 2).reshape(image_embeddings.shape)

    def _layer(self, layer: Any, output: Tensor, memory_keys: Tensor, pointer_keys: Tensor, values: Tensor) -> Tensor:
        own, cross = layer.self_attn, layer.cross_attn_image
        seen = layer.norm1(output)
        query, key = self._turned(own.q_proj(seen)), self._turned(own.k_proj(seen))
        output = output + own.out_proj(attention(query, key, own.v_proj(seen)))

        query = self._turned(cross.q_proj(layer.norm2(output)))
        # each memory lies on the slice's own grid and is turned as it; pointers lie nowhere
        turned = self._turned(cross.k_proj(memory_keys)).reshape(1, -1, query.shape[-1])
        key = torch.cat([turned, cross.k_proj(pointer_keys)], dim=1)
        output = output + cross.out_proj(attention(query, key, cross.v_proj(values)))

        return output + layer.linear2(layer.activation(layer.linear1(layer.norm3(output))))

    def _turned(self, values: Tensor) -> Tensor:
        """Turn each pair of channels (…, h * w, C) by the angle that its place has."""
        even, odd = values[..., 0::2], values[..., 1::2]
        turned = (even * self.cosines - odd * self.sines, even * self.sines + odd * self.cosines)
        return torch.stack(turned, dim=-1).flatten(-2)

    def _dated(self, distances: Tensor) -> Tensor:
        """Return what the pointers' tokens are given by their distances (p,): (1, tokens, M or 1)."""
        if not self.is_dated:
            # nothing, but made of the distances, so that the input stays
            return (0 * distances)[:, None].expand(-1, self.split).reshape(1, -1, 1)
        half = self.dates.in_features // 2
        periods = 10000 ** (2 * (torch.arange(half, dtype=torch.float32) // 2) / half)
        angles = distances[:, None] / periods
        dated = self.dates(torch.cat([angles.sin(), angles.cos()], dim=-1))
        return dated[:, None].expand(-1, self.split, -1).reshape(1, -1, dated.shape[-1])
