"""``manifest.json``: which networks a model is made of, how they are run, and the digests of all they were made from.

::

    {
      "format": 1,
      "combination": "single",                    or "mean-of-probabilities", or "merge"
      "networks": [
        {
          "model": "lesion",                      the Triton model: a folder beside or the same as the package's
          "configuration": "3d_fullres",          of its plans.json
          "folds": ["0", "1"],                    whose logits its graph averages
          "mirroring_axes": [0, 1, 2],            spatial axes along which tiles are also seen mirrored
          "tile_step_size": 0.5,                  step between tiles as a share of a tile
          "orientation": null,                    "RAS" if the network was trained on arrays turned that way
          "previous_stage": "lesion_3d_lowres",   the network whose labels it sees too, or null
          "label_values": {"1": 7},               merge only: its label -> the package's label
          "weights_sha256": "…", "plans_sha256": "…", "dataset_sha256": "…"
        }
      ],
      "postprocessing": [{"keep_largest_component_of": [1, 2]}],
      "exporter": {…}, "parity": {…}              for people: what made it, and how far it strayed from torch
    }

A merge paints its networks' labels in their order, later over earlier. A network that is another's previous stage takes
no part in the combination itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from operators.errors import ModelPackageError

MANIFEST_FILE = "manifest.json"
FORMAT = 1
Combination = Literal["single", "mean-of-probabilities", "merge"]


@dataclass(frozen=True)
class NetworkEntry:
    """One network as the manifest describes it; the module's docstring says what each key means."""

    model: str
    configuration: str
    folds: tuple[str, ...]
    mirroring_axes: tuple[int, ...]
    tile_step_size: float
    orientation: str | None
    previous_stage: str | None
    label_values: Mapping[int, int] | None
    weights_sha256: str
    plans_sha256: str
    dataset_sha256: str


@dataclass(frozen=True)
class Manifest:
    """The whole file, but for what is there for people."""

    combination: Combination
    networks: tuple[NetworkEntry, ...]
    postprocessing: tuple[tuple[int, ...], ...]
    """Of each of these sets of labels, in this order, only the largest connected component is kept."""


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest.

    Raises
    ------
    ModelPackageError
        ``file-unreadable`` if it is not what the module's docstring says, naming the key.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        manifest = Manifest(
            combination=_combination(content["combination"]),
            networks=tuple(_network(entry) for entry in content["networks"]),
            postprocessing=tuple(
                tuple(int(value) for value in step["keep_largest_component_of"]) for step in content["postprocessing"]
            ),
        )
        _check(content["format"], manifest)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelPackageError(
            f"{path.parent.name}/{path.name} is not a manifest as `limner models import` writes it: {_said(error)}",
            code="file-unreadable",
        ) from error
    return manifest


def _said(error: Exception) -> str:
    return f"the key {error} is missing" if isinstance(error, KeyError) else str(error)


def _combination(value: Any) -> Combination:
    if value not in get_args(Combination):
        raise ValueError(f"combination must be one of {', '.join(get_args(Combination))}, not {value!r}")
    combination: Combination = value
    return combination


def _network(entry: Mapping[str, Any]) -> NetworkEntry:
    values = entry["label_values"]
    step = float(entry["tile_step_size"])
    if not 0 < step <= 1:
        raise ValueError(f"tile_step_size must lie above 0 and not above 1, and is {step:g}")
    if entry["orientation"] not in (None, "RAS"):
        raise ValueError(f"orientation must be null or 'RAS', not {entry['orientation']!r}")
    return NetworkEntry(
        model=folder_name(entry["model"]),
        configuration=str(entry["configuration"]),
        folds=tuple(str(fold) for fold in entry["folds"]),
        mirroring_axes=tuple(int(axis) for axis in entry["mirroring_axes"]),
        tile_step_size=step,
        orientation=entry["orientation"],
        previous_stage=None if entry["previous_stage"] is None else folder_name(entry["previous_stage"]),
        label_values=None if values is None else {int(own): int(common) for own, common in values.items()},
        weights_sha256=str(entry["weights_sha256"]),
        plans_sha256=str(entry["plans_sha256"]),
        dataset_sha256=str(entry["dataset_sha256"]),
    )


def folder_name(value: Any) -> str:
    """Return `value` if it is a folder's name and nothing else: a manifest must not reach out of its repository."""
    if not isinstance(value, str) or Path(value).name != value or value in ("", ".", ".."):
        raise ValueError(f"{value!r} is not the name of a folder in the model repository")
    return value


def _check(written_format: Any, manifest: Manifest) -> None:
    if written_format != FORMAT:
        raise ValueError(f"its format is {written_format!r}, and this Limner reads {FORMAT}; import the model again")
    names = [network.model for network in manifest.networks]
    if len(set(names)) < len(names):
        raise ValueError(f"each network needs a model of its own, and they are {', '.join(names)}")
    stages = {network.previous_stage for network in manifest.networks} - {None}
    if not stages <= set(names):
        raise ValueError(
            f"the previous stage {', '.join(sorted(map(str, stages - set(names))))} is not among its networks"
        )
    final = [network for network in manifest.networks if network.model not in stages]
    if (len(final) == 1) != (manifest.combination == "single") or not final:
        raise ValueError(f"{len(final)} networks give results, which is no '{manifest.combination}'")
    for network in final:
        if (network.label_values is not None) != (manifest.combination == "merge"):
            raise ValueError(f"label_values belong to the networks of a merge; see {network.model}")
