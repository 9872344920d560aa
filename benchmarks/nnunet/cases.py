"""What is measured: volumes, networks, and which of them together are a case."""

from __future__ import annotations

from dataclasses import dataclass, replace

Triple = tuple[int, int, int]
Spacing = tuple[float, float, float]

SINGLE = "single"
"""The driver's word for nnU-Net's labels as they are when it sums up in single precision."""
DEMO_MODEL = "nnunet_liver_spleen_demo"
SMALL_FEATURES = (8, 16, 32, 64)
QUICK_FEATURES = (16, 32)
DEFAULT_FEATURES = (32, 64, 128, 256, 320, 320)
"""Those that nnU-Net plans for a patch of 128 voxels along each axis: 31 million parameters."""
SMALL_SCAN: Triple = (128, 256, 256)
QUICK_SCAN: Triple = (96, 128, 128)
SCAN_MM: Spacing = (2.5, 1.0, 1.0)
"""Of those two."""


@dataclass(frozen=True)
class Model:
    """A network that is made for the benchmark, from a seed."""

    name: str
    classes: int
    """Background included."""
    patch: int
    """Voxels along each axis."""
    features: tuple[int, ...]
    """Of each stage, twice as coarse as the one before."""
    steps: int
    """Of training; without any, the weights are random."""
    convolutions: int = 2
    """Of each stage."""
    scan: Triple = (96, 192, 192)
    """Voxels of the phantoms it is trained on, z, y, x."""


@dataclass(frozen=True)
class Case:
    """One volume and one network."""

    name: str
    title: str
    model: Model | None
    """None for the demonstration model."""
    shape: Triple | None
    """Voxels of the phantom, z, y, x; None for a real CT."""
    spacing: Spacing = (1.0, 1.0, 1.0)
    """In mm, z, y, x, of the phantom."""
    is_forward_replaced: bool = False
    """Whether a cheap function answers in the network's place, on both sides the same."""
    rounds: int = 1
    has_sound_labels: bool = True
    """Whether the network was trained, so that labels are not a matter of rounding."""

    @property
    def model_name(self) -> str:
        """The name of its model's folder."""
        return DEMO_MODEL if self.model is None else self.model.name


SMALL_3 = Model("bench_small_3", classes=3, patch=64, features=SMALL_FEATURES, steps=120)
SMALL_25 = Model("bench_small_25", classes=25, patch=64, features=SMALL_FEATURES, steps=400)
DEFAULT_25 = Model("bench_default_25", classes=25, patch=128, features=DEFAULT_FEATURES, steps=0)
DEFAULT_3 = replace(DEFAULT_25, name="bench_default_3", classes=3)
QUICK_3 = Model(
    "bench_quick_3", classes=3, patch=48, features=QUICK_FEATURES, steps=40, convolutions=1, scan=QUICK_SCAN
)
QUICK_25 = replace(QUICK_3, name="bench_quick_25", classes=25, steps=120)

FULL_25 = Case(
    "full-25",
    "300x512x512 at 1/0.8/0.8 mm, 25 classes, patch 128, forward pass replaced",
    DEFAULT_25,
    (300, 512, 512),
    (1.0, 0.8, 0.8),
    is_forward_replaced=True,
)
FULL_3 = replace(
    FULL_25,
    name="full-3",
    title="300x512x512 at 1/0.8/0.8 mm, 3 classes, patch 128, forward pass replaced",
    model=DEFAULT_3,
    rounds=3,
)
DEFAULT = Case(
    "default-network",
    "one patch of 128x128x128 through nnU-Net's default network of 31 million parameters, 25 classes",
    DEFAULT_25,
    (128, 128, 128),
    (1.5, 1.5, 1.5),
    rounds=3,
    has_sound_labels=False,
)
CASES = (
    Case("small-3", "128x256x256 at 2.5/1/1 mm, 3 classes, patch 64", SMALL_3, SMALL_SCAN, SCAN_MM),
    Case("small-25", "128x256x256 at 2.5/1/1 mm, 25 classes, patch 64", SMALL_25, SMALL_SCAN, SCAN_MM),
    Case("torso", "a real CT of the torso with the demonstration model, 3 classes", None, None, rounds=3),
    DEFAULT,
    FULL_3,
    FULL_25,
)
QUICK_CASES = (
    Case("quick-3", "96x128x128 at 2.5/1/1 mm, 3 classes, patch 48", QUICK_3, QUICK_SCAN, SCAN_MM),
    Case("quick-25", "96x128x128 at 2.5/1/1 mm, 25 classes, patch 48", QUICK_25, QUICK_SCAN, SCAN_MM),
)
FULL_BYTES = 14 << 30
"""Free memory without which the full case with 25 classes is left out: nnU-Net's way takes about 10 GB for it."""
