"""Segmentations of multi-frame images: dcmqi and highdicom find each voxel at its place, and dicom3tools no error.

The sources are judged too: what is called an Enhanced CT here is one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.uid import EnhancedMRImageStorage, EnhancedPETImageStorage, JPEG2000Lossless

from operators.errors import SeriesRefused
from operators.results.segmentation import segment_numbers
from operators.series_volume import SeriesVolume, read_series
from operators.source_references import slice_references
from tests.judges import dcmqi_labels, place, run_dcentvfy, run_dciodvfy
from tests.multi_frame import write_concatenation, write_enhanced, write_legacy_converted
from tests.peers import require
from tests.phantom import OBLIQUE, Phantom, value_at, variants
from tests.segmented_phantom import SEGMENTS, write_segmented

PHANTOM = Phantom(slices=7, rows=12, columns=20, row_spacing=1.25, column_spacing=0.5, slice_spacing=3.0)
TURNED = replace(PHANTOM, orientation=OBLIQUE, against_normal=True)
TOLERANCE_MM = 0.001
"""Far below half a voxel: the numbers are stored as decimal text."""

Write = Callable[[Path], list[Path]]


def _enhanced_ct(phantom: Phantom) -> Write:
    return lambda folder: write_enhanced(phantom, folder, shuffled=True)


KINDS: dict[str, Write] = {
    **{f"enhanced-ct-{name}": _enhanced_ct(phantom) for name, phantom in variants(PHANTOM).items()},
    "enhanced-ct-frame-by-frame": lambda folder: write_enhanced(TURNED, folder, shared=False),
    "enhanced-ct-compressed": lambda folder: write_enhanced(
        replace(TURNED, rows=32, columns=40), folder, syntax=JPEG2000Lossless
    ),
    "enhanced-mr": lambda folder: write_enhanced(TURNED, folder, sop_class=EnhancedMRImageStorage),
    "enhanced-pet": lambda folder: write_enhanced(TURNED, folder, sop_class=EnhancedPETImageStorage),
    "concatenation": lambda folder: write_concatenation(TURNED, folder),
    "legacy-ct": lambda folder: write_legacy_converted(TURNED, folder, "CT"),
    "legacy-mr": lambda folder: write_legacy_converted(TURNED, folder, "MR"),
    "legacy-pet": lambda folder: write_legacy_converted(TURNED, folder, "PT"),
}


@pytest.fixture(autouse=True)
def _judges() -> None:
    require("segimage2itkimage", "dciodvfy", "dcentvfy")


def _voxels_are_right(series: SeriesVolume) -> bool:
    volume = series.volume
    indices = np.stack(np.meshgrid(*map(np.arange, volume.spatial_shape), indexing="ij"), axis=-1).reshape(-1, 3)
    truth = value_at(volume.map_indices_to_reference(indices))
    return float(np.abs(truth - volume.array.reshape(-1)).max()) < 0.5001


@pytest.mark.parametrize("kind", KINDS)
def test_each_voxel_comes_back_where_it_was(kind: str, tmp_path: Path) -> None:
    written, series, labels = write_segmented(KINDS[kind](tmp_path / "source"), tmp_path / "seg.dcm")
    assert _voxels_are_right(series)
    expected = segment_numbers(labels.array, SEGMENTS)
    segments = dcmqi_labels(written.path, tmp_path / "dcmqi")
    assert np.array_equal(place(segments, labels.spatial_shape, labels.affine), expected)
    # and by the header's own numbers: the single voxel in the first slice's first corner
    corner = np.array([float(number) for number in series.datasets[0].ImagePositionPatient])
    places = np.argwhere(segments[1].mask) @ segments[1].affine[:3, :3].T + segments[1].affine[:3, 3]
    assert np.linalg.norm(places - corner, axis=1).min() < TOLERANCE_MM
    # highdicom, which asks where the grid of the frames lies
    volume = highdicom.seg.segread(written.path).get_volume(combine_segments=True)
    back = volume.match_geometry(labels.get_geometry())
    assert np.abs(back.affine - labels.affine).max() < TOLERANCE_MM
    assert np.array_equal(back.array, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_each_frame_names_the_frame_that_it_was_derived_from(kind: str, tmp_path: Path) -> None:
    written, series, labels = write_segmented(KINDS[kind](tmp_path / "source"), tmp_path / "seg.dcm")
    segmentation = highdicom.seg.segread(written.path)
    expected = segment_numbers(labels.array, SEGMENTS)
    for reference, one in zip(slice_references(series), expected, strict=True):
        assert reference.frame_number is not None
        found = segmentation.get_pixels_by_source_frame(
            source_sop_instance_uid=str(reference.sop_instance_uid),
            source_frame_numbers=[reference.frame_number],
            combine_segments=True,
            ignore_spatial_locations=True,
            assert_missing_frames_are_empty=True,
        )
        assert np.array_equal(found[0], one)


@pytest.mark.parametrize("kind", KINDS)
def test_no_error_in_source_and_segmentation(kind: str, tmp_path: Path) -> None:
    files = KINDS[kind](tmp_path / "source")
    for path in files:
        errors = [line for line in run_dciodvfy(path) if "Laterality" not in line]  # of an unpaired body part
        assert errors == []
    written, _, _ = write_segmented(files, tmp_path / "seg.dcm")
    assert run_dciodvfy(written.path) == []
    before_conversion = TURNED.write(tmp_path / "classic") if kind.startswith("legacy") else []
    assert run_dcentvfy([*before_conversion, *files, written.path]) == ""


def test_a_real_enhanced_mr_has_no_places(pydicom_data: Path) -> None:
    with pytest.raises(SeriesRefused, match="Enhanced MR Image Storage without") as caught:
        read_series([pydicom_data / "emri_small.dcm"])
    assert caught.value.code == "multi-frame-unsupported"


def test_a_real_enhanced_ct_in_colour_is_refused(pydicom_data: Path) -> None:
    path = pydicom_data / "eCT_Supplemental.dcm"
    assert pydicom.dcmread(path, stop_before_pixels=True).PixelPresentation == "COLOR"
    with pytest.raises(SeriesRefused, match="colour") as caught:
        read_series([path])
    assert caught.value.code == "colour"
