"""A series becomes the volume that it is, wherever its slices come from and lie; or it is refused with its reason."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from operators.errors import SeriesRefused
from operators.gate.gate import Gate
from operators.gate.policies import GatePolicies
from operators.series_geometry import find_geometry
from operators.series_volume import SeriesVolume, read_series
from tests.multi_frame import write_enhanced
from tests.phantom import AXIAL, CORONAL, OBLIQUE, Edit, Phantom, at, setting, value_at, variants, without
from tests.segmented_phantom import write_segmented

ROUNDING = 0.5001
"""Stored values are integers."""
ALONE = Gate(takes_single_slice=True)


def _truth_error(series: SeriesVolume) -> float:
    """The largest difference to the truth, each voxel looked up at its own place in the patient."""
    volume = series.volume
    indices = np.stack(np.meshgrid(*map(np.arange, volume.spatial_shape), indexing="ij"), axis=-1).reshape(-1, 3)
    truth = value_at(volume.map_indices_to_reference(indices))
    return float(np.abs(truth - volume.array.reshape(-1)).max())


def _unscaled_mr(**attributes: object) -> Edit:
    """An MR without rescale, but for one slice, which has some of it."""
    plain = setting(SOPClassUID=MRImageStorage, Modality="MR", RescaleSlope=None, RescaleIntercept=None)

    def edit(index: int, dataset: Dataset) -> Dataset | None:
        changed = plain(index, dataset)
        return changed if changed is None or index != 2 else setting(**attributes)(index, changed)

    return edit


def _longer(count: int) -> Edit:
    """More bytes after the pixels, in one slice."""

    def edit(index: int, dataset: Dataset) -> Dataset:
        dataset.PixelData += bytes(count if index == 4 else 0)
        return dataset

    return edit


def _refusal(phantom: Phantom, folder: Path, edit: Edit | None = None) -> SeriesRefused:
    with pytest.raises(SeriesRefused) as caught:
        read_series(phantom.write(folder, edit=edit))
    for secret in ("Phantom^Limner", "PHANTOM-1", "1960", "1.2.826"):
        assert secret not in str(caught.value)
    return caught.value


# --- what becomes a volume ---


@pytest.mark.parametrize("name", variants(Phantom()))
def test_every_voxel_is_where_it_is_in_the_patient(name: str, tmp_path: Path) -> None:
    phantom = variants(Phantom())[name]
    series = read_series(phantom.write(tmp_path))
    assert series.volume.spatial_shape == (6, 10, 14)
    assert _truth_error(series) < ROUNDING
    assert series.volume.frame_of_reference_uid == phantom.uid("frame of reference")
    assert (series.volume.dtype, str(series.volume.handedness.value)) == (np.float32, "RIGHT_HANDED")


def test_rows_and_columns_have_their_own_spacing(tmp_path: Path) -> None:
    volume = read_series(Phantom(row_spacing=1.5, column_spacing=0.4).write(tmp_path)).volume
    assert volume.spacing == pytest.approx((2.5, 1.5, 0.4))


@pytest.mark.parametrize("against_normal", [False, True])
def test_headers_are_in_the_order_of_the_slices_and_hold_no_pixels(against_normal: bool, tmp_path: Path) -> None:
    files = Phantom(against_normal=against_normal).write(tmp_path)
    series = read_series(files[::-1])
    for index, header in enumerate(series.datasets):
        first_pixel = series.volume.map_indices_to_reference(np.array([[index, 0, 0]]))[0]
        assert [float(number) for number in header.ImagePositionPatient] == pytest.approx(first_pixel)
        assert "PixelData" not in header


def test_the_order_of_the_files_does_not_matter(tmp_path: Path) -> None:
    files = Phantom().write(tmp_path)
    shuffled = [files[index] for index in np.random.default_rng(1).permutation(len(files))]
    first, second = read_series(files), read_series(shuffled)
    assert np.array_equal(first.volume.array, second.volume.array)
    assert np.array_equal(first.volume.affine, second.volume.affine)
    assert first.datasets == second.datasets


def test_each_slice_has_its_own_rescale_and_the_first_slice_decides_nothing(tmp_path: Path) -> None:
    # slice 0 all above 0 and of slope 1, the others with negative values and broken slopes
    phantom = Phantom(slopes=(1.0, 0.25, 2.5), intercepts=(0.0, -1024.0, -512.5), origin=(40.0, -60.0, 30.0))

    def lift(index: int, dataset: Dataset) -> Dataset:
        if index == 0:
            stored = np.frombuffer(dataset.PixelData, np.int16)
            assert stored.min() > 0
        return dataset

    series = read_series(phantom.write(tmp_path, edit=lift))
    assert _truth_error(series) < 0.5001 * 2.5


def test_negative_values_after_an_unsigned_first_slice_stay_negative(tmp_path: Path) -> None:
    def air(index: int, dataset: Dataset) -> Dataset:
        value = 2000 if index == 0 else 24
        dataset.PixelData = np.full((10, 14), value, np.uint16).tobytes()
        return dataset

    array = read_series(Phantom(signed=False).write(tmp_path, edit=air)).volume.array
    assert sorted(np.unique(array)) == [-1000.0, 976.0]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, RLELossless])
def test_compressed_pixels_are_decoded(signed: bool, syntax: UID, tmp_path: Path) -> None:
    phantom = Phantom(signed=signed, rows=32, columns=40, slices=3)
    assert _truth_error(read_series(phantom.write(tmp_path, syntax=syntax))) < ROUNDING


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_other_native_transfer_syntaxes_are_read(syntax: UID, tmp_path: Path) -> None:
    def edit(index: int, dataset: Dataset) -> Dataset:
        dataset.file_meta.TransferSyntaxUID = syntax
        return dataset

    assert _truth_error(read_series(Phantom().write(tmp_path, edit=edit))) < ROUNDING


def test_an_mr_series_without_rescale_keeps_its_stored_values(tmp_path: Path) -> None:
    phantom = Phantom(intercepts=(0.0,))
    edit = setting(SOPClassUID=MRImageStorage, Modality="MR", RescaleSlope=None, RescaleIntercept=None)
    assert _truth_error(read_series(phantom.write(tmp_path, edit=edit))) < ROUNDING


def test_a_lossy_series_is_accepted(tmp_path: Path) -> None:
    edit = setting(LossyImageCompression="01", LossyImageCompressionRatio="10")
    assert _truth_error(read_series(Phantom().write(tmp_path, edit=edit))) < ROUNDING


def test_small_jitter_of_positions_is_no_uneven_spacing(tmp_path: Path) -> None:
    def jitter(index: int, dataset: Dataset) -> Dataset:
        x, y, z = (float(number) for number in dataset.ImagePositionPatient)
        dataset.ImagePositionPatient = [x, y, z + (0.01 if index % 2 else -0.005)]
        return dataset

    assert read_series(Phantom().write(tmp_path, edit=jitter)).volume.spacing[0] == pytest.approx(2.5, abs=0.01)


def test_progress_ends_with_all_instances(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    read_series(Phantom().write(tmp_path), lambda done, total: seen.append((done, total)))
    assert seen == [(done, 6) for done in range(7)]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    angles=st.tuples(*(st.floats(-3.1, 3.1),) * 3),
    spacings=st.tuples(*(st.floats(0.3, 5.0),) * 3),
    slices=st.integers(2, 7),
    against_normal=st.booleans(),
)
def test_any_orientation_and_spacing(
    angles: tuple[float, float, float],
    spacings: tuple[float, float, float],
    slices: int,
    against_normal: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    phantom = Phantom(
        slices=slices,
        rows=4,
        columns=5,
        orientation=_orientation(angles),
        slice_spacing=round(spacings[0], 3),
        row_spacing=round(spacings[1], 3),
        column_spacing=round(spacings[2], 3),
        against_normal=against_normal,
    )
    series = read_series(phantom.write(tmp_path_factory.mktemp("any")))
    assert _truth_error(series) < ROUNDING + 0.01


def _orientation(angles: tuple[float, float, float]) -> tuple[float, ...]:
    a, b, c = angles
    around_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    around_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    around_x = np.array([[1, 0, 0], [0, np.cos(c), -np.sin(c)], [0, np.sin(c), np.cos(c)]])
    turned = around_z @ around_y @ around_x
    return tuple(float(number) for number in (*turned[:, 0], *turned[:, 1]))


def test_300_slices_are_read_in_little_time_and_memory(tmp_path: Path) -> None:
    phantom = Phantom(slices=60, rows=256, columns=256)
    files = phantom.write(tmp_path)
    started = time.process_time()
    read_series(files)
    assert time.process_time() - started < 3.0  # 0.1 s when nothing else runs


# --- a slice alone ---


@pytest.mark.parametrize("name", variants(Phantom()))
def test_a_slice_alone_is_where_it_is_in_the_patient(name: str, tmp_path: Path) -> None:
    phantom = variants(Phantom(slices=1))[name]
    series = read_series(phantom.write(tmp_path), gate=ALONE)
    assert series.volume.spatial_shape == (1, 10, 14)
    assert _truth_error(series) < ROUNDING
    assert series.volume.spacing == pytest.approx((2.5, 0.8, 0.5))
    assert (str(series.volume.handedness.value), series.notes) == ("RIGHT_HANDED", ())


@pytest.mark.parametrize(
    ("between", "thickness", "spacing"),
    [
        ("4", "3", 4.0),
        (None, "3", 3.0),
        ("", "3", 3.0),
        ("0", "3", 3.0),
        ("-4", "3", 3.0),
        ("4", None, 4.0),
        (None, None, None),
        (None, "0", None),
        ("", "", None),
    ],
)
def test_a_slice_alone_has_the_spacing_that_it_states(
    between: str | None, thickness: str | None, spacing: float | None, tmp_path: Path
) -> None:
    edit = setting(SpacingBetweenSlices=between, SliceThickness=thickness)
    series = read_series(Phantom(slices=1).write(tmp_path, edit=edit), gate=ALONE)
    assert series.volume.spacing_between_slices == pytest.approx(spacing or 1.0)
    assert [note.code for note in series.notes] == ([] if spacing else ["slice-spacing-unknown"])


def test_a_frame_alone_has_the_spacing_that_its_groups_state(tmp_path: Path) -> None:
    files = write_enhanced(Phantom(slices=1), tmp_path)
    assert read_series(files, gate=ALONE).volume.spacing == pytest.approx((2.5, 0.8, 0.5))


def test_a_pipeline_may_refuse_a_slice_of_unknown_thickness(tmp_path: Path) -> None:
    files = Phantom(slices=1).write(tmp_path, edit=setting(SliceThickness=None))
    gate = Gate(policies=GatePolicies({"slice-spacing-unknown": "refuse"}), takes_single_slice=True)
    with pytest.raises(SeriesRefused) as caught:
        read_series(files, gate=gate)
    assert caught.value.code == "slice-spacing-unknown"


def test_where_a_slice_alone_is_taken_a_stack_is_held_to_its_geometry_all_the_same(tmp_path: Path) -> None:
    with pytest.raises(SeriesRefused) as caught:
        read_series(Phantom().write(tmp_path, edit=without(2)), gate=ALONE)
    assert caught.value.code == "slice-missing"


# --- what is refused ---


@pytest.mark.parametrize(
    ("edit", "code"),
    [
        (setting(StudyInstanceUID=""), "missing-identifiers"),
        (at(2, SOPInstanceUID=None), "missing-identifiers"),
        (setting(SOPInstanceUID="1.2.3"), "duplicate-instance"),
        (at(2, SeriesInstanceUID="1.2.3"), "mixed-series"),
        (at(2, StudyInstanceUID="1.2.3"), "mixed-series"),
        (at(2, PatientID="PHANTOM-2"), "mixed-patient"),
        (at(2, PatientName="Other^Name"), "mixed-patient"),
        (at(2, PatientID=""), "mixed-patient"),
        (at(2, FrameOfReferenceUID="1.2.3"), "mixed-frame-of-reference"),
        (at(2, FrameOfReferenceUID=None), "missing-frame-of-reference"),
        (setting(ImagePositionPatient=None), "missing-geometry"),
        (at(0, ImageOrientationPatient=None), "missing-geometry"),
        (at(3, PixelSpacing=None), "missing-geometry"),
        (setting(PixelSpacing=[0, 0.5]), "missing-geometry"),
        (setting(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "missing-geometry"),
        (setting(ImageOrientationPatient=[2, 0, 0, 0, 1, 0]), "missing-geometry"),
        (at(1, PixelSpacing=[0.8, 0.6]), "mixed-spacing"),
        (at(0, ImageOrientationPatient=list(CORONAL)), "mixed-orientation"),
        (at(3, ImageOrientationPatient=[0.999, 0.0447, 0, -0.0447, 0.999, 0]), "mixed-orientation"),
        (setting(PhotometricInterpretation="MONOCHROME1", SOPClassUID=MRImageStorage), "not-monochrome2"),
        (setting(PhotometricInterpretation="PALETTE COLOR"), "not-monochrome2"),
        (setting(SamplesPerPixel=3, PhotometricInterpretation="RGB"), "colour"),
        (setting(NumberOfFrames=2, PixelData=bytes(2 * 2 * 140)), "multi-frame-unsupported"),
        (setting(NumberOfFrames=2), "unreadable-instance"),
        (setting(SOPClassUID=EnhancedCTImageStorage), "multi-frame-unsupported"),
        (setting(SOPClassUID=SecondaryCaptureImageStorage), "sop-class-unsupported"),
        (setting(SOPClassUID=UID("1.2.3.4")), "sop-class-unsupported"),
        (setting(Rows=None), "unreadable-instance"),
        (setting(BitsAllocated=None), "unreadable-instance"),
        (at(4, RescaleSlope=None), "missing-rescale"),
        (at(4, RescaleSlope="0"), "missing-rescale"),
        (_unscaled_mr(RescaleSlope="2", RescaleIntercept="0"), "missing-rescale"),
        (_unscaled_mr(RescaleSlope="2"), "missing-rescale"),
        (at(2, HighBit=14), "unreadable-instance"),
        (setting(Rows=9), "unreadable-instance"),
        (setting(BitsAllocated=8, BitsStored=8, HighBit=7), "unreadable-instance"),
        (_longer(3), "unreadable-instance"),
        (at(2, SOPClassUID=MRImageStorage), "mixed-sop-class"),
        (without(2), "slice-missing"),
        (without(1, 4), "slice-missing"),
        (without(1, 2, 3, 4, 5), "too-few-slices"),
    ],
)
def test_what_is_no_volume_is_refused_with_its_code(edit: Edit, code: str, tmp_path: Path) -> None:
    assert _refusal(Phantom(), tmp_path, edit).code == code


def test_no_instances(tmp_path: Path) -> None:
    with pytest.raises(SeriesRefused) as caught:
        read_series([])
    assert caught.value.code == "no-images"


def test_missing_slices_are_named_by_place(tmp_path: Path) -> None:
    refused = _refusal(Phantom(slices=9), tmp_path, without(3, 6, 7))
    assert "a slice every 2.50 mm" in str(refused)
    assert "1 between 5.00 and 10.00 mm, 2 between 12.50 and 20.00 mm" in str(refused)


def test_many_gaps_are_not_all_named(tmp_path: Path) -> None:
    refused = _refusal(Phantom(slices=30), tmp_path, without(*range(2, 28, 3)))
    assert refused.code == "slice-missing"
    assert "4 more gaps" in str(refused)


def test_two_phases_at_the_same_places(tmp_path: Path) -> None:
    phantom = Phantom()
    files = phantom.write(tmp_path / "1")
    files += phantom.write(tmp_path / "2", edit=lambda index, dataset: _late(dataset, f"1.2.{index}"))
    with pytest.raises(SeriesRefused, match="6 more at positions already taken") as caught:
        read_series(files)
    assert caught.value.code == "duplicate-position"


def _late(dataset: Dataset, uid: str) -> Dataset:
    """Values that another phase has at the same places."""
    dataset.RescaleIntercept = "-1000"
    return _renamed(dataset, uid)


def test_positions_that_differ_by_less_than_rounding_are_the_same(tmp_path: Path) -> None:
    edit = at(3, ImagePositionPatient=["-20", "-15", "35.00001"])
    assert _refusal(Phantom(), tmp_path, edit).code == "duplicate-position"


def test_slices_side_by_side_are_no_stack(tmp_path: Path) -> None:
    def aside(index: int, dataset: Dataset) -> Dataset:
        dataset.ImagePositionPatient = [10.0 * index, 0, 0]
        return dataset

    assert _refusal(Phantom(), tmp_path, aside).code == "duplicate-position"


def test_a_localizer_with_another_matrix(tmp_path: Path) -> None:
    def localizer(index: int, dataset: Dataset) -> Dataset:
        if index == 0:
            dataset.Rows, dataset.Columns = 20, 20
            dataset.ImageOrientationPatient = list(CORONAL)
            dataset.PixelData = bytes(800)
        return dataset

    refused = _refusal(Phantom(), tmp_path, localizer)
    assert refused.code == "mixed-matrix"
    assert "localizer" in str(refused)


def test_gantry_tilt_is_measured(tmp_path: Path) -> None:
    def tilt(index: int, dataset: Dataset) -> Dataset:
        x, y, z = (float(number) for number in dataset.ImagePositionPatient)
        dataset.ImagePositionPatient = [x, y + index * 2.5 * np.tan(np.radians(20)), z]
        return dataset

    refused = _refusal(Phantom(), tmp_path, tilt)
    assert refused.code == "gantry-tilt"
    assert "20.0 degrees" in str(refused)


@pytest.mark.parametrize("orientation", [AXIAL, CORONAL, OBLIQUE])
@pytest.mark.parametrize(("axis", "pixel"), [(1, 0.8), (2, 0.5)])
def test_a_slight_tilt_is_measured_over_the_whole_stack(
    orientation: tuple[float, ...], axis: int, pixel: float, tmp_path: Path
) -> None:
    phantom = Phantom(slices=40, orientation=orientation)

    def tilted(pixels: float) -> Edit:
        def edit(index: int, dataset: Dataset) -> Dataset:
            aside = phantom.axes[axis] * pixels * index / 39
            dataset.ImagePositionPatient = [f"{one:.6f}" for one in phantom.position(index) + aside]
            return dataset

        return edit

    refused = _refusal(phantom, tmp_path / "1", tilted(0.3))
    assert refused.code == "gantry-tilt"
    assert f"up to {0.3 * pixel:.2f} mm beside" in str(refused)
    assert read_series(phantom.write(tmp_path / "2", edit=tilted(0.2))).volume.spatial_shape[0] == 40


def test_a_slice_beside_the_others(tmp_path: Path) -> None:
    refused = _refusal(Phantom(), tmp_path, at(3, ImagePositionPatient=["-19.5", "-15", "37.5"]))
    assert (refused.code, "0.50 mm beside the others" in str(refused)) == ("uneven-spacing", True)


def test_small_differences_of_distances_may_not_add_up(tmp_path: Path) -> None:
    def squeeze(index: int, dataset: Dataset) -> Dataset:
        dataset.ImagePositionPatient = [-20, -15, 2.5 * (index + 0.009 * min(index, 59 - index))]
        return dataset

    refused = _refusal(Phantom(slices=60), tmp_path, squeeze)
    assert refused.code == "uneven-spacing"


@pytest.mark.parametrize("count", [1, 2])
def test_two_bytes_after_the_pixels_are_padding(count: int, tmp_path: Path) -> None:
    assert _truth_error(read_series(Phantom().write(tmp_path, edit=_longer(count)))) < ROUNDING


def test_uneven_spacing(tmp_path: Path) -> None:
    def squeeze(index: int, dataset: Dataset) -> Dataset:
        x, y, z = (float(number) for number in dataset.ImagePositionPatient)
        dataset.ImagePositionPatient = [x, y, z + 0.13 * index**2]
        return dataset

    refused = _refusal(Phantom(), tmp_path, squeeze)
    assert refused.code == "uneven-spacing"
    assert "2.63" in str(refused)


# --- damaged files ---


@pytest.mark.parametrize("left", [0, 100, 300, 700, -1, -100])
def test_a_file_that_is_cut_off(left: int, tmp_path: Path) -> None:
    files = Phantom().write(tmp_path)
    files[2].write_bytes(files[2].read_bytes()[:left])
    with pytest.raises(SeriesRefused) as caught:
        read_series(files)
    assert caught.value.code == "unreadable-instance"


def test_a_file_that_is_cut_off_inside_its_header_values(tmp_path: Path) -> None:
    content = Phantom(slices=1).write(tmp_path / "one")[0].read_bytes()
    files = Phantom().write(tmp_path)
    for left in range(140, len(content) - 300, 53):
        files[0].write_bytes(content[:left])
        with pytest.raises(SeriesRefused) as caught:
            read_series(files)
        assert caught.value.code == "unreadable-instance"


def test_compressed_pixels_that_are_cut_off(tmp_path: Path) -> None:
    files = Phantom(rows=64, columns=64).write(tmp_path, syntax=JPEG2000Lossless)
    content = files[1].read_bytes()
    files[1].write_bytes(content[: len(content) - 900])
    with pytest.raises(SeriesRefused) as caught:
        read_series(files)
    assert caught.value.code == "unreadable-instance"


def test_pixel_data_shorter_than_the_matrix(tmp_path: Path) -> None:
    assert _refusal(Phantom(), tmp_path, at(5, PixelData=bytes(100))).code == "unreadable-instance"


def test_text_instead_of_dicom(tmp_path: Path) -> None:
    files = Phantom().write(tmp_path)
    files[0].write_text("no DICOM at all" * 50)
    with pytest.raises(SeriesRefused) as caught:
        read_series(files)
    assert caught.value.code == "unreadable-instance"


def test_a_file_without_file_meta_information(tmp_path: Path) -> None:
    """Nothing says how it is encoded (PS3.10 section 7); the listener writes it for what comes by C-STORE."""
    files = Phantom().write(tmp_path)
    dataset = pydicom.dcmread(files[0])
    del dataset.file_meta
    dataset.save_as(files[0], implicit_vr=True, little_endian=True, enforce_file_format=False)
    with pytest.raises(SeriesRefused) as caught:
        read_series(files)
    assert caught.value.code == "unreadable-instance"


def test_a_series_that_is_no_images(tmp_path: Path) -> None:
    edit = setting(PixelData=None, Rows=None, Columns=None, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11")
    assert _refusal(Phantom(), tmp_path, edit).code == "no-images"


@pytest.mark.parametrize(
    ("uid", "name"),
    [("1.2.840.10008.1.2.4.92", "JPEG 2000 Part 2"), ("1.2.840.10008.1.2.4.100", "MPEG2")],
)
def test_a_compression_without_a_decoder(uid: str, name: str, tmp_path: Path) -> None:
    files = Phantom().write(tmp_path, syntax=RLELossless)
    for path in files:
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = UID(uid)
        with path.open("wb") as file:  # pydicom's own writing asks for a syntax it knows
            file.write(bytes(128) + b"DICM")
            write_file_meta_info(file, dataset.file_meta, enforce_standard=False)  # type: ignore[arg-type]
            encoded = DicomBytesIO()
            encoded.is_implicit_VR, encoded.is_little_endian = False, True
            write_dataset(encoded, dataset)
            file.write(encoded.getvalue())
    with pytest.raises(SeriesRefused, match=name) as caught:
        read_series(files)
    assert caught.value.code == "transfer-syntax-unsupported"


def _renamed(dataset: Dataset, uid: str) -> Dataset:
    dataset.SOPInstanceUID = uid
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(uid)
    return dataset


@pytest.mark.filterwarnings("ignore")  # pydicom says what it doubts
@pytest.mark.parametrize("seed", range(3))
def test_any_damage_is_a_refusal_or_harmless(seed: int, tmp_path: Path) -> None:
    files = Phantom(slices=3).write(tmp_path)
    good = files[1].read_bytes()
    chance = np.random.default_rng(seed)
    refused = 0
    for _ in range(60):
        damaged = bytearray(good)
        for place in chance.integers(128, len(good) - 280, 2):
            damaged[place] = chance.integers(256)
        files[1].write_bytes(bytes(damaged))
        try:
            write_segmented(files, tmp_path / "seg.dcm")
        except SeriesRefused:
            refused += 1
    assert refused > 10


@pytest.mark.parametrize("keyword", [element.keyword for element in Phantom().dataset(0)])
@pytest.mark.parametrize("empty", [False, True])
def test_without_any_one_attribute_it_is_refused_or_written(keyword: str, empty: bool, tmp_path: Path) -> None:
    def edit(index: int, dataset: Dataset) -> Dataset:
        setattr(dataset, keyword, None)
        if not empty:
            delattr(dataset, keyword)
        return dataset

    files = Phantom(slices=3).write(tmp_path / "ct", edit=edit)
    with contextlib.suppress(SeriesRefused):  # and nothing else
        write_segmented(files, tmp_path / "seg.dcm")


def test_the_real_ct(abdominal_ct: list[Path]) -> None:
    series = read_series(abdominal_ct)
    volume = series.volume
    assert volume.spatial_shape == (20, 512, 512)
    assert volume.spacing == pytest.approx((2.0, 0.9765625, 0.9765625))
    assert volume.position == pytest.approx((-249.51171875, -437.51171875, -766.5))
    assert (volume.array.min(), volume.array.max()) == (-1024.0, 1839.0)


def test_the_real_ct_as_published_lacks_identifiers(abdominal_ct_source: Path) -> None:
    files = [path for path in abdominal_ct_source.rglob("CT.*") if path.is_file()]
    with pytest.raises(SeriesRefused) as caught:
        read_series(files)
    assert caught.value.code == "missing-identifiers"


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ([{"EchoTime": "10"}, {"EchoTime": "80"}], "they differ in echo time;"),
        ([{"AcquisitionNumber": 1}, {"AcquisitionNumber": 2}], "they differ in acquisition;"),
        (
            [{"TemporalPositionIdentifier": 1, "ImageType": ["ORIGINAL", "PRIMARY"]}, {"TriggerTime": "500"}],
            "they differ in temporal position, cardiac phase, image type;",
        ),
        ([{}, {}], "nothing tells them apart;"),
    ],
)
def test_slices_at_one_place_are_told_by_what_they_differ_in(
    attributes: list[dict[str, object]], words: str, tmp_path: Path
) -> None:
    files = []
    for number, different in enumerate(attributes):
        phantom = Phantom(slices=3)

        def edit(
            index: int, dataset: Dataset, number: int = number, different: dict[str, object] = different
        ) -> Dataset:
            for keyword, value in different.items():
                setattr(dataset, keyword, value)
            dataset.RescaleIntercept = f"{-1024 + number}"
            return _renamed(dataset, f"1.2.{number}.{index}")

        files += phantom.write(tmp_path / str(number), edit=edit)
    with pytest.raises(SeriesRefused, match=words) as caught:  # the gate says it first of what it is given
        find_geometry([pydicom.dcmread(path) for path in files])
    assert caught.value.code == "duplicate-position"
