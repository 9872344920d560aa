"""What was trained over a network of the SAM family: LoRA deltas, single layers, adapters in every block.

Runs in the exporter environment. A LoRA delta of a linear layer is B·A, scaled; it is added to the layer's own weights,
so that the network that is served has the base's shape and speed. Two layouts are known:

SAMed
    ``w_a_000``, ``w_b_000``, … for the queries (even numbers) and values (odd ones) of each block, beside values of
    prompt encoder and decoder; not scaled.
PEFT
    ``base_model.model.<layer>.lora_A.weight`` and ``…lora_B.weight``, scaled by ``lora_alpha`` / ``r`` of
    ``adapter_config.json`` beside it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.errors import ImportRefused
from app.exporters.checkpoints import load_restricted

if TYPE_CHECKING:
    import torch

Weights = Mapping[str, "torch.Tensor"]

_SAMED = re.compile(r"w_(?P<side>[ab])_(?P<number>\d{3})")
_PEFT = re.compile(r"(?:base_model\.model\.)?(?P<layer>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight")
_PEFT_CONFIG = "adapter_config.json"
_DECODER_MASKS = "mask_decoder.mask_tokens.weight"


def apply_adapter(weights: Weights, path: Path) -> dict[str, torch.Tensor]:
    """Return the base's weights with what the adapter in `path` says.

    Raises
    ------
    ImportRefused
        ``checkpoint-refused`` if the file can't be read, ``adapter-unusable`` if it holds what the base has not.
    """
    loaded = load_restricted(path)
    for key in ("model", "state_dict"):
        loaded = loaded[key] if isinstance(loaded.get(key), Mapping) else loaded
    deltas, replaced = _samed_deltas(loaded, weights), {}
    deltas |= _peft_deltas(loaded, path)
    for name, value in loaded.items():
        if _SAMED.fullmatch(name) is None and _PEFT.fullmatch(name) is None:
            replaced[name.removeprefix("module.")] = value
    if not deltas and not replaced:
        raise _unusable(path, "it holds nothing")
    changed = dict(weights)
    for name, delta in deltas.items():
        changed[name] = _base(weights, name, delta.shape, path) + delta
    for name, value in replaced.items():
        _base(weights, name, value.shape, path)
        changed[name] = value
    return changed


def _samed_deltas(loaded: Mapping[str, Any], weights: Weights) -> dict[str, torch.Tensor]:
    """The queries' and values' deltas of each block as those of its one layer for queries, keys and values."""
    import torch

    pairs = _pairs(_SAMED, loaded, "number")
    deltas: dict[str, torch.Tensor] = {}
    blocks = sorted(_qkv_layers(weights))
    for number, sides in sorted(pairs.items()):
        place, is_value = divmod(int(number), 2)
        if place >= len(blocks) or set(sides) != {"a", "b"}:
            raise ImportRefused(
                f"the adapter's w_a_{number} and w_b_{number} must be a pair for one of {len(blocks)} blocks: it was "
                "trained over another base",
                code="adapter-unusable",
            )
        name = f"image_encoder.blocks.{blocks[place]}.attn.qkv.weight"
        delta = deltas.setdefault(name, torch.zeros_like(weights[name]))
        product = sides["b"] @ sides["a"]
        width = delta.shape[1]
        if product.shape != (width, width):
            raise ImportRefused(
                f"the adapter's w_b_{number} · w_a_{number} is {list(product.shape)}, and the base's layer is "
                f"{width} wide: it was trained over another base",
                code="adapter-unusable",
            )
        delta[2 * width * is_value : width * (2 * is_value + 1)] += product
    return deltas


def _qkv_layers(weights: Weights) -> list[int]:
    pattern = re.compile(r"image_encoder\.blocks\.(\d+)\.attn\.qkv\.weight")
    return [int(match[1]) for match in map(pattern.fullmatch, weights) if match]


def _peft_deltas(loaded: Mapping[str, Any], path: Path) -> dict[str, torch.Tensor]:
    pairs = _pairs(_PEFT, loaded, "layer")
    if not pairs:
        return {}
    config = path.with_name(_PEFT_CONFIG)
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
        alpha, uses_root = float(content["lora_alpha"]), bool(content.get("use_rslora", False))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ImportRefused(
            f"{path.name} holds LoRA deltas whose scale stands in {_PEFT_CONFIG} (lora_alpha), and there is none "
            "beside it that can be read",
            code="adapter-unusable",
        ) from error
    deltas = {}
    for layer, sides in pairs.items():
        if set(sides) != {"A", "B"}:
            raise _unusable(path, f"{layer} has only one half of its delta")
        rank = sides["A"].shape[0]
        scale = alpha / (math.sqrt(rank) if uses_root else rank)
        deltas[f"{layer}.weight"] = scale * (sides["B"] @ sides["A"])
    return deltas


def _pairs(pattern: re.Pattern[str], loaded: Mapping[str, Any], key: str) -> dict[str, dict[str, torch.Tensor]]:
    found: dict[str, dict[str, torch.Tensor]] = {}
    for match in filter(None, map(pattern.fullmatch, loaded)):
        found.setdefault(match[key], {})[match["side"]] = loaded[match.string]
    return found


def _base(weights: Weights, name: str, shape: torch.Size, path: Path) -> torch.Tensor:
    if name not in weights:
        raise _unusable(path, f"the base has no {name}")
    if weights[name].shape != shape:
        why = f"{name} is {list(shape)}, and the base's is {list(weights[name].shape)}"
        if name.startswith("mask_decoder.") and not name.startswith("mask_decoder.transformer."):
            why += "; a decoder of another number of masks answers classes, not prompts"
        raise _unusable(path, why)
    return weights[name]


def _unusable(path: Path, why: str) -> ImportRefused:
    return ImportRefused(
        f"{path.parent.name}/{path.name} can't be put over this base: {why}; it must have been trained over it",
        code="adapter-unusable",
    )


def nested_adapters(weights: Weights) -> dict[str, torch.Tensor]:
    """Return the weights with the names that they have where a block's adapter lies in its perceptron's place."""
    if not any(".Adapter." in name for name in weights):
        return dict(weights)
    return {
        re.sub(r"^(image_encoder\.blocks\.\d+\.)mlp\.", r"\1mlp.inner.", name).replace(
            ".Adapter.", ".mlp.adapter."
        ): value
        for name, value in weights.items()
    }
