"""The networks of the SAM family as torch modules, built of what segment-anything and mobilesam-mirror hold.

Runs in the exporter environment.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.errors import ImportRefused
from app.exporters.checkpoints import load_restricted
from app.exporters.nnunet import define_torchvision_operators
from app.exporters.sam.adapters import apply_adapter, nested_adapters
from app.exporters.sam.variants import Variant

if TYPE_CHECKING:
    import torch

_TINY_STRIDE = 4
"""By which TinyViT makes an image smaller at first, unless its first layers are put in another way."""
_TINY_GRID = 64
"""Side of TinyViT's embedding, whatever the image."""
_UNUSED = ("image_encoder.norm_head.", "image_encoder.head.")
"""A classifier that MobileSAM's encoder keeps and never asks."""
_NAMES_SHOWN = 3


def load_network(variant: Variant, checkpoint: Path, adapter: Path | None) -> torch.nn.Module:
    """Return the variant's network with the weights of a checkpoint, ready for inference.

    Parameters
    ----------
    adapter
        What was trained over it: LoRA deltas, which are merged, or the values of some of its layers.

    Raises
    ------
    ImportRefused
        ``checkpoint-refused`` if a file asks for code to be run or is no checkpoint, ``architecture-unsupported`` if
        its weights are not those of the variant, ``adapter-unusable`` if the adapter fits nothing.
    """
    weights = named_weights(load_restricted(checkpoint))
    network = build_network(variant)
    if adapter is not None:
        weights = apply_adapter(weights, adapter)
    put_weights(network, weights, f"{checkpoint.parent.name}/{checkpoint.name}", variant)
    return network


def named_weights(loaded: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return the weights by name out of what a trainer saved: they may lie one level deeper, beside other things."""
    import torch

    for key in ("model", "state_dict"):
        if isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    return {
        str(name).removeprefix("module."): value for name, value in loaded.items() if isinstance(value, torch.Tensor)
    }


def put_weights(network: torch.nn.Module, weights: Mapping[str, torch.Tensor], where: str, variant: Variant) -> None:
    """Put weights into a network that must take all of them and lack none.

    Raises
    ------
    ImportRefused
        ``architecture-unsupported``, saying what is missing, too much or of another shape.
    """
    given = nested_adapters({name: value for name, value in weights.items() if not name.startswith(_UNUSED)})
    own = network.state_dict()
    found = {
        "lacks": sorted(set(own) - set(given)),
        "has too much": sorted(set(given) - set(own)),
        "has of another shape": sorted(name for name in set(own) & set(given) if own[name].shape != given[name].shape),
    }
    if any(found.values()):
        said = "; ".join(
            f"it {what} {', '.join(names[:_NAMES_SHOWN])}" + (f" and {more} more" if more > 0 else "")
            for what, names in found.items()
            if names
            for more in (len(names) - _NAMES_SHOWN,)
        )
        raise ImportRefused(
            f"the weights of {where} are not those of {variant.title}: {said}; name its variant with --variant",
            code="architecture-unsupported",
        )
    network.load_state_dict(given)
    network.eval()


def build_network(variant: Variant) -> torch.nn.Module:
    """Return the variant's network with random weights.

    Raises
    ------
    ImportRefused
        ``variant-unreadable`` if its architecture lacks something or names an encoder that is not known.
    """
    define_torchvision_operators()
    from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    try:
        encoder, decoder = variant.architecture["encoder"], variant.architecture["decoder"]
        size, width = int(encoder["size"]), int(decoder["width"])
        image_encoder, grid = _ENCODERS[encoder["type"]](encoder, width)
        network: torch.nn.Module = Sam(
            image_encoder=image_encoder,
            prompt_encoder=PromptEncoder(
                embed_dim=width, image_embedding_size=(grid, grid), input_image_size=(size, size), mask_in_chans=16
            ),
            mask_decoder=MaskDecoder(
                num_multimask_outputs=int(decoder["masks"]) - 1,
                transformer=TwoWayTransformer(
                    depth=decoder["depth"],
                    embedding_dim=width,
                    mlp_dim=decoder["hidden"],
                    num_heads=decoder["heads"],
                ),
                transformer_dim=width,
                iou_head_depth=3,
                iou_head_hidden_dim=width,
            ),
            pixel_mean=list(variant.contract.image.mean),
            pixel_std=list(variant.contract.image.deviation),
        )
    except (KeyError, TypeError) as error:
        raise ImportRefused(
            f"the architecture of the variant {variant.name} lacks something, or has what is not known: {error!r}; "
            f"encoders are {', '.join(_ENCODERS)}",
            code="variant-unreadable",
        ) from error
    network.eval()
    return network


def _vit(encoder: Mapping[str, Any], width: int) -> tuple[torch.nn.Module, int]:
    import torch
    from segment_anything.modeling import ImageEncoderViT

    built = ImageEncoderViT(
        img_size=encoder["size"],
        patch_size=encoder["patch"],
        embed_dim=encoder["width"],
        depth=encoder["depth"],
        num_heads=encoder["heads"],
        global_attn_indexes=tuple(encoder["global_blocks"]),
        window_size=encoder["window"],
        mlp_ratio=4,
        qkv_bias=True,
        use_rel_pos=True,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
        out_chans=width,
    )
    if encoder["adapters"]:
        from app.exporters.sam.modules import Adapted

        for block in built.blocks:
            block.mlp = Adapted(block.mlp, encoder["width"])
    return built, encoder["size"] // encoder["patch"]


def _tiny_vit(encoder: Mapping[str, Any], _width: int) -> tuple[torch.nn.Module, int]:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that timm has moved what is imported
        from mobile_sam.modeling import TinyViT
        from mobile_sam.modeling.tiny_vit_sam import Conv2d_BN

    stride = int(encoder["first_stride"])
    built = TinyViT(
        # its layers are laid out for what the first ones leave of an image
        img_size=encoder["size"] * _TINY_STRIDE // stride,
        num_classes=1,
        embed_dims=encoder["widths"],
        depths=encoder["depths"],
        num_heads=encoder["heads"],
        window_sizes=encoder["windows"],
        drop_path_rate=0.0,
    )
    if stride == 1:
        first, activation, second = built.patch_embed.seq
        built.patch_embed.seq = torch.nn.Sequential(
            Conv2d_BN(3, first.c.out_channels), activation, Conv2d_BN(first.c.out_channels, second.c.out_channels)
        )
    built.img_size = encoder["size"]
    del built.norm_head, built.head
    return built, _TINY_GRID


_ENCODERS = {"vit": _vit, "tiny-vit": _tiny_vit}
