"""The networks of SAM 2, SAM 2.1 and MedSAM2, built from the reference implementation's classes by a variant's numbers.

All published configurations agree in everything but what a variant's ``architecture`` says::

    "architecture": {
      "encoder": {"type": "hiera", "size": 1024, "width": 96, "heads": 1, "depths": [1, 2, 7, 2],
                  "windows": [8, 4, 14, 7], "global_blocks": [5, 7, 9], "background": [7, 7]},
      "memory": {"marks_absence": true, "dates_pointers": true}
    }

``background`` is the size of the learnt position embedding. ``marks_absence`` and ``dates_pointers`` came with SAM 2.1:
the memory of a slice without the object is marked, and an object pointer says how far away it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from app.errors import ImportRefused
from app.exporters.nnunet import define_torchvision_operators

if TYPE_CHECKING:
    import torch

WIDTH = 256
"""Channels of embeddings, pointers and the decoder."""
STRIDE = 16
MEMORY_WIDTH = 64
POINTERS = 16


def build_network(
    architecture: Mapping[str, Any], kind: type[torch.nn.Module] | None = None, **options: Any
) -> torch.nn.Module:
    """Return the network with random weights, ready for inference.

    Parameters
    ----------
    kind
        The class that is built, by default ``SAM2Base``; a predictor derived from it may be given with its `options`.
    """
    define_torchvision_operators()
    from sam2.modeling.sam2_base import SAM2Base

    size = architecture["encoder"]["size"]
    network: torch.nn.Module = (kind or SAM2Base)(
        image_encoder=_encoder(architecture["encoder"]),
        memory_attention=_memory_attention(size // STRIDE),
        memory_encoder=_memory_encoder(),
        image_size=size,
        **_SETTINGS,
        **_memory_settings(architecture["memory"]),
        **options,
    )
    return network.eval()


def load_weights(network: torch.nn.Module, weights: Mapping[str, torch.Tensor], where: str) -> None:
    """Put trained weights into a network.

    Raises
    ------
    ImportRefused
        ``architecture-unsupported``, naming weights that are missing, unknown or of another shape.
    """
    try:
        network.load_state_dict(dict(weights))
    except RuntimeError as error:
        reasons = [line.strip() for line in str(error).splitlines()[1:]] or [str(error)]
        raise ImportRefused(
            f"the weights of {where} do not fit the variant: {reasons[0]}; choose the variant that was trained",
            code="architecture-unsupported",
        ) from error


_SETTINGS: Mapping[str, Any] = {
    "num_maskmem": 7,
    "sigmoid_scale_for_mem_enc": 20.0,
    "sigmoid_bias_for_mem_enc": -10.0,
    "binarize_mask_from_pts_for_mem_enc": True,
    "use_mask_input_as_output_without_sam": True,
    "directly_add_no_mem_embed": True,
    "use_high_res_features_in_sam": True,
    "multimask_output_in_sam": True,
    "iou_prediction_use_sigmoid": True,
    "use_obj_ptrs_in_encoder": True,
    "max_obj_ptrs_in_encoder": POINTERS,
    "only_obj_ptrs_in_the_past_for_eval": True,
    "pred_obj_scores": True,
    "pred_obj_scores_mlp": True,
    "fixed_no_obj_ptr": True,
    "multimask_output_for_tracking": True,
    "use_multimask_token_for_obj_ptr": True,
    "multimask_min_pt_num": 0,
    "multimask_max_pt_num": 1,
    "use_mlp_for_obj_ptr_proj": True,
    "sam_mask_decoder_extra_args": {
        "dynamic_multimask_via_stability": True,
        "dynamic_multimask_stability_delta": 0.05,
        "dynamic_multimask_stability_thresh": 0.98,
    },
}
"""What all configurations have in common, with what the reference's builder adds for inference."""


def _memory_settings(memory: Mapping[str, bool]) -> dict[str, bool]:
    dated = memory["dates_pointers"]
    return {
        "no_obj_embed_spatial": memory["marks_absence"],
        "add_tpos_enc_to_obj_ptrs": dated,
        "proj_tpos_enc_in_obj_ptrs": dated,
        "use_signed_tpos_enc_to_obj_ptrs": dated,
    }


def _encoder(encoder: Mapping[str, Any]) -> torch.nn.Module:
    from sam2.modeling.backbones.hieradet import Hiera
    from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder

    trunk = Hiera(
        embed_dim=encoder["width"],
        num_heads=encoder["heads"],
        stages=tuple(encoder["depths"]),
        window_spec=tuple(encoder["windows"]),
        global_att_blocks=tuple(encoder["global_blocks"]),
        window_pos_embed_bkg_spatial_size=tuple(encoder["background"]),
    )
    neck = FpnNeck(
        position_encoding=_positions(WIDTH),
        d_model=WIDTH,
        backbone_channel_list=trunk.channel_list,
        fpn_top_down_levels=[2, 3],
        fpn_interp_model="nearest",
    )
    network: torch.nn.Module = ImageEncoder(trunk=trunk, neck=neck, scalp=1)
    return network


def _memory_attention(side: int) -> torch.nn.Module:
    from sam2.modeling.memory_attention import MemoryAttention, MemoryAttentionLayer
    from sam2.modeling.sam.transformer import RoPEAttention

    def attention(**options: Any) -> Any:
        return RoPEAttention(
            embedding_dim=WIDTH, num_heads=1, downsample_rate=1, dropout=0.1, feat_sizes=(side, side), **options
        )

    layer = MemoryAttentionLayer(
        activation="relu",
        d_model=WIDTH,
        dim_feedforward=2048,
        dropout=0.1,
        pos_enc_at_attn=False,
        pos_enc_at_cross_attn_keys=True,
        pos_enc_at_cross_attn_queries=False,
        self_attention=attention(),
        cross_attention=attention(rope_k_repeat=True, kv_in_dim=MEMORY_WIDTH),
    )
    network: torch.nn.Module = MemoryAttention(d_model=WIDTH, pos_enc_at_input=True, layer=layer, num_layers=4)
    return network


def _memory_encoder() -> torch.nn.Module:
    from sam2.modeling.memory_encoder import CXBlock, Fuser, MaskDownSampler, MemoryEncoder

    network: torch.nn.Module = MemoryEncoder(
        out_dim=MEMORY_WIDTH,
        position_encoding=_positions(MEMORY_WIDTH),
        mask_downsampler=MaskDownSampler(kernel_size=3, stride=2, padding=1),
        fuser=Fuser(CXBlock(dim=WIDTH, kernel_size=7, padding=3, layer_scale_init_value=1e-6), num_layers=2),
    )
    return network


def _positions(channels: int) -> torch.nn.Module:
    from sam2.modeling.position_encoding import PositionEmbeddingSine

    encoding: torch.nn.Module = PositionEmbeddingSine(num_pos_feats=channels, normalize=True, temperature=10000)
    return encoding
