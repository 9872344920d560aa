"""The whole of nnU-Net v2's inference on one image, with the networks behind functions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from operators.errors import ModelPackageError, SeriesRefused
from operators.model_package import ModelPackage, Network
from operators.nnunet.components import keep_largest_component
from operators.nnunet.plans import Configuration, read_configuration
from operators.nnunet.postprocess import paint_labels
from operators.nnunet.prediction import Infer, predict_planes
from operators.nnunet.preprocess import Placement, place, preprocess
from operators.nnunet.probabilities import Member, StoredPlanes, paint_mean
from operators.nnunet.probability_maps import ProbabilityMaps
from operators.nnunet.resampling import Spacing
from operators.nnunet.sliding_window import Plane, TilePlan

Progress = Callable[[int, int], None]
"""Told the tiles done and the tiles in all."""
Channels = Sequence[NDArray[np.float32]]


def segment_volume(
    channels: Channels,
    spacing: Spacing,
    package: ModelPackage,
    networks: Mapping[str, Infer],
    progress: Progress,
    scratch_folder: Path | None = None,
    maps: ProbabilityMaps | None = None,
) -> NDArray[Any]:
    """Return the labels, axes z, y, x, that nnU-Net gives for the same arrays; uint8, or uint16 beyond 254 labels.

    Parameters
    ----------
    channels
        The images in the model's order, axes z, y, x, all on one grid: as a reader finds them, or turned as the
        networks' ``orientation`` says.
    spacing
        In mm, z, y, x.
    package
        The model: plans and labels.
    networks
        The networks by name.
    progress
        Told the tiles done and the tiles in all, of all networks.
    scratch_folder
        Where an ensemble keeps logits; the system's temporary folder if not given.
    maps
        Gets the probabilities before postprocessing, if it is given. A merge of networks has none of one kind.

    Raises
    ------
    ModelPackageError
        If the model needs what is not supported.
    SeriesRefused
        ``channel-missing`` if there are not as many images as the model takes; what `place` and normalisations refuse.
    InferenceFailed
        If a network can't be reached or answers with what was not planned.
    """
    if len(channels) != len(package.channel_names):
        raise SeriesRefused(
            f"the model takes {len(package.channel_names)} images: {', '.join(package.channel_names)}; "
            f"got {len(channels)}; bind each to a series with the rule's channels",
            code="channel-missing",
        )
    runs = {network.name: _Run.of(network, channels, spacing) for network in package.all_networks}
    count = _Count(sum(run.plan.count for run in runs.values()), progress)
    labels = _combined(package, _Predictions(channels, runs, networks, count), scratch_folder, maps)
    for group in package.postprocessing:
        labels = keep_largest_component(labels, group)
    return labels


@dataclass(frozen=True)
class _Run:
    """What is known of a network's work before it begins."""

    configuration: Configuration
    placement: Placement
    plan: TilePlan

    @classmethod
    def of(cls, network: Network, channels: Channels, spacing: Spacing) -> _Run:
        configuration = read_configuration(network)
        placement = place(channels, spacing, configuration)
        return cls(configuration, placement, TilePlan(placement.network_shape, configuration))


class _Count:
    """Counts tiles over all networks."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._done, self._total, self._progress = 0, total, progress
        progress(0, total)

    def more(self, tiles: int) -> None:
        """Note that so many more tiles are done."""
        self._done += tiles
        self._progress(self._done, self._total)


class _Predictions:
    """Runs networks, their previous stages first."""

    def __init__(
        self, channels: Channels, runs: Mapping[str, _Run], networks: Mapping[str, Infer], count: _Count
    ) -> None:
        self._channels = channels
        self._runs = runs
        self._networks = networks
        self._count = count

    def planes(self, network: Network) -> Iterator[Plane]:
        """Yield a network's planes of logits."""
        run = self._runs[network.name]
        previous = None if network.previous_stage is None else self.labels(network.previous_stage)
        image = preprocess(self._channels, run.placement, run.configuration, previous)
        return predict_planes(image, run.configuration, self._networks[network.name], self._count.more)

    def labels(self, network: Network, maps: ProbabilityMaps | None = None) -> NDArray[Any]:
        """Return a network's labels; `maps` gets the probabilities."""
        run = self._runs[network.name]
        return paint_labels(self.planes(network), run.placement, run.configuration, maps)

    def member(self, network: Network, folder: Path | None) -> Member:
        """Return a network's planes, kept on disk."""
        run = self._runs[network.name]
        return Member(StoredPlanes(self.planes(network), folder), run.placement, run.configuration)


def _combined(
    package: ModelPackage, predictions: _Predictions, folder: Path | None, maps: ProbabilityMaps | None
) -> NDArray[Any]:
    match package.combination:
        case "single":
            return predictions.labels(package.networks[0], maps)
        case "merge":
            if maps is not None:
                raise ModelPackageError(
                    f"{package.name} is a merge of networks, which have no probabilities in common; take 'fractional' "
                    "out of the rule's or the destination's results",
                    code="probabilities-unsupported",
                )
            return _merged(package.networks, predictions)
        case "mean-of-probabilities":
            _check_axes(package)
            with contextlib.ExitStack() as stack:
                members = [predictions.member(network, folder) for network in package.networks]
                for member in members:
                    stack.enter_context(member.planes)
                return paint_mean(members, maps)


def _check_axes(package: ModelPackage) -> None:
    if len({read_configuration(network).transpose_forward for network in package.networks}) > 1:
        raise ModelPackageError(
            f"the networks of the ensemble {package.name} transpose axes differently, which is not supported",
            code="configuration-unsupported",
        )


def _merged(networks: Sequence[Network], predictions: _Predictions) -> NDArray[Any]:
    """Paint the networks' labels in their order, each in the model's own numbers."""
    most = max(value for network in networks for value in (network.label_values or {}).values())
    merged: NDArray[Any] | None = None
    for network in networks:
        values = np.zeros(int(max(network.labels.painted)) + 1, np.min_scalar_type(most))
        for own, common in (network.label_values or {}).items():
            values[own] = common
        painted = values[predictions.labels(network)]
        merged = painted if merged is None else np.where(painted != 0, painted, merged)
    if merged is None:
        raise ModelPackageError("a merge needs networks", code="configuration-unsupported")
    return merged
