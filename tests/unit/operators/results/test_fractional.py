"""The FRACTIONAL Segmentation holds the probabilities where they lie, of one segment after the other."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest

from operators.errors import OperatorError
from operators.results.finding import Finding
from operators.results.fractional import write_fractional
from tests.finding_phantom import planted_finding, planted_probabilities
from tests.phantom import Phantom, variants
from tests.segmented_phantom import LIVER


@pytest.mark.parametrize("name", variants(Phantom()))
def test_probabilities_are_where_they_are_in_the_patient(name: str, tmp_path: Path) -> None:
    finding = planted_finding(tmp_path / "ct", variants(Phantom())[name])
    read = highdicom.seg.segread(write_fractional(finding, planted_probabilities(finding), tmp_path / "seg.dcm").path)
    for number, (_, expected) in zip((1, 2), planted_probabilities(finding), strict=False):
        volume = read.get_volume(segment_numbers=[number], allow_missing_positions=True).squeeze_channel()
        found = volume.match_geometry(expected).array
        assert np.abs(found - expected.array).max() <= 0.5 / 255 + 1e-6
        assert np.ptp(found) > 0.5


def test_frames_of_nothing_are_left_out(tmp_path: Path) -> None:
    finding = planted_finding(tmp_path / "ct")
    dataset = pydicom.dcmread(write_fractional(finding, planted_probabilities(finding), tmp_path / "seg.dcm").path)
    shown = {
        int(one.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        for one in dataset.PerFrameFunctionalGroupsSequence
    }
    assert shown == {1, 2}
    assert (dataset.SegmentationFractionalType, dataset.MaximumFractionalValue) == ("PROBABILITY", 255)
    assert dataset.SegmentsOverlap == "UNDEFINED"


def _nothing(finding: Finding) -> Iterator[tuple[int, highdicom.Volume]]:
    volume = finding.series.volume
    for segment in finding.segments:
        yield segment.label_value, volume.with_array(np.full(volume.spatial_shape, 0.0019, np.float32))


def test_what_rounds_to_nothing_is_one_empty_frame(tmp_path: Path) -> None:
    finding = planted_finding(tmp_path / "ct")
    dataset = pydicom.dcmread(write_fractional(finding, _nothing(finding), tmp_path / "seg.dcm").path)
    assert (int(dataset.NumberOfFrames), dataset.pixel_array.any()) == (1, np.False_)


def test_one_segment_alone(tmp_path: Path) -> None:
    """Its number is then in the functional groups that all frames share."""
    finding = planted_finding(tmp_path / "ct", paint=lambda shape: np.ones(shape, np.uint8), segments=[LIVER])
    dataset = pydicom.dcmread(write_fractional(finding, planted_probabilities(finding), tmp_path / "seg.dcm").path)
    assert dataset.pixel_array.shape == finding.labels.array.shape
    assert dataset.SegmentsOverlap == "NO"


def test_an_odd_number_of_pixels_is_padded(tmp_path: Path) -> None:
    finding = planted_finding(tmp_path / "ct", Phantom(slices=5, rows=7, columns=9))
    dataset = pydicom.dcmread(write_fractional(finding, planted_probabilities(finding), tmp_path / "seg.dcm").path)
    assert len(dataset.PixelData) % 2 == 0
    assert dataset.pixel_array.shape[1:] == (7, 9)


def test_segments_may_come_in_any_order(tmp_path: Path) -> None:
    finding = planted_finding(tmp_path / "ct")
    given = list(planted_probabilities(finding))
    first = write_fractional(finding, given, tmp_path / "1.dcm")
    assert write_fractional(finding, given[::-1], tmp_path / "2.dcm").digest == first.digest


def test_volumes_are_not_kept(tmp_path: Path) -> None:
    finding = planted_finding(tmp_path / "ct")
    alive: list[weakref.ref[highdicom.Volume]] = []

    def one_after_the_other() -> Iterator[tuple[int, highdicom.Volume]]:
        for segment in finding.segments:
            gc.collect()
            assert sum(one() is not None for one in alive) <= 1  # the one before it, until this one is there
            volume = finding.series.volume.with_array(np.ones(finding.labels.spatial_shape, np.float32))
            alive.append(weakref.ref(volume))
            yield segment.label_value, volume

    write_fractional(finding, one_after_the_other(), tmp_path / "seg.dcm")
    assert len(alive) == len(finding.segments)


def test_what_is_wrong_is_not_written(tmp_path: Path) -> None:
    finding = planted_finding(tmp_path / "ct")
    good = list(planted_probabilities(finding))
    value, volume = good[0]
    nan, above = volume.array.copy(), volume.array.copy()
    nan[1, 2, 3], above[1, 2, 3] = np.nan, 1.001
    for wrong, code in (
        ([(value, volume.flip_spatial(0)), *good[1:]], "labels-elsewhere"),
        ([(value, volume.with_array(nan)), *good[1:]], "probabilities-beyond"),
        ([(value, volume.with_array(above)), *good[1:]], "probabilities-beyond"),
        (good[1:], "probabilities-incomplete"),
        ([*good, good[0]], "probabilities-incomplete"),
        ([*good, (77, volume)], "label-undescribed"),
    ):
        with pytest.raises(OperatorError) as caught:
            write_fractional(finding, wrong, tmp_path / "seg.dcm")
        assert caught.value.code == code
    assert not (tmp_path / "seg.dcm").exists()


def test_what_no_object_can_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = planted_finding(tmp_path / "ct")
    monkeypatch.setattr("operators.results.segmentation._MOST_PIXEL_DATA_BYTES", 300)
    with pytest.raises(OperatorError) as caught:
        write_fractional(replace(finding), planted_probabilities(finding), tmp_path / "seg.dcm")
    assert caught.value.code == "segmentation-too-large"
