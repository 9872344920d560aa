"""Writes the files of a generalist's package around its graphs. Runs in the exporter environment."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.exporters.nnunet import OPSET
from app.exporters.package import VERSION_FOLDER, limner_version
from app.exporters.parity import DERIVED
from app.exporters.sam.job import GeneralistJob
from app.exporters.sam.parity import NEAR
from app.exporters.sam.variants import Variant
from app.exporters.triton_config import (
    OPENVINO,
    unbatched_config,
    unbatched_gpu_config,
    unbatched_openvino_config,
)
from operators.model_folder import CARD_FILE, file_digest, weights_files
from operators.model_manifest import FORMAT, MANIFEST_FILE
from operators.tensors import Signature

_MADE_BY = ("segment-anything", "mobilesam-mirror", "sam2", "torch", "onnx", "onnxruntime")

_CARD = """---
{front_matter}
---

# {algorithm_name}

**Not validated.** This card was made by `limner models import`; no one has yet said what the model is for, nor shown
that it works. Until the team that answers for it has filled in what stands below, its results are for nobody's care.

## What the team must fill in

- Intended use: which question, which patients, which body part, which acquisition; and what it must not be used for.
- Training data: where they come from, how many, which scanners, who annotated them, under which licence.
- Validation: on which independent data, with which prompts and figures, and where it fails.
- Who answers for it, and since when this version is in use.

## What is known

{title}, from {source}; licence of the weights: {licence}. It takes {kinds} on one slice and answers a mask.{adapter}

The exported graphs were compared with the reference implementation on fixed images and prompts; `manifest.json` holds
the figures.
"""


def write_model(folder: Path, signature: Signature, threads: int) -> None:
    """Write the configurations of one of the networks beside ``1/model.onnx``."""
    configurations = folder / "configs"
    configurations.mkdir(exist_ok=True)
    (folder / "config.pbtxt").write_text(unbatched_config(folder.name, signature, threads), encoding="utf-8")
    (configurations / "gpu.pbtxt").write_text(unbatched_gpu_config(folder.name, signature), encoding="utf-8")
    (configurations / f"{OPENVINO}.pbtxt").write_text(
        unbatched_openvino_config(folder.name, signature, threads), encoding="utf-8"
    )


def write_package(
    job: GeneralistJob, variant: Variant, figures: Mapping[str, list[dict[str, Any]]], repository: Path
) -> None:
    """Write manifest and card into the encoder's folder in `repository`, where all networks lie.

    Parameters
    ----------
    figures
        Of each Triton model, torch against ONNX Runtime.
    """
    folder = repository / job.encoder
    (folder / CARD_FILE).write_text(_card(job, variant), encoding="utf-8")
    manifest = {
        "format": FORMAT,
        "family": variant.contract.family,
        "variant": variant.name,
        "contract": dict(variant.contract_content),
        "networks": {
            part: {"model": model, "weights_sha256": file_digest(*weights_files(repository / model / VERSION_FOLDER))}
            for part, model in job.parts.items()
        },
        "exporter": {
            "limner": limner_version(),
            **{name: importlib.metadata.version(name) for name in _MADE_BY},
            "opset": OPSET,
        },
        "checkpoints": {
            Path(path).name: file_digest(Path(path)) for path in (job.checkpoint, job.adapter) if path is not None
        },
        "parity": {
            "limits": {"exact": asdict(NEAR), "derived": asdict(DERIVED)},
            "networks": {model: {"onnxruntime": figures[model]} for model in job.models},
        },
    }
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _card(job: GeneralistJob, variant: Variant) -> str:
    front = {
        "name": job.name,
        "version": job.version,
        "kind": "generalist",
        "algorithm_name": job.algorithm_name,
        "prompts": list(variant.contract.prompts.kinds),
        "licence": variant.licence,
        "validated": False,
        "medical_device": False,
    }
    # every JSON value is one of YAML
    lines = "\n".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items())
    adapter = "" if job.adapter is None else f" What `{Path(job.adapter).name}` holds was put over it."
    return _CARD.format(
        front_matter=lines,
        algorithm_name=job.algorithm_name,
        title=variant.title,
        source=variant.source,
        licence=variant.licence,
        kinds=", ".join(variant.contract.prompts.kinds),
        adapter=adapter,
    )
