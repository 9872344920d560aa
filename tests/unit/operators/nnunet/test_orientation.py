from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from operators.nnunet.orientation import reading_order, segment_series_volume, simpleitk_order
from tests.unit.operators.nnunet.oracle import Pointwise, demo_package

AXIAL, PRONE = (1, 0, 0, 0, 1, 0), (-1, 0, 0, 0, -1, 0)
CORONAL, SAGITTAL = (1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1)
OBLIQUE = (0.8, 0.6, 0.0, -0.6, 0.8, 0.0)


def volume_of(
    array: NDArray[np.float32], orientation: tuple[float, ...], *, step: float, pixel: tuple[float, float] = (1.5, 1.25)
) -> highdicom.Volume:
    """Slices `step` mm apart along the cross product of the row and column directions; negative: against it."""
    row, column = np.array(orientation[:3], float), np.array(orientation[3:], float)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([np.cross(row, column) * step, column * pixel[0], row * pixel[1]], axis=1)
    affine[:3, 3] = (-10, -20, 30)
    return highdicom.Volume(array, affine, "PATIENT")


@pytest.mark.parametrize("step", [2.5, -2.5])
@pytest.mark.parametrize("orientation", [AXIAL, PRONE, CORONAL, SAGITTAL, OBLIQUE])
def test_the_order_is_simpleitks(orientation: tuple[float, ...], step: float, tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 1000, (4, 5, 6)).astype(np.float32)
    volume = volume_of(array, orientation, step=step)
    read = SimpleITK.ReadImage(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(write(volume, tmp_path))))
    reading = simpleitk_order(volume)
    np.testing.assert_array_equal(reading.array, SimpleITK.GetArrayFromImage(read))
    np.testing.assert_allclose(reading.spacing, read.GetSpacing()[::-1])
    np.testing.assert_allclose(reading.position, read.GetOrigin(), atol=1e-6)


def write(volume: highdicom.Volume, folder: Path) -> Path:
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    for index, (pixels, plane) in enumerate(zip(volume.array, volume.get_plane_positions(), strict=True)):
        dataset = pydicom.Dataset()
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
        dataset.SeriesInstanceUID, dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = series, study, frame
        dataset.Modality = "CT"
        dataset.ImagePositionPatient = [f"{value:.8g}" for value in plane[0].ImagePositionPatient]
        dataset.ImageOrientationPatient = [f"{value:.8g}" for value in volume.direction_cosines]
        dataset.PixelSpacing = list(volume.pixel_spacing)
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit, dataset.PixelRepresentation, dataset.SamplesPerPixel = 15, 0, 1
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.RescaleSlope, dataset.RescaleIntercept = "1", "0"
        dataset.PixelData = pixels.astype("<u2").tobytes()
        dataset.save_as(folder / f"{index}.dcm", enforce_file_format=True)
    return folder


@settings(max_examples=12)
@given(
    orientation=st.sampled_from([AXIAL, PRONE, CORONAL, SAGITTAL, OBLIQUE]),
    step=st.sampled_from([3.0, -3.0]),
    corner=st.tuples(*[st.sampled_from([0, -1])] * 3),
)
def test_labels_lie_where_the_image_is_bright(
    orientation: tuple[float, ...], step: float, corner: tuple[int, int, int]
) -> None:
    array = np.full((5, 6, 7), -40, np.float32)
    array[corner] = 200
    volume = volume_of(array, orientation, step=step, pixel=(3.0, 3.0))  # the network's own grid: nothing is resampled
    labels = segment_series_volume([volume], demo_package(), {demo_package().name: BRIGHTEST}, lambda *_: None)
    assert labels.geometry_equal(volume)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels.array, array == 200)


BRIGHTEST = Pointwise([[0.0], [1.0], [0.0]], [0.0, 0.0, -100.0])
"""A network that calls bright voxels 1."""


@settings(max_examples=20)
@given(orientation=st.sampled_from([AXIAL, PRONE, CORONAL, SAGITTAL, OBLIQUE]), step=st.sampled_from([3.0, -3.0]))
def test_a_network_trained_on_turned_images_gets_them_turned(orientation: tuple[float, ...], step: float) -> None:
    """The array must lie as ``nibabel.as_closest_canonical`` lays it, and its labels where the image is bright."""
    array = np.full((5, 6, 7), -40, np.float32)
    array[0, 0, 0] = array[0, 0, 1] = array[1, 0, 0] = 200
    volume = volume_of(array, orientation, step=step, pixel=(3.0, 3.0))
    package = demo_package()
    turned = replace(package, networks=(replace(package.networks[0], orientation="RAS"),))
    reading = reading_order(volume, turned)
    towards = np.asarray(reading.direction)  # columns: where the axes z, y, x lead in patient coordinates (LPS)
    for axis, (patient_axis, sign) in enumerate(((2, 1), (1, -1), (0, -1))):
        assert towards[patient_axis, axis] * sign > np.sqrt(0.5) - 0.1
    labels = segment_series_volume([volume], turned, {package.name: BRIGHTEST}, lambda *_: None)
    assert labels.geometry_equal(volume)
    np.testing.assert_array_equal(labels.array, array == 200)
