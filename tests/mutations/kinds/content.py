"""What the instances show: something else among the slices, several acquisitions in one, or the wrong examination."""

from __future__ import annotations

import copy

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import (
    BasicTextSRStorage,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
)

from tests.mutations.kind import Series, harmful, notable, repairable, undetectable
from tests.mutations.kinds.editing import MIDDLE, brighter, copies, decimals, each, move, position, some, step
from tests.mutations.series import renamed, restore

_LOCALIZER_REFUSALS = ("localizer", "mixed-orientation", "mixed-matrix", "mixed-spacing")


def _localizer(series: Series, side: int) -> Dataset:
    (dataset,) = copies([series[0]])
    dataset = renamed(dataset, "localizer")
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    dataset.ImagePositionPatient = decimals(position(series[0]) + np.array([0, 60, 40]))
    restore(dataset, np.full((side, side), 40))
    return dataset


@repairable(*_LOCALIZER_REFUSALS)
def localizer(series: Series) -> Series:
    """A localizer of another matrix and orientation in the series."""
    return [_localizer(series, 64), *series]


@repairable(*_LOCALIZER_REFUSALS)
def localizer_of_the_same_matrix(series: Series) -> Series:
    """A localizer that only its orientation and Image Type give away."""
    made = _localizer(series, 64)
    made.Rows, made.Columns, made.PixelData = series[0].Rows, series[0].Columns, series[0].PixelData
    return [*series, made]


@harmful("localizer", "mixed-orientation", "mixed-matrix")
def only_localizers(series: Series) -> Series:
    """Nothing but two localizers, one of the front and one of the side."""
    front, side = _localizer(series, 64), renamed(_localizer(series, 64), "side")
    side.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    return [front, side]


@repairable("secondary-capture", "sop-class-unsupported", "colour", "mixed-matrix", "missing-geometry")
def a_screenshot_among_the_slices(series: Series) -> Series:
    """A dose sheet or screenshot (Secondary Capture) in the series."""
    (dataset,) = copies([series[0]])
    dataset = renamed(dataset, "screenshot")
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.ImageType = ["DERIVED", "SECONDARY", "SCREEN SAVE"]
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "FrameOfReferenceUID"):
        dataset.pop(keyword, None)
    return [*series, dataset]


@repairable("no-images", "sop-class-unsupported")
def a_report_among_the_slices(series: Series) -> Series:
    """A structured report under the series' UID."""
    (dataset,) = copies([series[0]])
    dataset = renamed(dataset, "report")
    for element in [*dataset.group_dataset(0x0028), *dataset.group_dataset(0x7FE0)]:
        del dataset[element.tag]
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = BasicTextSRStorage
    return [*series, dataset]


@harmful("duplicate-position")
def two_phases(series: Series) -> Series:
    """Two phases of contrast at the same places, with the same Acquisition Number."""
    return [*series, *(renamed(brighter(dataset), "late") for dataset in copies(series))]


@harmful("duplicate-position")
def two_phases_with_numbers(series: Series) -> Series:
    """Two phases of contrast at the same places, which their Acquisition Numbers and times tell apart."""
    late = [renamed(brighter(dataset), "late") for dataset in copies(series)]
    return [*series, *each(late, AcquisitionNumber=int(series[0].AcquisitionNumber) + 1, AcquisitionTime="141500")]


@harmful("duplicate-position")
def two_echoes(series: Series) -> Series:
    """Two echoes, or two reconstruction kernels, of every slice."""
    late = [renamed(brighter(dataset), "late") for dataset in copies(series)]
    return [*series, *each(late, **_otherwise(late))]


@harmful("duplicate-position")
def one_slice_of_another_phase_too(series: Series) -> Series:
    """One place twice, with other pixels."""
    return [*series, renamed(brighter(copies([series[MIDDLE]])[0]), "late")]


@harmful("mixed-acquisition")
def phases_interleaved(series: Series) -> Series:
    """Every second slice of another echo or kernel, at its own place: an even stack of two images."""
    for dataset in series[1::2]:
        brighter(dataset)
    return some(series, range(1, len(series), 2), **_otherwise(series))


@harmful("mixed-acquisition")
def phases_between_the_slices(series: Series) -> Series:
    """A second acquisition with its slices half way between: an even stack of half the distance, of two images."""
    late = [renamed(brighter(dataset), "late") for dataset in copies(series)]
    for dataset in late:
        move(dataset, step(series) / 2)
    number = int(series[0].AcquisitionNumber) + 1
    return [*series, *each(late, AcquisitionNumber=number, **_otherwise(late))]


@harmful("mixed-acquisition", only="MR")
def phase_images_among_magnitude(series: Series) -> Series:
    """Every second slice a phase image, by its Image Type, at its own place."""
    for dataset in series[1::2]:
        brighter(dataset)
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "P", "SE"]
    return series


@harmful("mixed-acquisition", only="CT")
def acquisitions_interleaved(series: Series) -> Series:
    """Every second slice of another acquisition, by its number and nothing else, at its own place."""
    for dataset in series[1::2]:
        brighter(dataset)
    return some(series, range(1, len(series), 2), AcquisitionNumber=int(series[0].AcquisitionNumber) + 1)


@undetectable("whoever looks at the images: an MR's slices may well be excited in turns", only="MR")
def acquisitions_interleaved_in_mr(series: Series) -> Series:
    """Every second slice of another acquisition, by its number and nothing else, at its own place."""
    return acquisitions_interleaved(series)  # type: ignore[no-any-return]


def _otherwise(series: Series) -> dict[str, object]:
    """What the header of another echo (MR) or kernel (CT) has."""
    return {"ConvolutionKernel": "Bl64"} if series[0].Modality == "CT" else {"EchoTime": "80", "EchoNumbers": 2}


@harmful("wrong-modality")
def modality_contradicts(series: Series) -> Series:
    """A Modality that the SOP class contradicts."""
    return each(series, Modality="PT")


@harmful("wrong-modality")
def wrong_modality(series: Series) -> Series:
    """The same values as a whole, well-formed PET series, sent to a model of this modality."""
    for dataset in series:
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = PositronEmissionTomographyImageStorage
        dataset.Modality, dataset.RescaleSlope = "PT", str(dataset.get("RescaleSlope", "1"))
        dataset.RescaleIntercept = str(dataset.get("RescaleIntercept", "0"))
    return series


@harmful("sop-class-unsupported")
def ultrasound(series: Series) -> Series:
    """Instances of an ultrasound device."""
    for dataset in series:
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UltrasoundImageStorage
    return each(series, Modality="US")


@harmful("mixed-sop-class", only="CT")
def one_slice_of_another_sop_class(series: Series) -> Series:
    """One slice that calls itself MR, and so needs no rescale and has none."""
    dataset = series[MIDDLE]
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
    del dataset.RescaleSlope, dataset.RescaleIntercept
    return series


@notable("wrong-body-part")
def wrong_body_part(series: Series) -> Series:
    """A head, by its Body Part Examined, for a model of the abdomen."""
    return each(series, BodyPartExamined="HEAD")


@undetectable("whoever looks at the images; a second model that disagrees")
def pixels_of_two_slices_swapped(series: Series) -> Series:
    """Two slices with each other's pixels."""
    first, second = series[4], series[12]
    first.PixelData, second.PixelData = second.PixelData, first.PixelData
    return series


@undetectable("whoever looks at the images; a second model that disagrees")
def pixels_mirrored(series: Series) -> Series:
    """Every slice with its pixels mirrored left to right, and the header of before."""
    for dataset in series:
        rows = np.frombuffer(dataset.PixelData, "<u2").reshape(int(dataset.Rows), int(dataset.Columns))
        dataset.PixelData = rows[:, ::-1].tobytes()
    return series


@undetectable("whoever holds it against the order: the patient's other images, the department's routine")
def the_whole_series_of_another_patient(series: Series) -> Series:
    """Every slice under another patient's name, consistently: the modality's worklist was misread."""
    other = copy.deepcopy(series)
    return each(other, PatientID="ANOTHER-9", PatientName="Another^Patient")
