"""Headers with values of a gigabyte: they are read without them, and nothing asks for what was left in the file."""

from __future__ import annotations

import copy
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from operators.functional_groups import first_frame_header
from operators.headers import LONGEST_BYTES, is_unread, read_before_pixels, without_unread
from operators.instances import read_header
from operators.object_kinds import Kind
from operators.results.finding import Finding
from operators.results.writing import write_results
from operators.series_volume import SeriesVolume, read_series
from operators.source_identity import readable_copy, with_same_elements
from tests.huge_values import PRIVATE, add_private_value
from tests.multi_frame import enhanced
from tests.phantom import Phantom
from tests.segmented_phantom import ALGORITHM, SEGMENTS, asymmetric_labels

PHANTOM = Phantom()
_KINDS: tuple[Kind, ...] = ("segmentation", "labelmap", "report", "structure-set", "capture", "presentation-state")
_LEAST = 4 << 20
"""Bytes: what reading a header may take."""


@contextmanager
def _little_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < _LEAST


def _written(folder: Path, dataset: Dataset) -> Path:
    """A file of it whose pixel data follow a private value of a gigabyte."""
    dataset.remove_private_tags()
    path = folder / "huge.dcm"
    dataset.save_as(path, enforce_file_format=True)
    add_private_value(path)
    return path


def test_a_long_value_is_not_read_before_it_is_asked_for(tmp_path: Path) -> None:
    dataset = PHANTOM.dataset(0)
    dataset.add_new("EncapsulatedDocument", "OB", b"\1" * (LONGEST_BYTES + 2))
    path = _written(tmp_path, dataset)
    with _little_memory():
        header = read_before_pixels(path)
    assert is_unread(header, PRIVATE)
    assert is_unread(header, 0x00420011)
    assert header.EncapsulatedDocument == b"\1" * (LONGEST_BYTES + 2)
    assert header.PatientID == PHANTOM.dataset(0).PatientID
    assert "PixelData" not in header


def test_only_what_is_wanted_is_read(tmp_path: Path) -> None:
    path = _written(tmp_path, PHANTOM.dataset(0))
    header = read_before_pixels(path, ["Modality"])
    assert [one.keyword for one in header if one.keyword != "SpecificCharacterSet"] == ["Modality"]


@pytest.mark.parametrize("copied", [without_unread, readable_copy, with_same_elements])
def test_what_is_kept_of_a_header_needs_its_file_no_more(tmp_path: Path, copied: Callable[[Dataset], Dataset]) -> None:
    path = _written(tmp_path, PHANTOM.dataset(0))
    with _little_memory():
        kept = copied(read_before_pixels(path))
        path.unlink()
        assert PRIVATE not in kept
        assert str(kept) == str(copy.deepcopy(kept))  # each value is asked for
    assert kept.PatientID == PHANTOM.dataset(0).PatientID


def test_an_image_is_read_without_what_it_is_not_asked_for(tmp_path: Path) -> None:
    path = _written(tmp_path, PHANTOM.dataset(0))
    with _little_memory():
        header = read_header(path)
        path.unlink()
        assert readable_copy(header).Rows == PHANTOM.dataset(0).Rows


@pytest.mark.parametrize("is_enhanced", [False, True])
def test_results_are_written_without_what_was_left_in_the_files(tmp_path: Path, is_enhanced: bool) -> None:
    if is_enhanced:
        files = [tmp_path / "enhanced.dcm"]
        enhanced(PHANTOM, range(PHANTOM.slices)).save_as(files[0], enforce_file_format=True)
    else:
        files = PHANTOM.write(tmp_path)
    plain = read_series(files)
    for path in files:
        add_private_value(path)
    huge = read_series(files)
    for path in files:
        path.unlink()
    for name in ("plain", "huge"):
        (tmp_path / name).mkdir()
    digests = [
        [[one.digest for one in objects] for objects in write_results(_found(series), _KINDS, folder).values()]
        for series, folder in ((plain, tmp_path / "plain"), (huge, tmp_path / "huge"))
    ]
    assert digests[0] == digests[1]


def _found(series: SeriesVolume) -> Finding:
    labels = series.volume.with_array(asymmetric_labels(series.volume.spatial_shape))
    return Finding(labels, series, SEGMENTS, ALGORITHM, "identity", "organs")


def test_functional_groups_are_read_however_long_they_are(tmp_path: Path) -> None:
    dataset = enhanced(PHANTOM, range(PHANTOM.slices))
    dataset.PerFrameFunctionalGroupsSequence[0].add_new("EncapsulatedDocument", "OB", bytes(LONGEST_BYTES))
    path = tmp_path / "enhanced.dcm"
    dataset.save_as(path, enforce_file_format=True)
    header = read_before_pixels(path)
    assert is_unread(header, 0x52009230)
    assert first_frame_header(header).SliceThickness == first_frame_header(dataset).SliceThickness
    assert len(read_header(path).PerFrameFunctionalGroupsSequence) == PHANTOM.slices


def test_deflated_values_are_read_at_once(tmp_path: Path) -> None:
    dataset = PHANTOM.dataset(0)
    dataset.add_new("EncapsulatedDocument", "OB", bytes(range(256)) * (LONGEST_BYTES // 128))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(tmp_path / "deflated.dcm", enforce_file_format=True)
    header = read_before_pixels(tmp_path / "deflated.dcm")
    assert not is_unread(header, 0x00420011)
    assert header.EncapsulatedDocument == dataset.EncapsulatedDocument
