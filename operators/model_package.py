"""A model's folder in the Triton model repository, read and checked as one thing.

::

    triton_models/<name>/
        config.pbtxt       what Triton reads
        plans.json         nnU-Net's plans: spacing, patch, normalisation, resampling
        dataset.json       nnU-Net's channels and labels
        segments.json      the labels' codes, as dcmqi metainfo JSON
        model_card.md      for people; its YAML front matter names version and algorithm
        <n>/model.onnx     the weights; the highest number is served
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from operators.errors import ModelPackageError

_FRONT_MATTER_FENCE = "---"
_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class ModelPackage:
    """What one model is: its weights, how to feed them, what they find and who says so."""

    folder: Path
    """The model's folder."""
    name: str
    """The folder's name, by which Triton serves it."""
    version: str
    """The model's own version, from its card."""
    algorithm_name: str
    """What results call it (Algorithm Name, PS3.3 10.16)."""
    plans: dict[str, Any]
    """nnU-Net's ``plans.json``."""
    dataset: dict[str, Any]
    """nnU-Net's ``dataset.json``."""
    segments_path: Path
    """The labels' codes, dcmqi metainfo JSON."""
    weights_digest: str
    """SHA-256 of the served ``model.onnx``, 64 hexadecimal digits."""
    triton_version: str
    """The numbered folder that is served."""
    card: Mapping[str, Any]
    """The card's front matter."""

    @property
    def channel_names(self) -> tuple[str, ...]:
        """The names of its input channels in the network's order, from ``dataset.json``.

        Raises
        ------
        ModelPackageError
            ``file-unreadable`` if they are not named and numbered as nnU-Net v2 does.
        """
        names = self.dataset.get("channel_names")
        numbered = [str(number) for number in range(len(names))] if isinstance(names, dict) else []
        if not isinstance(names, dict) or not names or set(names) != set(numbered):
            raise ModelPackageError(
                f'model {self.name}: dataset.json must hold channel_names, numbered from "0"', code="file-unreadable"
            )
        return tuple(str(names[number]) for number in numbered)

    @classmethod
    def load(cls, folder: Path) -> ModelPackage:
        """Read and check the model in `folder`.

        Raises
        ------
        ModelPackageError
            If a file is missing (``file-missing``), can't be read (``file-unreadable``), or contradicts another
            (``labels-differ``).
        """
        folder = folder.resolve()
        if not folder.is_dir():
            raise ModelPackageError(f"no model folder {folder.name} in the model repository", code="file-missing")
        card = _read_front_matter(_present(folder, "model_card.md"))
        name = folder.name
        _present(folder, "config.pbtxt")
        triton_version = _newest_version(folder)
        dataset = _read_json(_present(folder, "dataset.json"))
        segments_path = _present(folder, "segments.json")
        _check_labels(dataset, _read_json(segments_path), name)
        return cls(
            folder=folder,
            name=name,
            version=_text(card, "version", name),
            algorithm_name=_text(card, "algorithm_name", name),
            plans=_read_json(_present(folder, "plans.json")),
            dataset=dataset,
            segments_path=segments_path,
            weights_digest=_digest(folder / triton_version / "model.onnx"),
            triton_version=triton_version,
            card=card,
        )


def _present(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise ModelPackageError(f"model {folder.name} lacks {name}", code="file-missing")
    return path


def _newest_version(folder: Path) -> str:
    """The highest numbered folder that holds weights: Triton's default version policy serves the latest one."""
    versions = [int(path.parent.name) for path in folder.glob("*/model.onnx") if path.parent.name.isdecimal()]
    if not versions:
        raise ModelPackageError(f"model {folder.name} lacks 1/model.onnx", code="file-missing")
    return str(max(versions))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelPackageError(f"{_short(path)} can't be read as JSON: {error}", code="file-unreadable") from error
    if not isinstance(content, dict):
        raise ModelPackageError(f"{_short(path)} must hold a JSON object", code="file-unreadable")
    return content


def _read_front_matter(path: Path) -> dict[str, Any]:
    """The YAML between the two ``---`` lines with which the file starts."""
    first, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
    if first != _FRONT_MATTER_FENCE or _FRONT_MATTER_FENCE not in lines:
        raise ModelPackageError(f"{_short(path)} must start with YAML between two --- lines", code="file-unreadable")
    try:
        card = yaml.safe_load("\n".join(lines[: lines.index(_FRONT_MATTER_FENCE)]))
    except yaml.YAMLError as error:
        raise ModelPackageError(
            f"{_short(path)}: the front matter is no YAML: {error}", code="file-unreadable"
        ) from error
    if not isinstance(card, dict):
        raise ModelPackageError(f"{_short(path)}: the front matter must be a mapping", code="file-unreadable")
    return card


def _text(card: Mapping[str, Any], key: str, model: str) -> str:
    value = card.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ModelPackageError(
            f"the model card of {model} must name its {key} as text (quote it if it looks like a number)",
            code="file-unreadable",
        )
    return value.strip()


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(_READ_BYTES):
            digest.update(part)
    return digest.hexdigest()


def _check_labels(dataset: Mapping[str, Any], metainfo: Mapping[str, Any], name: str) -> None:
    """Every label the network can paint has a code, and no code is left without a label."""
    try:
        painted = {value for value in dataset["labels"].values() if isinstance(value, int) and value != 0}
        coded = {segment["labelID"] for group in metainfo["segmentAttributes"] for segment in group}
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelPackageError(
            f"model {name}: dataset.json must hold labels and segments.json segmentAttributes with labelID",
            code="file-unreadable",
        ) from error
    has_regions = any(isinstance(value, list) for value in dataset["labels"].values())
    if not has_regions and painted != coded:
        raise ModelPackageError(
            f"model {name}: dataset.json has the labels {sorted(painted)} and segments.json codes {sorted(coded)}",
            code="labels-differ",
        )


def _short(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"
