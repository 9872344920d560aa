"""The fixtures of nnU-Net's inference, as tests read them: tiny trained networks and what nnU-Net itself answered.

``tests/fixtures/nnunet/README.md`` says what each is there for. Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from operators.model_manifest import MANIFEST_FILE

MODELS = Path(__file__).resolve().parent / "fixtures" / "nnunet" / "models"
NAMES = tuple(sorted(folder.name for folder in MODELS.iterdir() if folder.is_dir()))

Array = NDArray[Any]
_IMAGE = "image_"


@dataclass(frozen=True)
class Case:
    """One image and nnU-Net's answers. Arrays are (z, y, x); spacing likewise, in mm."""

    name: str
    image: Array
    """(channel, z, y, x); int16 or float32."""
    spacing: tuple[float, float, float]
    labels: Array
    """With nnU-Net's sums in half precision, as it is; uint8, or uint16 beyond 254 labels."""
    labels_single: Array
    """With its sums in single precision."""
    more: Mapping[str, Array]
    """What only some fixtures have: ``labels_postprocessed``, ``labels_previous`` and the same with ``_single``;
    and, of the first network, ``preprocessed`` (channel, plane, y, x; transposed axes), ``preprocessed_planes`` (which
    planes of the first axis they are) and ``preprocessed_shape`` (of the whole)."""


@dataclass(frozen=True)
class Fixture:
    """One folder of ``models/``."""

    name: str
    repository: Path
    """A Triton model repository of this fixture's networks."""
    package: Path
    """The folder in it that has the manifest."""
    results: tuple[Path, ...]
    """What nnU-Net left: folders with ``plans.json``, ``dataset.json`` and ``fold_<n>/checkpoint_final.pth``."""
    cases: tuple[Case, ...]

    def case(self, name: str) -> Case:
        """Return one case by its name."""
        return next(case for case in self.cases if case.name == name)


def read_fixture(name: str) -> Fixture:
    """Read a fixture of `NAMES`."""
    folder = MODELS / name
    with np.load(folder / "expected.npz") as file:
        arrays = dict(file)
    names = [key.removeprefix(_IMAGE) for key in arrays if key.startswith(_IMAGE)]
    (manifest,) = (folder / "repository").glob(f"*/{MANIFEST_FILE}")
    return Fixture(
        name=name,
        repository=folder / "repository",
        package=manifest.parent,
        results=tuple(sorted(path.parent for path in (folder / "results").glob("*/*/plans.json"))),
        cases=tuple(_case(name, arrays) for name in names),
    )


def _case(name: str, arrays: Mapping[str, Array]) -> Case:
    own = {key.removesuffix(f"_{name}"): array for key, array in arrays.items() if key.endswith(f"_{name}")}
    z, y, x = (float(step) for step in own.pop("spacing"))
    return Case(
        name, own.pop("image"), (z, y, x), labels=own.pop("labels"), labels_single=own.pop("labels_single"), more=own
    )
