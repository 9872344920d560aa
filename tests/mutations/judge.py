"""What a reader makes of a damaged series: it refuses, reads the true volume, reads another one, or breaks."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np

from operators.errors import SeriesRefused
from operators.gate.gate import Gate
from operators.gate.intended_use import read_intended_use
from operators.gate.intensity import IntensityRange
from operators.series_volume import read_series
from tests.mutations import kinds  # noqa: F401 - fills KINDS
from tests.mutations.kind import Kind, Truth
from tests.mutations.series import Modality, Placed, clean_files, clean_series, clean_volume, encoded, truth_of

_AFFINE_TOLERANCE_MM = 1e-6
"""Decimal Strings hold 16 characters, so that numbers of no short writing are not exact."""


class Outcome(StrEnum):
    """What became of a series."""

    REFUSED = "refused"
    """The reader said that it does not read it; the detail is its code, or the error's type."""
    SAME = "same"
    """It read the true volume: every voxel, and where it lies."""
    ANOTHER = "another"
    """It read another volume and said nothing; the detail says what differs."""
    BROKE = "broke"
    """It ended as it must not: an error that it does not raise on purpose, a signal, no answer."""


@dataclass(frozen=True)
class Verdict:
    """An outcome and what there is to say of it."""

    outcome: Outcome
    detail: str = ""
    notes: tuple[str, ...] = ()
    """Codes of what the reader said of a series that it read."""


Reader = Callable[[Sequence[Path]], tuple[Placed, tuple[str, ...]]]
"""Returns the volume and the codes of what there is to say of it."""


def judge(kind: Kind, modality: Modality) -> Verdict:
    """Damage the series of `modality` and say what Limner makes of it."""
    with tempfile.TemporaryDirectory() as folder:
        files, truth = damaged(kind, modality, Path(folder))
        return verdict_of(reader_of_limner(modality), files, truth)


def damaged(kind: Kind, modality: Modality, folder: Path) -> tuple[list[Path], Placed]:
    """Write the damaged series into `folder`; return its files and the true volume."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom doubts what is written here, and is right
        if kind.on_files:
            contents = kind.damage(list(clean_files(modality)))
        else:
            series = kind.damage(clean_series(modality))
            contents = [encoded(dataset) for dataset in series]
        truth = truth_of(series) if kind.own_truth else clean_volume(modality)
    files = [folder / f"{number:04d}.dcm" for number in range(len(contents))]
    for path, content in zip(files, contents, strict=True):
        path.write_bytes(content)
    return files, truth


def verdict_of(read: Reader, files: Sequence[Path], truth: Placed) -> Verdict:
    """Have a series read, and hold what comes against the truth."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as outside of tests: a warning stops nobody
        try:
            found, notes = read(files)
        except SeriesRefused as refused:
            return Verdict(Outcome.REFUSED, refused.code)
        except Exception as error:  # noqa: BLE001 - that it is another one is what is looked for
            return Verdict(Outcome.BROKE, type(error).__name__)
    difference = difference_of(found, truth)
    return Verdict(Outcome.ANOTHER if difference else Outcome.SAME, difference, notes)


def gate_of(modality: Modality) -> Gate:
    """The gate of a pipeline whose model is for the abdomen, with the default policies.

    Of CT it was trained on livers, of which 0.5 % lie below -17 and as many above 201 HU.
    """
    card = {
        "modality": modality,
        "body_part": "abdomen",
        "slice_spacing_mm": [0.5, 8.5],
        "pixel_spacing_mm": [0.3, 10],
        "slice_count": [4, 2000],
    }
    trained = IntensityRange(-17, 201) if modality == "CT" else None
    return Gate(read_intended_use(card, "mutations"), ranges=(trained,))


def reader_of_limner(modality: Modality) -> Reader:
    """Limner's own reading, as a pipeline for `modality` has it."""
    gate = gate_of(modality)

    def read(files: Sequence[Path]) -> tuple[Placed, tuple[str, ...]]:
        series = read_series(files, gate=gate)
        volume = series.volume
        placed = Placed(np.asarray(volume.array, np.float64), np.asarray(volume.affine, np.float64))
        return placed, tuple(note.code for note in series.notes)

    return read


def difference_of(found: Placed, truth: Placed) -> str:
    """What differs, in words; empty if nothing does. Whether slices are counted up or down makes no difference."""
    assert truth.affine is not None
    if found.array.shape != truth.array.shape:
        return f"{' × '.join(map(str, found.array.shape))} voxels instead of {' × '.join(map(str, truth.array.shape))}"
    if found.affine is None:
        return "no place in the patient"
    found, truth = _upwards(found, truth.affine), _upwards(truth, truth.affine)
    parts = [_values(found, truth), _place(found, truth)]
    return ", ".join(part for part in parts if part)


def _values(found: Placed, truth: Placed) -> str:
    same = found.array == truth.array
    if same.all():
        return ""
    where = f"in {np.count_nonzero(~same.all(axis=(1, 2)))} of {len(same)} slices"
    if not np.isfinite(found.array).all():
        return f"values that are no finite numbers {where}"
    return f"values off by up to {np.abs(found.array - truth.array).max():.4g} {where}"


def _place(found: Placed, truth: Placed) -> str:
    """How far the corners of the volume are from where they are."""
    assert found.affine is not None
    assert truth.affine is not None
    ends = np.array([[0, size - 1] for size in truth.array.shape])
    corners = np.stack([*np.stack(np.meshgrid(*ends), axis=-1).reshape(-1, 3).T, np.ones(8)])
    off = float(np.linalg.norm(((found.affine - truth.affine) @ corners)[:3], axis=0).max())
    return f"up to {off:.3g} mm beside its place" if off > _AFFINE_TOLERANCE_MM else ""


def _upwards(one: Placed, reference: np.ndarray) -> Placed:
    """With slices counted in the direction of the reference's."""
    assert one.affine is not None
    if one.affine[:3, 0] @ reference[:3, 0] >= 0:
        return one
    affine = one.affine.copy()
    affine[:, 3] += (len(one.array) - 1) * affine[:, 0]
    affine[:, 0] = -affine[:, 0]
    return Placed(one.array[::-1], affine)


def holds(kind: Kind, verdict: Verdict) -> bool:
    """Whether what truth says must happen did."""
    refused = verdict.outcome is Outcome.REFUSED and (not kind.codes or verdict.detail in kind.codes)
    same = verdict.outcome is Outcome.SAME
    match kind.truth:
        case Truth.CLEAN | Truth.HARMLESS:
            return same
        case Truth.REPAIRABLE:
            return same or refused
        case Truth.NOTABLE:
            return refused or bool(set(kind.codes) & set(verdict.notes))
        case Truth.HARMFUL:
            return refused
        case Truth.UNDETECTABLE:
            return verdict.outcome in (Outcome.SAME, Outcome.ANOTHER)
