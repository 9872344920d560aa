"""What other programs say of our objects: dicom3tools, DCMTK's reader of reports, and dcmqi."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.peers import program, run_program


def run_dciodvfy(path: Path) -> list[str]:
    """The errors that dicom3tools finds in an object; none is right for a SEG. (Warnings are left out.)"""
    result = subprocess.run(
        [program("dciodvfy"), str(path)], capture_output=True, text=True, errors="replace", check=False
    )
    lines = (result.stdout + result.stderr).splitlines()
    assert result.returncode in (0, 1), f"dciodvfy ended with {result.returncode}: {lines[-3:]}"
    assert lines, "dciodvfy said nothing: not even the name of the object's class"
    return [line for line in lines if line.startswith("Error")]


def run_dcentvfy(paths: Sequence[Path]) -> str:
    """What dicom3tools finds inconsistent between objects of one study; empty is right."""
    result = subprocess.run(
        [program("dcentvfy"), *map(str, paths)], capture_output=True, text=True, errors="replace", check=False
    )
    return result.stdout + result.stderr


def dsrdump(path: Path) -> str:
    """A structured report as DCMTK reads it, whole; fails the test if DCMTK says that anything is wrong with it.

    Debian's DCMTK is built without Japan's character sets and says so; of key objects, that it knows no template.
    """
    printed = run_program("dsrdump", "--print-long-values", "--print-template-id", str(path))
    complaints = re.findall(
        r"^[EWF]: (?!.*(?:Specific ?Character ?Set|template constraints not yet)).*", printed, re.MULTILINE
    )
    assert complaints == [], printed
    return printed


def dcmqi_measurements(report: Path, path: Path) -> dict[str, Any]:
    """Let dcmqi read a TID 1500 report into the file `path`; return what it says."""
    run_program("tid1500reader", "--inputDICOM", str(report), "--outputMetadata", str(path))
    content: dict[str, Any] = json.loads(path.read_text())
    return content


@dataclass(frozen=True)
class SegmentImage:
    """One segment as dcmqi reads it."""

    number: int
    label: str
    mask: NDArray[np.bool_]
    """Axes (slice, row, column)."""
    affine: NDArray[np.float64]
    """4x4, from (slice, row, column) to millimetres in the patient's LPS system."""


def dcmqi_labels(segmentation: Path, folder: Path) -> dict[int, SegmentImage]:
    """Let dcmqi read a SEG; return its segments by number."""
    return {
        number: SegmentImage(number, label, values == number, affine)
        for number, label, values, affine in _dcmqi_images(segmentation, folder)
    }


def dcmqi_fractions(segmentation: Path, folder: Path) -> dict[int, tuple[NDArray[np.int16], NDArray[np.float64]]]:
    """Let dcmqi read a FRACTIONAL SEG; return stored values (slice, row, column) and affine by segment number."""
    return {number: (values, affine) for number, _, values, affine in _dcmqi_images(segmentation, folder)}


def _dcmqi_images(
    segmentation: Path, folder: Path
) -> Iterator[tuple[int, str, NDArray[np.int16], NDArray[np.float64]]]:
    """Number, label, image that shows it, and the image's affine of each segment."""
    import SimpleITK  # noqa: PLC0415 - only the tests that judge need it, and it takes a second

    folder.mkdir(parents=True, exist_ok=True)
    run_program(
        "segimage2itkimage", "--inputDICOM", str(segmentation), "--outputDirectory", str(folder), "--outputType", "nii"
    )
    attributes = json.loads((folder / "meta.json").read_text())["segmentAttributes"]
    for position, group in enumerate(attributes, start=1):
        image = SimpleITK.ReadImage(str(folder / f"{position}.nii.gz"))
        array = SimpleITK.GetArrayFromImage(image)
        affine = _affine(image.GetOrigin(), image.GetSpacing(), image.GetDirection())
        for segment in group:
            yield int(segment["labelID"]), str(segment["SegmentLabel"]), array, affine


def _affine(origin: Sequence[float], spacing: Sequence[float], direction: Sequence[float]) -> NDArray[np.float64]:
    affine = np.eye(4)
    columns = np.array(direction).reshape(3, 3) * np.array(spacing)
    affine[:3, :3] = columns[:, ::-1]  # SimpleITK's axes are (x, y, z), those of its arrays (z, y, x)
    affine[:3, 3] = origin
    return affine


def place(
    segments: Mapping[int, SegmentImage], shape: tuple[int, ...], affine: NDArray[np.float64]
) -> NDArray[np.uint16]:
    """Lay segments onto another grid by their places in the patient; the grids' voxels must coincide within 0.01 mm.

    `affine` maps (slice, row, column) of the result to LPS millimetres, as `highdicom.Volume.affine` does.
    """
    labels = np.zeros(shape, np.uint16)
    for segment in segments.values():
        to_grid = np.linalg.inv(affine) @ segment.affine
        voxels = np.argwhere(segment.mask)
        places = voxels @ to_grid[:3, :3].T + to_grid[:3, 3]
        nearest = np.rint(places).astype(int)
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        assert (np.abs(places - nearest) * spacing < 0.01).all(), f"segment {segment.number} lies between the voxels"
        assert (nearest >= 0).all(), f"segment {segment.number} lies outside"
        assert (nearest < shape).all(), f"segment {segment.number} lies outside"
        labels[tuple(nearest.T)] = segment.number
    return labels
