"""The variants that can be imported, each a JSON file of ``app/exporters/sam_variants``. Needs no torch.

::

    {
      "title": "Segment Anything, ViT-B",
      "source": "https://…",                      where code and weights come from
      "licence": "Apache-2.0",                    of the weights, not of the code: SPDX identifier, or words
      "refusal": null,                            or why its checkpoints can't be served; then there is nothing more
      "architecture": {
        "encoder": {"type": "vit", "size": 1024, "patch": 16, "width": 768, "depth": 12, "heads": 12,
                    "global_blocks": [2, 5, 8, 11], "window": 14,
                    "adapters": false},           whether each block has an adapter as SAM-Med2D trains them
                or {"type": "tiny-vit", "size": 256,
                    "first_stride": 1,            4: an image is made four times smaller at first; 1: it is not
                    "widths": […], "depths": […], "heads": […], "windows": […]},
        "decoder": {"width": 256, "depth": 2, "hidden": 2048, "heads": 8, "masks": 4}
      },
      "contract": {…}                             `operators.sam.contract`, without the licence
    }
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.errors import ImportRefused
from operators.sam.contract import Contract, read_contract

_FOLDER = Path(__file__).resolve().parents[1] / "sam_variants"
_SUFFIX = ".json"


@dataclass(frozen=True)
class Variant:
    """One variant."""

    name: str
    title: str
    source: str
    licence: str
    architecture: Mapping[str, Any]
    contract: Contract
    contract_content: Mapping[str, Any]
    """The contract as it is written into a manifest."""


def known_variants() -> tuple[str, ...]:
    """Return the names of those that come with Limner."""
    return tuple(sorted(path.stem for path in _FOLDER.glob(f"*{_SUFFIX}")))


def read_variant(name: str) -> Variant:
    """Return a variant by its name, or by the path of a JSON file of one's own.

    Raises
    ------
    ImportRefused
        ``variant-unknown``, ``variant-unreadable``, or ``variant-refused`` if its contract can't be kept.
    """
    is_file = name.endswith(_SUFFIX)
    path = Path(name) if is_file else _FOLDER / f"{name}{_SUFFIX}"
    if not is_file and name not in known_variants():
        raise ImportRefused(
            f"there is no variant {name}; there are {', '.join(known_variants())}, or name a JSON file of your own",
            code="variant-unknown",
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        refusal = content["refusal"]
        if refusal is None:
            return _variant(path.stem, content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ImportRefused(
            f"{path.name} is not a variant as those of app/exporters/sam_variants: {error!r}", code="variant-unreadable"
        ) from error
    raise ImportRefused(f"{content['title']} can't be served: {refusal}", code="variant-refused")


def _variant(name: str, content: Mapping[str, Any]) -> Variant:
    contract = {**content["contract"], "licence": content["licence"]}
    return Variant(
        name=name,
        title=str(content["title"]),
        source=str(content["source"]),
        licence=str(content["licence"]),
        architecture=content["architecture"],
        contract=read_contract(contract),
        contract_content=contract,
    )
