"""SimpleITK, another code base, says where the series lies; structure sets' contours give the label map back on it.

It has no reader of structure sets, so that is done here the way such readers do it: points become indices of the image,
and Pillow fills them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from numpy.typing import NDArray

from app.jobs.readback.outlines import inside
from operators.results.structure_set import write_structure_set
from tests.phantom import Phantom
from tests.pictured_phantom import AS_MR, ORIENTED, Pictured, pictured
from tests.segmented_phantom import SEGMENTS


def _read_series(files: list[Path]) -> SimpleITK.Image:
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(files[0].parent))
    return SimpleITK.ReadImage(names)


def _masks(structures: pydicom.Dataset, image: SimpleITK.Image) -> dict[int, NDArray[np.bool_]]:
    """Each region's voxels (slice, row, column) on the image."""
    columns, rows, slices = image.GetSize()
    found = {}
    for region in structures.ROIContourSequence:
        counts = np.zeros((slices, rows, columns), np.uint8)
        for contour in region.get("ContourSequence", ()):
            points = np.array(contour.ContourData, np.float64).reshape(-1, 3).tolist()
            indices = np.array([image.TransformPhysicalPointToContinuousIndex(point) for point in points])
            plane = counts[int(np.rint(indices[0, 2]))]
            inside(indices[:, :2] + 0.5, plane.shape).add_to(plane)
        found[int(region.ReferencedROINumber)] = counts == 1
    return found


def _check(one: Pictured, path: Path) -> None:
    image = _read_series(one.files)
    masks = _masks(pydicom.dcmread(write_structure_set(one.finding, path).path), image)
    labels = one.finding.labels
    for number, segment in enumerate(SEGMENTS, start=1):
        expected = labels.array == segment.label_value
        volume = np.count_nonzero(masks[number]) * float(np.prod(image.GetSpacing()))
        assert volume == pytest.approx(np.count_nonzero(expected) * float(labels.voxel_volume), rel=1e-3)
        voxels = np.argwhere(masks[number])[:, ::-1].tolist()
        places = np.array([image.TransformIndexToPhysicalPoint(voxel) for voxel in voxels]).reshape(-1, 3)
        indices = (np.c_[places, np.ones(len(places))] @ np.linalg.inv(labels.affine).T)[:, :3]
        back = np.zeros(labels.spatial_shape, np.bool_)
        back[tuple(np.rint(indices).astype(int).T)] = True
        assert np.array_equal(back, expected)


@pytest.mark.parametrize("name", ORIENTED)
def test_the_label_map_comes_back_where_it_was(name: str, tmp_path: Path) -> None:
    _check(pictured(tmp_path / "ct", ORIENTED[name]), tmp_path / "rt.dcm")


def test_of_mr_too(tmp_path: Path) -> None:
    _check(pictured(tmp_path / "mr", edit=AS_MR), tmp_path / "rt.dcm")


def test_noise_comes_back_too(tmp_path: Path) -> None:
    def noise(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
        found = np.random.default_rng(0).choice(np.array([0, 1, 1, 1, 1, 5], np.uint8), shape)
        return found.astype(np.uint8)

    phantom = Phantom(slices=4, rows=60, columns=48, row_spacing=0.7, column_spacing=0.9)
    _check(pictured(tmp_path / "ct", phantom, paint=noise), tmp_path / "rt.dcm")
