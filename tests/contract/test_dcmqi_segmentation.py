"""dcmqi, another code base, reads back the label map that was written, at the same place in the patient."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from operators.results.segmentation import segment_numbers
from tests.judges import dcmqi_labels, place
from tests.peers import require
from tests.phantom import Phantom, variants
from tests.segmented_phantom import MANY_SEGMENTS, SEGMENTS, many_labels, no_labels, write_segmented

PHANTOM = Phantom(slices=7, rows=12, columns=20, row_spacing=1.25, column_spacing=0.5, slice_spacing=3.0)
CASES = variants(PHANTOM) | {"square": replace(PHANTOM, row_spacing=0.75, column_spacing=0.75)}


@pytest.fixture(autouse=True)
def _judge() -> None:
    require("segimage2itkimage")


@pytest.mark.parametrize("name", CASES)
def test_the_label_map_comes_back_where_it_was(name: str, tmp_path: Path) -> None:
    phantom = CASES[name]
    written, series, labels = write_segmented(phantom.write(tmp_path / "ct"), tmp_path / "seg.dcm")
    segments = dcmqi_labels(written.path, tmp_path / "dcmqi")
    back = place(segments, labels.spatial_shape, labels.affine)
    assert np.array_equal(back, segment_numbers(labels.array, SEGMENTS))
    # and by the phantom's own arithmetic: the single voxel in the first slice's first corner
    corner = np.array([float(number) for number in series.datasets[0].ImagePositionPatient])
    places = np.argwhere(segments[1].mask) @ segments[1].affine[:3, :3].T + segments[1].affine[:3, 3]
    assert np.linalg.norm(places - corner, axis=1).min() < 0.001
    # the one in the last slice's last corner
    _, down, right = phantom.axes
    last = np.array([float(number) for number in series.datasets[-1].ImagePositionPatient])
    last = last + down * (phantom.rows - 1) + right * (phantom.columns - 1)
    places = np.argwhere(segments[2].mask) @ segments[2].affine[:3, :3].T + segments[2].affine[:3, 3]
    assert np.linalg.norm(places - last, axis=1).min() < 0.001


def test_more_labels_than_a_byte_counts_come_back(tmp_path: Path) -> None:
    written, _, labels = write_segmented(
        PHANTOM.write(tmp_path / "ct"), tmp_path / "seg.dcm", paint=many_labels, segments=MANY_SEGMENTS
    )
    segments = dcmqi_labels(written.path, tmp_path / "dcmqi")
    back = place(segments, labels.spatial_shape, labels.affine)
    assert np.array_equal(back, segment_numbers(labels.array, MANY_SEGMENTS))
    assert back.max() == 299
    assert segments[299].label == "Segment 299"


def test_nothing_found_comes_back_as_nothing(tmp_path: Path) -> None:
    written, _, labels = write_segmented(PHANTOM.write(tmp_path / "ct"), tmp_path / "seg.dcm", paint=no_labels)
    segments = dcmqi_labels(written.path, tmp_path / "dcmqi")
    assert not np.any(place(segments, labels.spatial_shape, labels.affine))


def test_the_real_cts_label_map_comes_back(abdominal_ct: list[Path], tmp_path: Path) -> None:
    written, _, labels = write_segmented(abdominal_ct, tmp_path / "seg.dcm")
    segments = dcmqi_labels(written.path, tmp_path / "dcmqi")
    back = place(segments, labels.spatial_shape, labels.affine)
    assert np.array_equal(back, segment_numbers(labels.array, SEGMENTS))
    assert [segments[number].label for number in (1, 2)] == ["Liver", "Left kidney"]
