"""A typed view of what nnU-Net v2 planned for one configuration of a model.

Only what inference needs is kept. What Limner can't do yet is refused here, by name, so that no later step has to
wonder: the branch that will do it belongs where the refusal now stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from operators.errors import ModelPackageError
from operators.model_package import ModelPackage

CONFIGURATION = "3d_fullres"
"""The configuration that is served."""
TILE_STEP = 0.5
"""Step between tiles as a share of the tile."""
_MOST_LABELS = 255
_SPATIAL_AXES = 3


@dataclass(frozen=True)
class CTNormalisation:
    """Clip to two percentiles of the training foreground, then subtract its mean and divide by its deviation."""

    lower: float
    upper: float
    mean: float
    deviation: float


@dataclass(frozen=True)
class Resampling:
    """How one kind of array changes its voxel spacing."""

    order: int
    """Order of the spline."""
    separate_z: bool | None
    """Whether the axis of lowest resolution is resampled apart, by nearest neighbour; None: when anisotropic."""


@dataclass(frozen=True)
class Configuration:
    """One planned configuration. Axes are nnU-Net's own: z, y, x after ``transpose_forward``."""

    spacing: tuple[float, float, float]
    """Voxel spacing in mm that the network was trained on, transposed axes."""
    patch_size: tuple[int, int, int]
    """Voxels of one tile, transposed axes."""
    transpose_forward: tuple[int, int, int]
    """From z, y, x to the transposed axes."""
    transpose_backward: tuple[int, int, int]
    """And back."""
    normalisation: CTNormalisation
    image_resampling: Resampling
    logits_resampling: Resampling
    classes: int
    """Channels of the logits, background included."""


def read_configuration(package: ModelPackage) -> Configuration:
    """Return the served configuration of `package`.

    Raises
    ------
    ModelPackageError
        ``configuration-unsupported`` if it needs what Limner can't do yet, ``plans-unreadable`` if a key is missing.
    """
    plans, dataset = package.plans, package.dataset
    try:
        configuration = _inherited(plans["configurations"], CONFIGURATION, package.name)
        _refuse_unsupported(package, configuration)
        return Configuration(
            spacing=_three(configuration["spacing"], float),
            patch_size=_three(configuration["patch_size"], int),
            transpose_forward=_three(plans["transpose_forward"], int),
            transpose_backward=_three(plans["transpose_backward"], int),
            normalisation=_normalisation(plans["foreground_intensity_properties_per_channel"]["0"]),
            image_resampling=_resampling(configuration, "data", package.name),
            logits_resampling=_resampling(configuration, "probabilities", package.name),
            classes=_classes(dataset["labels"], package.name),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelPackageError(
            f"model {package.name}: plans.json or dataset.json is not what nnU-Net v2 writes ({error!r})",
            code="plans-unreadable",
        ) from error


def _unsupported(model: str, what: str) -> ModelPackageError:
    return ModelPackageError(
        f"model {model} needs {what}, which is not supported yet; a single-channel CT model in the configuration "
        f"{CONFIGURATION} with plain labels is",
        code="configuration-unsupported",
    )


def _inherited(configurations: Mapping[str, Any], name: str, model: str) -> dict[str, Any]:
    """One configuration with what it takes over from others (``inherits_from``)."""
    if name not in configurations:
        raise _unsupported(model, f"another configuration than {name} ({', '.join(sorted(configurations))})")
    own = dict(configurations[name])
    parent = own.pop("inherits_from", None)
    return own if parent is None else {**_inherited(configurations, parent, model), **own}


def _refuse_unsupported(package: ModelPackage, configuration: Mapping[str, Any]) -> None:
    plans, dataset, model = package.plans, package.dataset, package.name
    if len(configuration["patch_size"]) != _SPATIAL_AXES:
        raise _unsupported(model, "a two-dimensional network")
    if configuration.get("previous_stage") is not None:
        raise _unsupported(model, "the segmentation of a previous stage (a cascade)")
    if len(dataset["channel_names"]) != 1:
        raise _unsupported(model, f"{len(dataset['channel_names'])} input channels")
    if configuration["normalization_schemes"] != ["CTNormalization"]:
        raise _unsupported(model, f"the normalisation {', '.join(configuration['normalization_schemes'])}")
    # mirroring multiplies the tiles; its axes are not in plans.json but in the checkpoint, so the card must carry them
    if package.card.get("mirroring_axes"):
        raise _unsupported(model, "mirroring at inference")
    if package.card.get("tile_step_size", TILE_STEP) != TILE_STEP:
        raise _unsupported(model, f"the tile step {package.card['tile_step_size']}")
    if package.card.get("configuration", CONFIGURATION) != CONFIGURATION:
        raise _unsupported(model, f"the configuration {package.card['configuration']}")
    for key, usual in (
        ("image_reader_writer", "SimpleITKIO"),  # another reader has other axes
        ("label_manager", "LabelManager"),
    ):
        if plans.get(key, usual) != usual:
            raise _unsupported(model, f"the {key} {plans[key]}")
    if configuration.get("preprocessor_name", "DefaultPreprocessor") != "DefaultPreprocessor":
        raise _unsupported(model, f"the preprocessor {configuration['preprocessor_name']}")


def _normalisation(properties: Mapping[str, Any]) -> CTNormalisation:
    return CTNormalisation(
        lower=float(properties["percentile_00_5"]),
        upper=float(properties["percentile_99_5"]),
        mean=float(properties["mean"]),
        deviation=float(properties["std"]),
    )


def _resampling(configuration: Mapping[str, Any], what: str, model: str) -> Resampling:
    function = configuration[f"resampling_fn_{what}"]
    if function != "resample_data_or_seg_to_shape":
        raise _unsupported(model, f"the resampling function {function}")
    arguments = configuration[f"resampling_fn_{what}_kwargs"]
    if arguments.get("order_z", 0) != 0:
        raise _unsupported(model, f"resampling of order {arguments['order_z']} across slices")
    return Resampling(order=int(arguments["order"]), separate_z=arguments.get("force_separate_z"))


def _classes(labels: Mapping[str, Any], model: str) -> int:
    if any(isinstance(value, list) for value in labels.values()):
        raise _unsupported(model, "regions (labels made of several labels)")
    if "ignore" in labels:
        raise _unsupported(model, "an ignore label")
    if len(labels) > _MOST_LABELS:
        raise _unsupported(model, f"{len(labels)} labels")
    if sorted(labels.values()) != list(range(len(labels))):
        raise ValueError("labels must be numbered from 0 without gaps")
    return len(labels)


def _three(values: Any, kind: type[Any]) -> tuple[Any, Any, Any]:
    first, second, third = (kind(value) for value in values)
    return first, second, third
