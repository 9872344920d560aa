"""What is put around and into a network of the SAM family so that it can be exported. Imported where torch is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from segment_anything.utils.onnx import SamOnnxModel
from torch import nn


class Encoder(nn.Module):
    """The image encoder alone; its weights keep the names that they have in a checkpoint."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.image_encoder = network.image_encoder

    def forward(self, image: Any) -> Any:
        """Return the embedding of a normalised image."""
        return self.image_encoder(image)


class Decoder(nn.Module):
    """Prompts to all masks at the decoder's own size; the weights keep the names that they have in a checkpoint.

    segment-anything's own way of asking for masks in a graph does the work. What it does beyond is left out: it brings
    masks to the image's size, which in version 1.0 keeps the aspect ratio of the image that was traced with, and it
    may choose a mask by the number of points, which is not what its predictor does.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.prompt_encoder = network.prompt_encoder
        self.mask_decoder = network.mask_decoder
        self._prompts = (SamOnnxModel(network, return_single_mask=False),)  # in a tuple: not a part with weights

    def forward(
        self, image_embeddings: Any, point_coords: Any, point_labels: Any, mask_input: Any, has_mask_input: Any
    ) -> tuple[Any, Any]:
        """Return masks (n, 4, L, L) and what the network says of their quality (n, 4)."""
        (prompts,) = self._prompts
        masks, quality = self.mask_decoder.predict_masks(
            image_embeddings=image_embeddings,
            image_pe=self.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=prompts._embed_points(point_coords, point_labels),
            dense_prompt_embeddings=prompts._embed_masks(mask_input, has_mask_input.reshape(-1, 1, 1, 1)),
        )
        return masks, quality


class Adapted(nn.Module):
    """A block's perceptron with an adapter beside it, as SAM-Med2D trains them: what both say is added.

    Parameters
    ----------
    inner
        The perceptron; works on tokens (batch, row, column, width).
    width
        Of the tokens.
    """

    def __init__(self, inner: Any, width: int) -> None:
        super().__init__()
        self.inner, self.adapter = inner, Adapter(width)

    def forward(self, tokens: Any) -> Any:
        """Return what both say of the tokens."""
        return self.inner(tokens) + self.adapter(tokens)


class Adapter(nn.Module):
    """Weighs channels by their means, adds a convolution there and back, and normalises."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.channel = nn.Sequential(
            nn.Linear(width, width // 4, bias=False), nn.ReLU(), nn.Linear(width // 4, width, bias=False), nn.Sigmoid()
        )
        self.spatial = nn.Sequential(
            nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False),
            nn.ReLU(),
            nn.ConvTranspose2d(width, width, 4, stride=2, padding=1, bias=False),
            nn.ReLU(),
        )

    def forward(self, tokens: Any) -> Any:
        """Return tokens (batch, row, column, width) for tokens of that shape."""
        weighed = tokens * self.channel(tokens.mean((1, 2), keepdim=True))
        return self.norm(tokens + self.spatial(weighed.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


def gather_biases(network: Any) -> None:
    """Let TinyViT's attentions look up their biases while they run.

    For inference they keep a table of the biases of all pairs of tokens, which would stand in the graph as a constant:
    4.5 MB that no checkpoint holds. The lookup is what they do in training; nothing else of them depends on it.
    """
    for module in network.modules():
        if hasattr(module, "attention_bias_idxs"):
            module.training = True


_STRIPS = 8
"""More would hold hardly less, and each costs nodes."""
_TOKENS = 2048
_WINDOWS = 32


@contextmanager
def smaller_steps(network: Any) -> Iterator[None]:
    """Let TinyViT's widest layers work strip by strip, the others by groups of tokens or windows, while traced.

    LiteMedSAM's first blocks hold 256 channels of 256 x 256 pixels several times over: 64 MiB each. What a pixel or a
    token becomes is computed by the same sums, with a third of the memory, and somewhat faster.
    """
    # by name, since importing TinyViT takes seconds and its warnings, and most networks have none of it
    ways: dict[str, Callable[[Any, Any], Any]] = {
        "MBConv": _block,
        "PatchMerging": _merging,
        "Mlp": _perceptron,
        "Attention": _attention,
    }
    tiny = [module for module in network.modules() if type(module).__module__.endswith(".tiny_vit_sam")]
    changed = [module for module in tiny if type(module).__name__ in ways]
    for module in changed:
        module.forward = partial(ways[type(module).__name__], module)
    try:
        yield
    finally:
        for module in changed:
            del module.forward  # the class's own comes back


def _block(block: Any, image: Any) -> Any:
    """As ``MBConv.forward``, for (1, channels, rows, columns)."""

    def after(values: Any, rows: slice) -> Any:
        return block.act3(block.conv3(block.act2(values)) + image[:, :, rows])

    return _by_strips(image, lambda values: block.act1(block.conv1(values)), block.conv2, after)


def _merging(merging: Any, image: Any) -> Any:
    """As ``PatchMerging.forward``, for tokens or for (1, channels, rows, columns)."""
    if image.ndim == 3:
        rows, columns = merging.input_resolution
        image = image.view(len(image), rows, columns, -1).permute(0, 3, 1, 2)
    merged = _by_strips(
        image,
        lambda values: merging.act(merging.conv1(values)),
        merging.conv2,
        lambda values, _rows: merging.conv3(merging.act(values)),
    )
    return merged.flatten(2).transpose(1, 2)


def _by_strips(image: Any, before: Any, convolution: Any, after: Any) -> Any:
    """A convolution of 3 x 3 with what comes before and after it, which looks at single pixels, strip by strip.

    Parameters
    ----------
    convolution
        With its batch normalisation, as TinyViT holds them; padded by one.
    after
        Takes a strip and the rows of the result that it is.
    """
    inner, (stride, _) = convolution.c, convolution.c.stride
    height = image.shape[2]
    wanted = (height - 1) // stride + 1
    step = -(-wanted // _STRIPS)
    strips = []
    for start in range(0, wanted, step):
        stop = min(start + step, wanted)
        first, last = start * stride - 1, (stop - 1) * stride + 1
        values = before(image[:, :, max(first, 0) : min(last + 1, height)])
        values = nn.functional.pad(values, (0, 0, int(first < 0), int(last >= height)))
        values = nn.functional.conv2d(values, inner.weight, None, inner.stride, (0, 1), groups=inner.groups)
        strips.append(after(convolution.bn(values), slice(start, stop)))
    return torch.cat(strips, dim=2)


def _perceptron(perceptron: Any, tokens: Any) -> Any:
    """As ``Mlp.forward``, for (1, tokens, width)."""
    return _by_pieces(perceptron, tokens, _TOKENS, axis=1)


def _attention(attention: Any, windows: Any) -> Any:
    """As ``Attention.forward``, for (windows, tokens, width): no window looks at another."""
    return _by_pieces(attention, windows, _WINDOWS, axis=0)


def _by_pieces(module: Any, values: Any, most: int, *, axis: int) -> Any:
    """What a module's class makes of `values`, `most` at a time along an axis."""
    count = values.shape[axis]
    # not split(): its export says that the last piece is as large as the others
    places = [(start, min(most, count - start)) for start in range(0, count, most)]
    pieces = [type(module).forward(module, values.narrow(axis, *place)) for place in places]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=axis)


def reference(network: Any, embedding: Any, points: Any, boxes: Any, former: Any) -> tuple[Any, Any]:
    """Return the network's own answer to prompts: all masks and their quality.

    Parameters
    ----------
    points
        Coordinates (n, p, 2) and labels (n, p), or None.
    boxes
        (n, 4), or None.
    former
        (n, 1, L, L), or None.
    """
    with torch.inference_mode():
        sparse, dense = network.prompt_encoder(points=points, boxes=boxes, masks=former)
        masks, quality = network.mask_decoder.predict_masks(
            image_embeddings=embedding,
            image_pe=network.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
        )
    return masks.numpy(), quality.numpy()
