"""LoRA deltas and adapters against the arithmetic that they stand for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from app.errors import ImportRefused
from app.exporters.sam.exporting import export_generalist
from app.exporters.sam.job import GeneralistJob
from app.exporters.sam.networks import load_network
from app.exporters.sam.variants import Variant, read_variant
from tests.fixtures.sam import untrained

WIDTH, BLOCKS, RANK = 48, 2, 4
IMAGE = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(9))


class BesideQueriesAndValues(nn.Module):
    """How LoRA is trained over a layer of queries, keys and values: beside it."""

    def __init__(self, layer: Any, queries: Any, values: Any) -> None:
        super().__init__()
        self.layer, self.queries, self.values = layer, queries, values

    def forward(self, tokens: Any) -> Any:
        whole = self.layer(tokens).clone()
        whole[..., :WIDTH] += tokens @ self.queries[0].T @ self.queries[1].T
        whole[..., -WIDTH:] += tokens @ self.values[0].T @ self.values[1].T
        return whole


@pytest.fixture
def variant() -> Variant:
    return read_variant(str(untrained.TINY))


@pytest.fixture
def base(variant: Variant, tmp_path: Path) -> Path:
    return untrained.save(untrained.make(variant), tmp_path / "base.pth")


def deltas(seed: int = 3) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """A and B of queries and values, block by block."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (0.2 * torch.randn(RANK, WIDTH, generator=generator), 0.2 * torch.randn(WIDTH, RANK, generator=generator))
        for _ in range(2 * BLOCKS)
    ]


def samed(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, torch.Tensor]:
    named = {f"w_a_{number:03d}": pair[0] for number, pair in enumerate(pairs)}
    return named | {f"w_b_{number:03d}": pair[1] for number, pair in enumerate(pairs)}


def embedding(network: Any) -> Any:
    with torch.inference_mode():
        return network.image_encoder(IMAGE).numpy()


def refusal(variant: Variant, base: Path, content: Any, folder: Path) -> str:
    torch.save(content, folder / "adapter.pth")
    with pytest.raises(ImportRefused) as caught:
        load_network(variant, base, folder / "adapter.pth")
    assert caught.value.code == "adapter-unusable"
    return str(caught.value)


def test_deltas_as_samed_writes_them_are_merged_into_the_base(variant: Variant, base: Path, tmp_path: Path) -> None:
    pairs = deltas()
    path = tmp_path / "lora.pth"
    decoder = {"mask_decoder.iou_token.weight": torch.full((1, 32), 0.25)}
    torch.save(samed(pairs) | decoder, path)
    merged: Any = load_network(variant, base, path)
    beside: Any = load_network(variant, base, None)
    plain = embedding(beside)
    for number, block in enumerate(beside.image_encoder.blocks):
        block.attn.qkv = BesideQueriesAndValues(block.attn.qkv, pairs[2 * number], pairs[2 * number + 1])
    expected = embedding(beside)
    assert np.abs(expected - plain).max() > 0.1 * np.ptp(plain)
    assert np.abs(embedding(merged) - expected).max() < 1e-5 * np.ptp(expected)
    assert torch.equal(merged.mask_decoder.iou_token.weight, decoder["mask_decoder.iou_token.weight"])

    job = GeneralistJob(str(base), str(path), str(untrained.TINY), "tiny", "1", "Tiny")
    export_generalist(job, tmp_path / "models")
    manifest = json.loads((tmp_path / "models/tiny/manifest.json").read_text())
    assert sorted(manifest["checkpoints"]) == ["base.pth", "lora.pth"]
    assert "`lora.pth`" in (tmp_path / "models/tiny/model_card.md").read_text()


def test_deltas_as_peft_writes_them_are_scaled_and_merged(variant: Variant, base: Path, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(5)
    low, high = torch.randn(RANK, WIDTH, generator=generator), torch.randn(WIDTH, RANK, generator=generator)
    layer = "image_encoder.blocks.1.attn.proj"
    torch.save(
        {f"base_model.model.{layer}.lora_A.weight": low, f"base_model.model.{layer}.lora_B.weight": high},
        tmp_path / "adapter_model.pt",
    )
    with pytest.raises(ImportRefused, match=r"adapter_config\.json") as caught:
        load_network(variant, base, tmp_path / "adapter_model.pt")
    assert caught.value.code == "adapter-unusable"
    for config, scale in (({"lora_alpha": 2}, 0.5), ({"lora_alpha": 2, "use_rslora": True}, 1.0)):
        (tmp_path / "adapter_config.json").write_text(json.dumps(config))
        merged = load_network(variant, base, tmp_path / "adapter_model.pt").state_dict()[f"{layer}.weight"]
        own = load_network(variant, base, None).state_dict()[f"{layer}.weight"]
        assert torch.allclose(merged, own + scale * high @ low)


def test_an_adapter_of_another_base_is_refused_with_what_does_not_fit(
    variant: Variant, base: Path, tmp_path: Path
) -> None:
    nine = {"mask_decoder.mask_tokens.weight": torch.zeros(9, 32)}
    said = refusal(variant, base, samed(deltas()) | nine, tmp_path)
    assert "mask_decoder.mask_tokens.weight is [9, 32], and the base's is [4, 32]" in said
    assert "answers classes, not prompts" in said
    assert "for one of 2 blocks" in refusal(variant, base, samed(deltas() * 2), tmp_path)
    assert "48 wide" in refusal(variant, base, samed([(torch.zeros(4, 64), torch.zeros(64, 4))]), tmp_path)
    assert "must be a pair" in refusal(variant, base, {"w_a_000": torch.zeros(4, 48)}, tmp_path)
    assert "the base has no neck.weight" in refusal(variant, base, {"neck.weight": torch.zeros(3)}, tmp_path)
    assert "holds nothing" in refusal(variant, base, {}, tmp_path)


def test_sam_med2ds_adapters_stand_beside_each_perceptron(tmp_path: Path) -> None:
    """By SAM-Med2D's names, and against its arithmetic written out."""
    variant = untrained.changed(tmp_path, encoder={"adapters": True})
    made: Any = untrained.make(variant)
    weights = {
        name.replace(".mlp.adapter.", ".Adapter.").replace(".mlp.inner.", ".mlp."): value
        for name, value in made.state_dict().items()
    }
    assert "image_encoder.blocks.0.Adapter.channel.2.weight" in weights
    assert "image_encoder.blocks.0.mlp.lin1.weight" in weights
    torch.save({"model": weights}, tmp_path / "sam-med2d.pth")
    network: Any = load_network(variant, tmp_path / "sam-med2d.pth", None)
    block = network.image_encoder.blocks[0]
    tokens = torch.randn(2, 8, 8, WIDTH, generator=torch.Generator().manual_seed(4))

    functional, own = (
        nn.functional,
        {name.removeprefix("image_encoder.blocks.0."): one for name, one in weights.items()},
    )
    with torch.inference_mode():
        seen = tokens.permute(0, 3, 1, 2)
        gate = functional.adaptive_avg_pool2d(seen, 1).flatten(1)
        gate = functional.linear(functional.relu(functional.linear(gate, own["Adapter.channel.0.weight"])),
                                 own["Adapter.channel.2.weight"]).sigmoid()  # fmt: skip
        down = functional.conv2d(gate[:, :, None, None] * seen, own["Adapter.spatial.0.weight"], stride=2, padding=1)
        up = functional.conv_transpose2d(down.relu(), own["Adapter.spatial.2.weight"], stride=2, padding=1).relu()
        adapted = functional.layer_norm(
            (seen + up).permute(0, 2, 3, 1), (WIDTH,), own["Adapter.norm.weight"], own["Adapter.norm.bias"]
        )
        hidden = functional.gelu(functional.linear(tokens, own["mlp.lin1.weight"], own["mlp.lin1.bias"]))
        perceptron = functional.linear(hidden, own["mlp.lin2.weight"], own["mlp.lin2.bias"])
        found = block.mlp(tokens)
    assert torch.allclose(found, perceptron + adapted, atol=1e-4)
    job = GeneralistJob(str(tmp_path / "sam-med2d.pth"), None, str(tmp_path / "changed.json"), "tiny", "1", "Tiny")
    export_generalist(job, tmp_path / "models")
