"""Results refer to the instances they were computed from once, and their frames to frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from operators.series_volume import read_series
from operators.source_references import SliceReference, slice_references, source_images
from tests.multi_frame import write_concatenation, write_enhanced
from tests.phantom import OBLIQUE, Phantom
from tests.segmented_phantom import write_segmented

PHANTOM = Phantom()


@pytest.mark.parametrize(("write", "instances"), [(write_enhanced, 1), (write_concatenation, 3), (Phantom.write, 6)])
def test_each_instance_is_named_once(
    write: Callable[[Phantom, Path], list[Path]], instances: int, tmp_path: Path
) -> None:
    files = write(PHANTOM, tmp_path / "source")
    written, _, _ = write_segmented(files, tmp_path / "seg.dcm")
    dataset = pydicom.dcmread(written.path)
    expected = {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in files}
    (series,) = dataset.ReferencedSeriesSequence
    named = [str(item.ReferencedSOPInstanceUID) for item in series.ReferencedInstanceSequence]
    assert (len(named), set(named)) == (instances, expected)
    assert "SourceImageSequence" not in dataset  # it would say the same once more


def test_single_frame_images_are_named_without_frames(tmp_path: Path) -> None:
    series = read_series(PHANTOM.write(tmp_path))
    assert slice_references(series) == [
        SliceReference(header.SOPClassUID, header.SOPInstanceUID, None) for header in series.datasets
    ]
    written, _, _ = write_segmented(PHANTOM.write(tmp_path / "again"), tmp_path / "seg.dcm")
    for groups in pydicom.dcmread(written.path).PerFrameFunctionalGroupsSequence:
        (item,) = groups.DerivationImageSequence[0].SourceImageSequence
        assert "ReferencedFrameNumber" not in item


def test_stand_ins_leave_the_series_as_it_is(tmp_path: Path) -> None:
    series = read_series(write_enhanced(PHANTOM, tmp_path))
    before = [header.to_json() for header in series.datasets]
    assert len({str(one.SOPInstanceUID) for one in source_images(series)}) == 6
    assert [header.to_json() for header in series.datasets] == before


def test_orientations_that_differ_by_rounding_are_written(tmp_path: Path) -> None:
    """highdicom wants them equal to the last digit; scanners round them differently from slice to slice."""

    def edit(index: int, dataset: Dataset) -> Dataset:
        dataset.ImageOrientationPatient = [f"{number + index * 1e-6:.7f}" for number in OBLIQUE]
        return dataset

    phantom = Phantom(orientation=OBLIQUE)
    files = phantom.write(tmp_path / "ct", edit=edit)
    written, _, _ = write_segmented(files, tmp_path / "seg.dcm")
    assert pydicom.dcmread(written.path).NumberOfFrames == 5


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    files = write_enhanced(PHANTOM, tmp_path / "source")
    one, _, _ = write_segmented(files, tmp_path / "1.dcm")
    two, _, _ = write_segmented(files, tmp_path / "2.dcm")
    assert one.digest == two.digest
