"""A typed view of what nnU-Net v2 planned for one configuration of a network: only what inference needs.

What Limner can't do is refused here, by name, so that no later step has to wonder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from operators.errors import ModelPackageError
from operators.label_scheme import LabelScheme
from operators.model_package import ModelPackage, Network, channel_names
from operators.nnunet.normalisation import NORMALISATIONS, Normalisation, read_normalisation

_SPATIAL_AXES = 3
_RESAMPLING = "resample_data_or_seg_to_shape"
_LOGITS_ORDERS = (0, 1)
"""Splines whose values never leave the range of their neighbours: what the way back to labels rests on."""
_READERS = ("SimpleITKIO", "SimpleITKIOWithReorient", "NibabelIO", "NibabelIOWithReorient")
"""All of them give z, y, x; how they turn the image is the manifest's ``orientation``."""


@dataclass(frozen=True)
class Resampling:
    """How one kind of array changes its voxel spacing."""

    order: int
    """Order of the spline."""
    separate_z: bool | None
    """Whether the axis of lowest resolution is resampled apart, by nearest neighbour; None: when anisotropic."""
    anisotropy: float = 3.0
    """Ratio of the largest to the smallest spacing above which it counts as anisotropic."""


@dataclass(frozen=True)
class Configuration:
    """One planned configuration. Axes are nnU-Net's own: z, y, x after ``transpose_forward``."""

    spacing: tuple[float, ...]
    """Voxel spacing in mm that the network was trained on, transposed axes; of the last two axes if it is 2d."""
    patch_size: tuple[int, ...]
    """Voxels of one tile, transposed axes; of the last two axes if it is 2d."""
    transpose_forward: tuple[int, int, int]
    """From z, y, x to the transposed axes."""
    transpose_backward: tuple[int, int, int]
    """And back."""
    normalisations: tuple[Normalisation, ...]
    """One an image channel."""
    image_resampling: Resampling
    labels_resampling: Resampling
    """Of the previous stage's labels."""
    logits_resampling: Resampling
    labels: LabelScheme
    sees_labels: bool
    """Whether the previous stage's labels come after the image's channels, one channel a foreground label."""
    mirroring_axes: tuple[int, ...]
    """Of the tile's spatial axes."""
    tile_step_size: float

    @property
    def channels(self) -> int:
        """Channels of the network's input."""
        return len(self.normalisations) + (len(self.labels.foreground) if self.sees_labels else 0)

    @property
    def is_2d(self) -> bool:
        """Whether the network sees single slices."""
        return len(self.patch_size) < _SPATIAL_AXES


def read_configuration(network: Network) -> Configuration:
    """Return the configuration of `network`.

    Raises
    ------
    ModelPackageError
        ``configuration-missing`` if the plans have none of that name, ``configuration-unsupported`` if it needs what
        Limner can't do, ``plans-unreadable`` if a key is missing or wrong.
    """
    plans = network.plans
    try:
        planned = _inherited(plans["configurations"], network.configuration, network.name)
        _refuse_unsupported(network, planned)
        return Configuration(
            spacing=_numbers(planned["spacing"], len(planned["patch_size"]), float),
            patch_size=_numbers(planned["patch_size"], len(planned["patch_size"]), int),
            transpose_forward=_three(plans["transpose_forward"]),
            transpose_backward=_three(plans["transpose_backward"]),
            normalisations=_normalisations(network, planned),
            image_resampling=_resampling(planned, "data", network.name),
            labels_resampling=_resampling(planned, "seg", network.name),
            logits_resampling=_resampling(planned, "probabilities", network.name),
            labels=network.labels,
            sees_labels=planned.get("previous_stage") is not None,
            mirroring_axes=network.mirroring_axes,
            tile_step_size=network.tile_step_size,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelPackageError(
            f"model {network.name}: plans.json or dataset.json is not what nnU-Net v2 writes ({error!r})",
            code="plans-unreadable",
        ) from error


def check_supported(package: ModelPackage) -> None:
    """Read the configuration of each of the package's networks; raise what `read_configuration` raises."""
    for network in package.all_networks:
        read_configuration(network)


def _unsupported(model: str, what: str) -> ModelPackageError:
    return ModelPackageError(
        f"model {model} needs {what}, which is not supported; docs/explanation/nnunet.md says what is: plan and train "
        "with that",
        code="configuration-unsupported",
    )


def _inherited(configurations: Mapping[str, Any], name: str, model: str, heirs: Sequence[str] = ()) -> dict[str, Any]:
    """One configuration with what it takes over from others (``inherits_from``)."""
    if name not in configurations:
        raise ModelPackageError(
            f"model {model} needs the configuration {name}, and its plans have {', '.join(sorted(configurations))}",
            code="configuration-missing",
        )
    if name in heirs:
        raise ValueError(f"the configurations {', '.join(heirs)} inherit from each other")
    own = dict(configurations[name])
    parent = own.pop("inherits_from", None)
    return own if parent is None else {**_inherited(configurations, parent, model, (*heirs, name)), **own}


def _refuse_unsupported(network: Network, planned: Mapping[str, Any]) -> None:
    if len(planned["patch_size"]) not in (2, _SPATIAL_AXES):
        raise _unsupported(network.name, f"tiles of {len(planned['patch_size'])} axes")
    if (planned.get("previous_stage") is None) != (network.previous_stage is None):
        raise ValueError("the manifest and the plans disagree on whether there is a previous stage")
    if not set(network.mirroring_axes) <= set(range(len(planned["patch_size"]))):
        raise ValueError(f"mirroring_axes {network.mirroring_axes} are not axes of its tiles")
    if network.plans.get("image_reader_writer", "SimpleITKIO") not in _READERS:
        raise _unsupported(network.name, f"the image_reader_writer {network.plans['image_reader_writer']}")
    if network.plans.get("label_manager", "LabelManager") != "LabelManager":
        raise _unsupported(network.name, f"the label_manager {network.plans['label_manager']}")
    if planned.get("preprocessor_name", "DefaultPreprocessor") != "DefaultPreprocessor":
        raise _unsupported(network.name, f"the preprocessor {planned['preprocessor_name']}")


def _normalisations(network: Network, planned: Mapping[str, Any]) -> tuple[Normalisation, ...]:
    names, masked = planned["normalization_schemes"], planned["use_mask_for_norm"]
    # what plans before nnU-Net 2.1 called them
    intensities = network.plans.get("foreground_intensity_properties_per_channel") or network.plans.get(
        "foreground_intensity_properties_by_modality", {}
    )
    channels = channel_names(network.dataset)
    if not len(names) == len(masked) == len(channels):
        raise ValueError(f"{len(names)} normalisations for {len(channels)} channels")
    found = []
    for number, (name, use_mask) in enumerate(zip(names, masked, strict=True)):
        normalisation = read_normalisation(str(name), bool(use_mask), intensities.get(str(number), {}))
        if normalisation is None:
            known = ", ".join(NORMALISATIONS)
            raise _unsupported(
                network.name, f"the normalisation {name} of its channel {channels[number]} (known are {known})"
            )
        found.append(normalisation)
    return tuple(found)


def _resampling(planned: Mapping[str, Any], what: str, model: str) -> Resampling:
    function, arguments = planned[f"resampling_fn_{what}"], planned[f"resampling_fn_{what}_kwargs"]
    if function != _RESAMPLING:
        raise _unsupported(model, f"the resampling function {function}")
    if arguments.get("order_z", 0) != 0:
        raise _unsupported(model, f"resampling of order {arguments['order_z']} across slices")
    order = int(arguments["order"])
    if what != "data" and order not in _LOGITS_ORDERS:
        raise _unsupported(model, f"resampling of {what} by splines of order {order}")
    return Resampling(
        order=order,
        separate_z=arguments.get("force_separate_z", False),
        anisotropy=float(arguments.get("separate_z_anisotropy_threshold", 3.0)),
    )


def _numbers(values: Any, count: int, kind: type[Any]) -> tuple[Any, ...]:
    if len(values) != count:
        raise ValueError(f"expected {count} numbers, got {values}")
    return tuple(kind(value) for value in values)


def _three(values: Any) -> tuple[int, int, int]:
    first, second, third = (int(value) for value in values)
    return first, second, third
