"""The contract's memory, read and refused; and those that come with the variants."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from operators.sam.contract import read_contract
from operators.sam.memory_contract import followed_image, read_memory_contract

VARIANTS = Path(__file__).resolve().parents[4] / "app/exporters/sam_variants"
MASK_PROMPT = {"kernel": np.full((4, 4), 1 / 16).tolist(), "bias": 0.5, "no_memory": [0.25] * 8}
MEMORY: dict[str, Any] = {
    "resampling": "pillow-bicubic",
    "memories": 7,
    "pointers": 16,
    "several": [0, 1],
    "stability": {"delta": 0.05, "threshold": 0.98},
    "mask_prompt": MASK_PROMPT,
}
OF_SAM2 = sorted(path.stem for path in VARIANTS.glob("*.json") if "sam2" in path.stem and "2d" not in path.stem)


def test_all_sizes_of_both_generations_and_medsam2_are_there() -> None:
    assert [
        "medsam2",
        *(f"sam2.1_hiera_{size}" for size in ("b+", "l", "s", "t")),
        *(f"sam2_hiera_{size}" for size in ("base_plus", "large", "small", "tiny")),
    ] == OF_SAM2


@pytest.mark.parametrize("name", OF_SAM2)
def test_a_variants_contract_can_be_read_once_the_weights_numbers_are_in(name: str) -> None:
    content = json.loads((VARIANTS / f"{name}.json").read_text(encoding="utf-8"))
    contract = read_contract({**content["contract"], "licence": content["licence"]})
    assert contract.memory is not None
    memory = read_memory_contract({**contract.memory, "mask_prompt": MASK_PROMPT})
    assert (memory.memories, memory.pointers, memory.several) == (7, 16, (0, 1))
    assert followed_image(contract) == dataclasses.replace(contract.image, resampling="pillow-bicubic")
    assert contract.image.size == (512 if name == "medsam2" else 1024)
    assert contract.image.size == contract.prompts.size == 4 * contract.logits.size
    assert content["architecture"]["encoder"]["size"] == contract.image.size
    assert memory.components == ("largest" if name == "medsam2" else "all")


def test_a_manifest_older_than_components_keeps_all() -> None:
    assert "components" not in MEMORY
    assert read_memory_contract(MEMORY).components == "all"
    assert read_memory_contract({**MEMORY, "components": "largest"}).components == "largest"


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("memories", 1, "memory.memories must be a whole number of slices, two at least, not 1"),
        ("resampling", "best", "memory.resampling must be one of pillow-bilinear, .*, not 'best'"),
        ("pointers", "16", "memory.pointers must be"),
        ("components", "first", "memory.components must be one of all, largest, not 'first'"),
        ("mask_prompt", {**MASK_PROMPT, "kernel": [1.0]}, "kernel must be a square of numbers"),
    ],
)
def test_what_can_not_be_meant_is_refused(key: str, value: Any, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        read_memory_contract({**MEMORY, key: value})
