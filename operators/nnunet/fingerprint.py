"""What the training of an nnU-Net found of the intensities of its foreground: its fingerprint."""

from __future__ import annotations

from operators.gate.intensity import IntensityRange
from operators.model_package import ModelPackage
from operators.nnunet.normalisation import CTNormalisation
from operators.nnunet.plans import read_configuration


def intensity_ranges(package: ModelPackage) -> tuple[IntensityRange | None, ...]:
    """Return what the foreground of each image channel lay between, over all the package's networks.

    None for a channel that a network does not normalise as CT: its values have no scale of their own.

    Raises
    ------
    ModelPackageError
        If the plans can't be used.
    """
    networks = [read_configuration(network).normalisations for network in package.all_networks]
    ranges: list[IntensityRange | None] = []
    for schemes in zip(*networks, strict=True):
        trained = [scheme for scheme in schemes if isinstance(scheme, CTNormalisation)]
        if len(trained) < len(schemes):
            ranges.append(None)
        else:
            ranges.append(IntensityRange(min(one.lower for one in trained), max(one.upper for one in trained)))
    return tuple(ranges)
