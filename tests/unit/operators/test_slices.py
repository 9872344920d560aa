"""The frames of a multi-frame image are slices as single-frame images are; what is none is refused by its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRColorImageStorage,
    EnhancedMRImageStorage,
    EnhancedUSVolumeStorage,
    EnhancedXAImageStorage,
    JPEG2000Lossless,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    RLELossless,
)

from operators.errors import SeriesRefused
from operators.gate.gate import Gate
from operators.series_volume import SeriesVolume, read_series
from tests.multi_frame import (
    SECOND_ECHO,
    enhanced,
    item,
    write_concatenation,
    write_enhanced,
    write_instance,
    write_legacy_converted,
    write_two_echoes,
)
from tests.phantom import CORONAL, OBLIQUE, Phantom, value_at, variants
from tests.segmented_phantom import write_segmented

Change = Callable[[Dataset], None]


def _truth_error(series: SeriesVolume) -> float:
    volume = series.volume
    indices = np.stack(np.meshgrid(*map(np.arange, volume.spatial_shape), indexing="ij"), axis=-1).reshape(-1, 3)
    truth = value_at(volume.map_indices_to_reference(indices))
    return float(np.abs(truth - volume.array.reshape(-1)).max())


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("name", variants(Phantom()))
def test_each_frame_is_where_it_is_in_the_patient(name: str, shared: bool, tmp_path: Path) -> None:
    phantom = variants(Phantom())[name]
    series = read_series(write_enhanced(phantom, tmp_path, shuffled=True, shared=shared))
    classic = read_series(phantom.write(tmp_path / "classic"))
    assert _truth_error(series) < 0.5001
    assert np.array_equal(series.volume.array, classic.volume.array)
    assert np.allclose(series.volume.affine, classic.volume.affine)
    assert sorted(number or 0 for number in series.frame_numbers) == [1, 2, 3, 4, 5, 6]
    assert classic.frame_numbers == (None,) * 6


def test_each_frame_has_its_own_rescale(tmp_path: Path) -> None:
    phantom = Phantom(slopes=(1.0, 0.25, 2.5), intercepts=(0.0, -1024.0, -512.5), origin=(40.0, -60.0, 30.0))
    assert _truth_error(read_series(write_enhanced(phantom, tmp_path, shuffled=True))) < 0.5001 * 2.5


def test_headers_tell_of_each_frame_what_a_single_frame_image_would(tmp_path: Path) -> None:
    series = read_series(write_enhanced(Phantom(), tmp_path, shuffled=True))
    for index, header in enumerate(series.datasets):
        corner = series.volume.map_indices_to_reference(np.array([[index, 0, 0]]))[0]
        assert [float(number) for number in header.ImagePositionPatient] == pytest.approx(corner)
        assert header.InStackPositionNumber == series.frame_numbers[index]
        assert header.FrameType[0] == "DERIVED"
        assert (header.PatientID, header.SOPClassUID) == ("PHANTOM-1", EnhancedCTImageStorage)
        assert not {"NumberOfFrames", "PerFrameFunctionalGroupsSequence", "PixelData"} & set(header.dir())


def test_a_concatenation_is_one_stack(tmp_path: Path) -> None:
    series = read_series(write_concatenation(Phantom(), tmp_path)[::-1])
    assert _truth_error(series) < 0.5001
    assert sorted(number or 0 for number in series.frame_numbers) == [1, 1, 1, 2, 2, 2]
    assert len({str(header.SOPInstanceUID) for header in series.datasets}) == 3


@pytest.mark.parametrize("left_out", [0, 1, 2])
def test_a_concatenation_that_is_not_whole(left_out: int, tmp_path: Path) -> None:
    phantom = Phantom(slices=6)
    files = write_concatenation(phantom, tmp_path)
    del files[left_out]
    with pytest.raises(SeriesRefused, match="1 of them are missing") as caught:
        read_series(files)
    assert caught.value.code == "slice-missing"


def test_several_enhanced_images_that_are_no_concatenation(tmp_path: Path) -> None:
    phantom = replace(Phantom(), orientation=OBLIQUE)
    files = [
        write_instance(enhanced(phantom, indices, part=part), tmp_path / f"{part}.dcm")
        for part, indices in enumerate(((0, 1, 2), (3, 4), (5,)), start=1)
    ]
    assert _truth_error(read_series(files)) < 0.5001


@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
def test_legacy_converted_images(modality: str, tmp_path: Path) -> None:
    assert _truth_error(read_series(write_legacy_converted(Phantom(), tmp_path, modality))) < 0.5001


def test_progress_counts_instances_and_is_told_of_each_frame(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    read_series(write_concatenation(Phantom(), tmp_path), lambda done, total: seen.append((done, total)))
    assert seen == [(0, 3), (0, 3), (1, 3), (1, 3), (2, 3), (2, 3), (3, 3)]


def test_identity_is_the_instances_whatever_a_functional_group_says(tmp_path: Path) -> None:
    def edit(dataset: Dataset) -> None:
        (shared,) = dataset.SharedFunctionalGroupsSequence
        stray = item(PatientID="OTHER", PatientName="Other^Name", BodyPartExamined="ABDOMEN", KVP="120")
        shared.UnassignedSharedConvertedAttributesSequence = [stray]
        del dataset.PatientName

    header = read_series(write_enhanced(Phantom(), tmp_path, edit=edit)).datasets[0]
    assert (header.PatientID, "PatientName" in header, header.BodyPartExamined) == ("PHANTOM-1", False, "ABDOMEN")


def _frames(dataset: Dataset) -> list[Dataset]:
    return list(dataset.PerFrameFunctionalGroupsSequence)


def _diffusion(dataset: Dataset) -> None:
    """The second half of the frames lies where the first does, at another b-value."""
    frames = _frames(dataset)
    for number, groups in enumerate(frames):
        groups.MRDiffusionSequence = [item(DiffusionBValue=0.0 if number < 3 else 1000.0)]
        groups.PlanePositionSequence = frames[number % 3].PlanePositionSequence


def test_frames_of_several_b_values_are_refused_and_told_so(tmp_path: Path) -> None:
    files = write_enhanced(Phantom(), tmp_path, sop_class=EnhancedMRImageStorage, edit=_diffusion)
    with pytest.raises(SeriesRefused, match=r"told apart by DiffusionBValue \(0.0, 1000.0\)") as caught:
        read_series(files)
    assert caught.value.code == "duplicate-position"


@pytest.mark.parametrize("syntax", [None, JPEG2000Lossless, RLELossless])
@pytest.mark.parametrize(("echo", "higher"), [(10.0, 0), (80.0, SECOND_ECHO)])
def test_the_frames_that_are_taken_are_decoded(echo: float, higher: int, syntax: UID | None, tmp_path: Path) -> None:
    phantom = Phantom(rows=32, columns=40)
    files = write_two_echoes(phantom, tmp_path, syntax=syntax)
    series = read_series(files, gate=Gate(take={"EffectiveEchoTime": echo}))
    alone = read_series(phantom.write(tmp_path / "alone"))
    assert np.array_equal(series.volume.array, alone.volume.array + higher)
    taken = [2, 4, 6, 8, 10, 12] if higher else [1, 3, 5, 7, 9, 11]
    assert sorted(number or 0 for number in series.frame_numbers) == taken
    uid = str(series.datasets[0].SOPInstanceUID)
    assert series.dropped == {uid: tuple(number for number in range(1, 13) if number not in taken)}


def test_frames_of_two_echoes_are_no_repetition(tmp_path: Path) -> None:
    with pytest.raises(SeriesRefused, match=r"told apart by EffectiveEchoTime \(10.0, 80.0\)") as caught:
        read_series(write_two_echoes(Phantom(), tmp_path))
    assert caught.value.code == "duplicate-position"


def test_a_frame_that_is_there_twice_is_left_out(tmp_path: Path) -> None:
    phantom = Phantom()
    path = write_instance(enhanced(phantom, [0, 1, 2, 3, 2, 4, 5]), tmp_path / "enhanced.dcm")
    series = read_series([path])
    assert np.array_equal(series.volume.array, read_series(phantom.write(tmp_path / "classic")).volume.array)
    assert series.dropped == {str(series.datasets[0].SOPInstanceUID): (5,)}
    assert [note.code for note in series.notes] == ["duplicate-slice"]


def test_a_frame_that_is_there_twice_is_left_out_once(tmp_path: Path) -> None:
    def edit(dataset: Dataset) -> None:
        frames = _frames(dataset)
        frames[2].PlanePositionSequence = frames[1].PlanePositionSequence
        pixels = np.frombuffer(dataset.PixelData, np.int16).copy().reshape(6, -1)
        pixels[2] = pixels[1]
        dataset.PixelData = pixels.tobytes()

    phantom = replace(Phantom(), against_normal=True)
    (path,) = write_enhanced(phantom, tmp_path, edit=edit)
    with pytest.raises(SeriesRefused) as caught:  # where the third frame was there is a gap now
        read_series([path])
    assert caught.value.code == "slice-missing"


def _set(keyword: str, value: object) -> Change:
    return lambda dataset: setattr(dataset, keyword, value)


def _without(keyword: str, *, shared: bool) -> Change:
    def edit(dataset: Dataset) -> None:
        groups = list(dataset.SharedFunctionalGroupsSequence) if shared else _frames(dataset)
        delattr(groups[-1], keyword)

    return edit


def _without_one_frame(dataset: Dataset) -> None:
    del dataset.PerFrameFunctionalGroupsSequence[-1]


def _other_orientation(dataset: Dataset) -> None:
    _frames(dataset)[2].PlaneOrientationSequence = [item(ImageOrientationPatient=list(CORONAL))]


@pytest.mark.parametrize(
    ("edit", "code", "words"),
    [
        (_set("SOPClassUID", EnhancedMRColorImageStorage), "sop-class-unsupported", "Enhanced MR Color"),
        (_set("SOPClassUID", EnhancedUSVolumeStorage), "sop-class-unsupported", "Enhanced US Volume"),
        (_set("SOPClassUID", EnhancedXAImageStorage), "sop-class-unsupported", "Enhanced XA"),
        (
            _set("SOPClassUID", MultiFrameGrayscaleWordSecondaryCaptureImageStorage),
            "sop-class-unsupported",
            "Multi-frame Grayscale Word Secondary Capture",
        ),
        (_set("SOPClassUID", UID("1.2.3.4")), "sop-class-unsupported", "1.2.3.4"),
        (_set("SOPClassUID", CTImageStorage), "multi-frame-unsupported", "CT Image Storage, got several"),
        (_set("PerFrameFunctionalGroupsSequence", []), "multi-frame-unsupported", "Enhanced CT Image Storage without"),
        (_set("PixelPresentation", "COLOR"), "colour", "Pixel Presentation"),
        (_set("SamplesPerPixel", 3), "colour", "one sample"),
        (_set("NumberOfFrames", 5), "unreadable-instance", "expected 1400 bytes of pixel data"),
        (_without_one_frame, "unreadable-instance", "another number of frames"),
        (_set("FrameOfReferenceUID", ""), "missing-frame-of-reference", ""),
        (_without("PlanePositionSequence", shared=False), "missing-geometry", "1 of 6"),
        (_without("PlaneOrientationSequence", shared=True), "missing-geometry", "6 of 6"),
        (_without("PixelMeasuresSequence", shared=True), "missing-geometry", "6 of 6"),
        (_without("PixelValueTransformationSequence", shared=False), "missing-rescale", ""),
        (_other_orientation, "mixed-orientation", ""),
    ],
)
def test_what_is_no_volume_is_refused_by_name(edit: Change, code: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(SeriesRefused) as caught:
        read_series(write_enhanced(Phantom(), tmp_path, edit=edit))
    assert (caught.value.code, words in str(caught.value)) == (code, True), str(caught.value)


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "PixelSpacing", "RescaleSlope"])
def test_what_an_enhanced_image_says_outside_of_its_groups_is_not_taken(keyword: str, tmp_path: Path) -> None:
    stray = {"ImagePositionPatient": [1, 2, 3], "PixelSpacing": [9, 9], "RescaleSlope": 9}[keyword]
    assert _truth_error(read_series(write_enhanced(Phantom(), tmp_path, edit=_set(keyword, stray)))) < 0.5001


@pytest.mark.parametrize("left", [-1, -300, 3000, 1500])
def test_a_file_that_is_cut_off(left: int, tmp_path: Path) -> None:
    (path,) = write_enhanced(Phantom(), tmp_path)
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(SeriesRefused) as caught:
        read_series([path])
    assert caught.value.code == "unreadable-instance"


@pytest.mark.filterwarnings("ignore")  # pydicom says what it doubts
@pytest.mark.parametrize("seed", range(2))
def test_any_damage_is_a_refusal_or_harmless(seed: int, tmp_path: Path) -> None:
    (path,) = write_enhanced(Phantom(slices=3), tmp_path)
    good = path.read_bytes()
    chance = np.random.default_rng(seed)
    refused = 0
    for _ in range(80):
        damaged = bytearray(good)
        for place in chance.integers(128, len(good) - 840, 2):
            damaged[place] = chance.integers(256)
        path.write_bytes(bytes(damaged))
        try:
            write_segmented([path], tmp_path / "seg.dcm")
        except SeriesRefused:
            refused += 1
    assert refused > 10
