"""Does what was made of a network compute what the network computes? The fixed volumes, the figures and the limits.

Both sides see the same volumes: seeded, of the planned patch, at the scale on which normalised images lie. What is
exact (the ONNX graph in single precision, and that graph as Triton serves it) must keep `EXACT`; what is derived from
it (half precision, an engine, another runtime) must keep `DERIVED`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import ImportRefused

Array = NDArray[np.float32]

SEED = 20
_OUTLIER = 1000.0
_BLOBS = 12
_FAINT = 0.02
_BACKGROUND = "background"
_IGNORE = "ignore"


@dataclass(frozen=True)
class Limits:
    """What must be kept for each class, over all the fixed volumes."""

    logit_error: float | None
    """The largest error of a logit, as a share of the range of all logits of that volume; None: not looked at."""
    agreement: float
    """The least share of voxels in which both say the same of the class."""
    dice: float | None
    """The least Dice coefficient between both; None: not looked at."""


EXACT_ERROR = 5e-3
"""Single precision is not exact: ONNX Runtime sums the voxels of a channel one after the other to normalise it, and
where large parts of a patch are flat that strays by 0.0006 of the layer's range in 128³ voxels, and more in larger
patches; torch's sums stray by 0.0000001."""
EXACT = Limits(logit_error=EXACT_ERROR, agreement=0.999, dice=None)
DERIVED = Limits(logit_error=None, agreement=0.999, dice=0.999)


@dataclass(frozen=True)
class Scale:
    """Where the values of one input channel lie."""

    low: float
    high: float
    lowest: float
    """The most that can still come, such as the lower end of a clip."""
    highest: float


@dataclass(frozen=True)
class ClassFigures:
    """How one class fared."""

    name: str
    largest_error: float
    mean_error: float
    relative_error: float
    """The largest error as a share of the range of the logits of its volume."""
    agreement: float
    dice: float
    worst_volume: str
    """That of the largest relative error."""
    finite: bool


def scale_of(normalisation: str, intensity: Mapping[str, float]) -> Scale:
    """Return the scale of an image channel.

    Parameters
    ----------
    normalisation
        As nnU-Net calls it.
    intensity
        The training foreground's properties of the channel, if the plans have any.
    """
    match normalisation:
        case "CTNormalization":
            mean, deviation = float(intensity["mean"]), max(float(intensity["std"]), 1e-8)
            low = (float(intensity["percentile_00_5"]) - mean) / deviation
            high = (float(intensity["percentile_99_5"]) - mean) / deviation
            return Scale(low, high, low, high)
        case "RescaleTo01Normalization" | "RGBTo01Normalization":
            return Scale(0, 1, 0, 1)
        case "NoNormalization" if "percentile_00_5" in intensity:
            return Scale(
                float(intensity["percentile_00_5"]),
                float(intensity["percentile_99_5"]),
                float(intensity["min"]),
                float(intensity["max"]),
            )
        case _:
            # a z-score: metal and motion leave single voxels hundreds of deviations out
            return Scale(-3, 3, -_OUTLIER, _OUTLIER)


LABELS_SCALE = Scale(0, 1, 0, 1)
"""Of a channel that says where the previous stage saw a label."""


def fixed_volumes(scales: Sequence[Scale], patch: Sequence[int], *, seed: int = SEED) -> dict[str, Array]:
    """Return the volumes by name, each of shape (channel, *patch)."""
    generator = np.random.default_rng(seed)
    shape = (len(scales), *patch)
    column = (len(scales), *(1 for _ in patch))
    low, high, lowest, highest = (
        np.array([getattr(scale, name) for scale in scales]).reshape(column)
        for name in ("low", "high", "lowest", "highest")
    )
    middle, half = (low + high) / 2, (high - low) / 2
    made = {
        "noise": middle + half / 2 * generator.standard_normal(shape),
        "blobs": middle + half * _blobs(shape, generator),
        "ramp": low + (high - low) * _ramps(shape),
        # not quite constant: normalising what has no deviation at all gives rounding, on either side another
        "faint": middle + _FAINT * half * generator.standard_normal(shape),
        "extreme": np.where(_blobs(shape, generator) > 0, highest, lowest),
    }
    return {name: np.ascontiguousarray(volume, np.float32) for name, volume in made.items()}


def _blobs(shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[np.float64]:
    """Ellipsoids with sharp edges, -1 to 1, in each channel others."""
    volume = np.full(shape, -0.8)
    grid = np.stack(np.meshgrid(*(np.linspace(0, 1, size) for size in shape[1:]), indexing="ij"))
    for channel in volume:
        for _ in range(_BLOBS):
            centre, radii = generator.uniform(0, 1, len(grid)), generator.uniform(0.08, 0.35, len(grid))
            away = sum(((axis - c) / r) ** 2 for axis, c, r in zip(grid, centre, radii, strict=True))
            channel[np.asarray(away) < 1] = generator.uniform(-1, 1)
    return volume


def _ramps(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """From 0 in one corner to 1 in the opposite one; every second channel the other way."""
    axes = np.meshgrid(*(np.linspace(0, 1, size) for size in shape[1:]), indexing="ij")
    ramp = np.mean(axes, axis=0)
    return np.stack([ramp if number % 2 == 0 else 1 - ramp for number in range(shape[0])])


def class_names(dataset: Mapping[str, Any]) -> tuple[tuple[str, ...], bool]:
    """Return what each head of the network is called in ``dataset.json``, and whether heads are regions."""
    labels: Mapping[str, Any] = dataset["labels"]
    has_regions = any(isinstance(value, (list, tuple)) and len(value) > 1 for value in labels.values())
    if has_regions:
        return tuple(name for name in labels if name not in (_BACKGROUND, _IGNORE)), True
    valued = {int(value[0] if isinstance(value, (list, tuple)) else value): name for name, value in labels.items()}
    return tuple(valued[value] for value in sorted(valued) if valued[value] != _IGNORE), False


def extent_of(values: NDArray[Any]) -> float:
    """Return the range of `values`, never 0: what an error is set against."""
    return max(float(np.max(values) - np.min(values)), float(np.finfo(np.float32).tiny))


class Comparison:
    """Gathers, volume by volume, how far one side strays from the other.

    Parameters
    ----------
    classes
        What the heads are called.
    has_regions
        Whether each head decides for itself; else the largest logit does.
    """

    def __init__(self, classes: Sequence[str], *, has_regions: bool) -> None:
        count = len(classes)
        self._classes = tuple(classes)
        self._has_regions = has_regions
        self._largest, self._relative, self._sum = np.zeros(count), np.zeros(count), np.zeros(count)
        self._worst = [""] * count
        self._finite = np.ones(count, bool)
        self._voxels = 0
        self._same, self._both, self._either = (np.zeros(count, np.int64) for _ in range(3))

    def add(self, volume: str, expected: Array, found: Array) -> None:
        """Take in the logits of one volume, both of shape (class, *patch).

        Raises
        ------
        ImportRefused
            ``parity-shape`` if `found` is of another shape.
        """
        if found.shape != expected.shape or len(expected) != len(self._classes):
            raise ImportRefused(
                f"{len(self._classes)} classes are named in dataset.json, the network answers {list(expected.shape)} "
                f"and what was made of it {list(found.shape)}",
                code="parity-shape",
            )
        extent = extent_of(expected)
        self._voxels += expected[0].size
        for number in range(len(self._classes)):
            finite = bool(np.isfinite(found[number]).all() and np.isfinite(expected[number]).all())
            error = np.abs(found[number].astype(np.float64) - expected[number]) if finite else np.array([np.inf])
            if not finite:
                self._finite[number] = False
            if error.max() / extent > self._relative[number] or not self._worst[number]:
                self._worst[number] = volume
            self._largest[number] = max(self._largest[number], error.max())
            self._relative[number] = max(self._relative[number], error.max() / extent)
            self._sum[number] += error.sum()
        for number, (one, other) in enumerate(zip(self._members(expected), self._members(found), strict=True)):
            self._same[number] += np.count_nonzero(one == other)
            self._both[number] += np.count_nonzero(one & other)
            self._either[number] += np.count_nonzero(one) + np.count_nonzero(other)

    def figures(self) -> tuple[ClassFigures, ...]:
        """How each class fared in all volumes so far."""
        return tuple(
            ClassFigures(
                name=name,
                largest_error=float(self._largest[number]),
                mean_error=float(self._sum[number] / max(self._voxels, 1)),
                relative_error=float(self._relative[number]),
                agreement=float(self._same[number] / max(self._voxels, 1)),
                dice=float(2 * self._both[number] / self._either[number]) if self._either[number] else 1.0,
                worst_volume=self._worst[number],
                finite=bool(self._finite[number]),
            )
            for number, name in enumerate(self._classes)
        )

    def worst(self, limits: Limits) -> ClassFigures | None:
        """Return the class that strays most, if any strays beyond `limits`."""
        beyond = [one for one in self.figures() if _faults(one, limits)]
        return max(beyond, key=lambda one: (not one.finite, one.relative_error), default=None)

    def as_json(self) -> list[dict[str, Any]]:
        """The figures for a manifest."""
        return [asdict(one) for one in self.figures()]

    def _members(self, logits: Array) -> Iterator[NDArray[np.bool_]]:
        if self._has_regions:
            yield from (one > 0 for one in logits)
            return
        labels = logits.argmax(0)
        yield from (labels == number for number in range(len(logits)))


def describe(figures: ClassFigures, limits: Limits) -> str:
    """Say in words how a class strays beyond `limits`."""
    faults = "; ".join(_faults(figures, limits))
    return f"class {figures.name}: {faults} (worst in the volume '{figures.worst_volume}')"


def _faults(figures: ClassFigures, limits: Limits) -> list[str]:
    if not figures.finite:
        return ["a logit is not a finite number"]
    found = []
    if limits.logit_error is not None and figures.relative_error > limits.logit_error:
        found.append(
            f"a logit is off by {figures.largest_error:.3g}, {figures.relative_error:.2g} of their range where "
            f"{limits.logit_error:g} is allowed"
        )
    if figures.agreement < limits.agreement:
        found.append(f"{figures.agreement:.5f} of the voxels agree where {limits.agreement:g} must")
    if limits.dice is not None and figures.dice < limits.dice:
        found.append(f"a Dice coefficient of {figures.dice:.5f} where {limits.dice:g} is needed")
    return found
