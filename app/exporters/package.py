"""Writes the files of a model package around its exported networks. Runs in the exporter environment."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from app.exporters.job import Job, Part
from app.exporters.parity import DERIVED, EXACT, Scale
from app.exporters.triton_config import Served, cpu_config, gpu_config, openvino_config
from operators.model_folder import file_digest, weights_files
from operators.model_manifest import FORMAT, MANIFEST_FILE
from operators.model_package import channel_names

VERSION_FOLDER = "1"
_MODALITIES = {
    "CT": "CT",
    "CTA": "CT",
    "MR": "MR",
    "MRI": "MR",
    "T1": "MR",
    "T1C": "MR",
    "T1CE": "MR",
    "T1GD": "MR",
    "T2": "MR",
    "T2W": "MR",
    "FLAIR": "MR",
    "ADC": "MR",
    "DWI": "MR",
    "PET": "PT",
    "PT": "PT",
    "US": "US",
}

_CARD = """---
{front_matter}
---

# {algorithm_name}

**Not validated.** This card was made by `limner models import`; no one has yet said what the model is for, nor shown
that it works. Until the team that answers for it has filled in what stands below, its results are for nobody's care.

## What the team must fill in

- Intended use: which question, which patients, which body part, which acquisition; and what it must not be used for.
- Training data: where they come from, how many, which scanners, who annotated them, under which licence.
- Validation: on which independent data, with which figures, and where it fails.
- Who answers for it, and since when this version is in use.
- In the front matter what it was shown to work with: `modality`, `body_part`, `orientation`, `patient_orientation`,
  `contrast`, `slice_spacing_mm`, `pixel_spacing_mm`, `slice_count`. What is stated is checked before the model runs,
  and nothing else is.

## What is known from the training

{networks}

The exported graphs were compared with the trained networks on fixed volumes; `manifest.json` holds the figures.
"""


@dataclass(frozen=True)
class Exported:
    """One network, exported and found to compute what was trained."""

    part: Part
    served: Served
    mirroring_axes: tuple[int, ...]
    trainers: tuple[str, ...]
    checkpoints: Mapping[str, str]
    """Path below the training's parent folder -> SHA-256."""
    scales: tuple[Scale, ...]
    """At which the fixed volumes lay."""
    figures: Sequence[Mapping[str, Any]]
    """How each class fared, torch against ONNX Runtime."""


def write_network(exported: Exported, folder: Path) -> None:
    """Write what Triton and Limner read beside ``1/model.onnx``, which is there."""
    served = exported.served
    for name in ("plans.json", "dataset.json"):
        shutil.copyfile(exported.part.training.folder / name, folder / name)
    (folder / "configs").mkdir(exist_ok=True)
    (folder / "config.pbtxt").write_text(cpu_config(served), encoding="utf-8")
    (folder / "configs" / "gpu.pbtxt").write_text(gpu_config(served), encoding="utf-8")
    (folder / "configs" / "openvino.pbtxt").write_text(openvino_config(served), encoding="utf-8")


def write_package(job: Job, exported: Sequence[Exported], repository: Path) -> None:
    """Write the package's own files into its folder in `repository`, where its networks lie."""
    folder = repository / job.name
    shutil.copyfile(job.segments, folder / "segments.json")
    (folder / "model_card.md").write_text(_card(job, exported), encoding="utf-8")
    manifest = _manifest(job, exported, repository)
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _manifest(job: Job, exported: Sequence[Exported], repository: Path) -> dict[str, Any]:
    versions = {name: importlib.metadata.version(name) for name in ("nnunetv2", "torch", "onnx", "onnxruntime")}
    return {
        "format": FORMAT,
        "combination": job.combination,
        "networks": [_network(one, repository / one.part.model) for one in exported],
        "postprocessing": [{"keep_largest_component_of": list(labels)} for labels in job.postprocessing],
        "exporter": {"limner": limner_version(), **versions, "opset": job.opset},
        "checkpoints": {path: digest for one in exported for path, digest in one.checkpoints.items()},
        "parity": {
            "limits": {"exact": asdict(EXACT), "derived": asdict(DERIVED)},
            "networks": {
                one.part.model: {"scales": [asdict(scale) for scale in one.scales], "onnxruntime": list(one.figures)}
                for one in exported
            },
        },
    }


def _network(exported: Exported, folder: Path) -> dict[str, Any]:
    part = exported.part
    return {
        "model": part.model,
        "configuration": part.training.configuration,
        "folds": list(part.training.folds),
        "mirroring_axes": list(exported.mirroring_axes),
        "tile_step_size": part.tile_step_size,
        "orientation": part.orientation,
        "previous_stage": part.previous_stage,
        "label_values": None
        if part.label_values is None
        else {str(own): common for own, common in part.label_values.items()},
        "trainers": list(exported.trainers),
        "weights_sha256": file_digest(*weights_files(folder / VERSION_FOLDER)),
        "plans_sha256": file_digest(folder / "plans.json"),
        "dataset_sha256": file_digest(folder / "dataset.json"),
    }


def limner_version() -> str:
    """Limner is not installed in the exporter environment; the one whose code this is says who it is."""
    try:
        return importlib.metadata.version("limner")
    except importlib.metadata.PackageNotFoundError:
        return "source"


def _card(job: Job, exported: Sequence[Exported]) -> str:
    channels = channel_names(exported[0].part.training.dataset)
    known = {_MODALITIES.get(one.upper()) for one in channels}
    # where one channel's is not known nothing is stated: the gate refuses all that is not stated
    modalities = [] if None in known else sorted(one for one in known if one is not None)
    front = {
        "name": job.name,
        "version": job.version,
        "kind": "nnunet",
        "algorithm_name": job.algorithm_name,
        "modality": modalities,
        "channels": list(channels),
        "validated": False,
        "medical_device": False,
    }
    # every JSON value is one of YAML
    lines = "\n".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items())
    networks = "\n".join(_described(one) for one in exported)
    return _CARD.format(front_matter=lines, algorithm_name=job.algorithm_name, networks=networks)


def _described(exported: Exported) -> str:
    training = exported.part.training
    spacing = " x ".join(f"{value:g}" for value in training.planned["spacing"])
    patch = " x ".join(str(size) for size in exported.served.input_shape[1:])
    return (
        f"- `{exported.part.model}`: {training.configuration}, fold {', '.join(training.folds)}, trained by "
        f"{', '.join(exported.trainers)}; spacing {spacing} mm, patches of {patch} voxels (transposed axes), labels "
        f"{', '.join(training.dataset['labels'])}"
    )
