"""Phantoms as multi-frame images: Enhanced CT, MR and PET built here, Legacy Converted Enhanced ones by highdicom.

The frames are a phantom's slices, so that its arithmetic is the truth for them too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import highdicom
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedPETImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
)

from tests.phantom import Phantom

SECOND_ECHO = 100
"""How much higher the stored values of the second echo are."""
EditInstance = Callable[[Dataset], None]
_MODALITIES = {EnhancedCTImageStorage: "CT", EnhancedMRImageStorage: "MR", EnhancedPETImageStorage: "PT"}
_OF_FRAMES = (
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "RescaleSlope"),
    *("RescaleIntercept", "RescaleType", "PixelData", "KVP", "AcquisitionDate", "AcquisitionTime"),
)


_CORRECTIONS = (
    *("DecayCorrected", "AttenuationCorrected", "ScatterCorrected", "DeadTimeCorrected", "GantryMotionCorrected"),
    *("PatientMotionCorrected", "CountLossNormalizationCorrected", "RandomsCorrected", "SensitivityCalibrated"),
    *("NonUniformRadialSamplingCorrected", "DetectorNormalizationCorrection"),
)


def item(**attributes: object) -> Dataset:
    """A data set, or an item of a sequence, of attributes by keyword."""
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def code(value: str, scheme: str, meaning: str) -> list[Dataset]:
    """A code sequence."""
    return [item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)]


_FLUORODEOXYGLUCOSE = ("35321007", "SCT", "Fluorodeoxyglucose F^18^")
_OF_THE_MODALITY: dict[str, dict[str, object]] = {
    "CT": {},
    "MR": {
        "ComplexImageComponent": "MAGNITUDE",
        "AcquisitionContrast": "T1",
        "ResonantNucleus": "1H",
        "KSpaceFiltering": "NONE",
        "MagneticFieldStrength": 1.5,
        "ApplicableSafetyStandardAgency": "IEC",
    },
    "PT": {
        **dict.fromkeys(_CORRECTIONS, "NO"),
        "CountsSource": "EMISSION",
        "TimeOfFlightInformationUsed": "FALSE",
        "TableMotion": "STATIC",
        "ViewCodeSequence": [
            item(
                CodeValue="62824007",
                CodingSchemeDesignator="SCT",
                CodeMeaning="Transverse",
                ViewModifierCodeSequence=Items([]),
            )
        ],
        "RadiopharmaceuticalInformationSequence": [
            item(
                RadionuclideCodeSequence=code("77004003", "SCT", "^18^Fluorine"),
                RadiopharmaceuticalAgentNumber=1,
                RadiopharmaceuticalCodeSequence=code(*_FLUORODEOXYGLUCOSE),
                AdministrationRouteCodeSequence=code("47625008", "SCT", "Intravenous route"),
                RadiopharmaceuticalStartDateTime="20240305091400",
                RadiopharmaceuticalStopDateTime="20240305091500",
                RadionuclideTotalDose="100",
                RadionuclideHalfLife="6586",
                RadionuclidePositronFraction="0.97",
            )
        ],
    },
}


def enhanced(
    phantom: Phantom,
    indices: Sequence[int],
    *,
    sop_class: UID = EnhancedCTImageStorage,
    part: int = 1,
    parts: int = 1,
    shared: bool = True,
) -> Dataset:
    """Return slices of `phantom` as the frames, in the order of `indices`, of one enhanced image.

    Parameters
    ----------
    part, parts
        Which part it is of how many, of a concatenation; Instance UIDs differ by it.
    shared
        Whether what all frames have in common is in the Shared Functional Groups Sequence, or repeated frame by frame.
    """
    slices = [phantom.dataset(index) for index in indices]
    dataset = _instance(phantom, slices, sop_class, part)
    if parts > 1:
        dataset.ConcatenationUID = phantom.uid("concatenation")
        dataset.SOPInstanceUIDOfConcatenationSource = phantom.uid("concatenation source")
        dataset.InConcatenationNumber, dataset.InConcatenationTotalNumber = part, parts
        dataset.ConcatenationFrameOffsetNumber = (part - 1) * len(indices)
    common = _common_groups(slices[0], sop_class)
    dataset.SharedFunctionalGroupsSequence = [common if shared else Dataset()]
    frames = []
    for number, one in enumerate(slices, start=1):
        groups = _frame_groups(one, number)
        if not shared:
            for element in _common_groups(one, sop_class):
                groups.add(element)
        frames.append(groups)
    dataset.PerFrameFunctionalGroupsSequence = frames
    dataset.PixelData = b"".join(one.PixelData for one in slices)
    dataset["PixelData"].VR = "OW"
    return dataset


def _instance(phantom: Phantom, slices: Sequence[Dataset], sop_class: UID, part: int) -> Dataset:
    dataset = Dataset()
    for element in slices[0]:
        if element.keyword not in _OF_FRAMES:
            dataset.add(element)
    modality = _MODALITIES[sop_class]
    image_type = (
        ["DERIVED", "PRIMARY", "AXIAL", "NONE"] if modality == "CT" else ["DERIVED", "PRIMARY", "OTHER", "NONE"]
    )
    for keyword, value in {
        "SOPClassUID": sop_class,
        "SOPInstanceUID": phantom.uid("multi-frame", sop_class, part),
        "Modality": modality,
        "ImageType": image_type,
        "InstanceNumber": part,
        "NumberOfFrames": len(slices),
        "ManufacturerModelName": "Phantom",
        "DeviceSerialNumber": "1",
        "SoftwareVersions": "1",
        "AcquisitionDateTime": "20240305101400",
        "AcquisitionDuration": 1.0,
        "ContentQualification": "RESEARCH",
        "PixelPresentation": "MONOCHROME",
        "VolumetricProperties": "VOLUME",
        "VolumeBasedCalculationTechnique": "NONE",
        "BurnedInAnnotation": "NO",
        "LossyImageCompression": "00",
        "PresentationLUTShape": "IDENTITY",
        "AcquisitionContextSequence": Items([]),
        "PositionReferenceIndicator": "",
        "DimensionOrganizationSequence": [item(DimensionOrganizationUID=phantom.uid("dimensions"))],
    }.items():
        setattr(dataset, keyword, value)
    for keyword, value in _OF_THE_MODALITY[modality].items():
        setattr(dataset, keyword, value)
    dataset.DimensionIndexSequence = [
        item(
            DimensionOrganizationUID=phantom.uid("dimensions"),
            DimensionIndexPointer=pydicom.tag.Tag("InStackPositionNumber"),
            FunctionalGroupPointer=pydicom.tag.Tag("FrameContentSequence"),
        )
    ]
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(dataset.SOPInstanceUID)
    return dataset


def _common_groups(one: Dataset, sop_class: UID) -> Dataset:
    modality = _MODALITIES[sop_class]
    frame_type = item(
        FrameType=["DERIVED", "PRIMARY", "AXIAL" if modality == "CT" else "OTHER", "NONE"],
        PixelPresentation="MONOCHROME",
        VolumetricProperties="VOLUME",
        VolumeBasedCalculationTechnique="NONE",
    )
    if modality == "MR":
        frame_type.ComplexImageComponent, frame_type.AcquisitionContrast = "MAGNITUDE", "T1"
    groups = item(
        PixelMeasuresSequence=[item(PixelSpacing=one.PixelSpacing, SliceThickness=one.SliceThickness)],
        PlaneOrientationSequence=[item(ImageOrientationPatient=one.ImageOrientationPatient)],
        FrameAnatomySequence=[
            item(FrameLaterality="U", AnatomicRegionSequence=code("818981001", "SCT", "Abdomen")),
        ],
    )
    macro = {"CT": "CTImageFrameTypeSequence", "MR": "MRImageFrameTypeSequence", "PT": "PETFrameTypeSequence"}[modality]
    setattr(groups, macro, [frame_type])
    if modality == "CT":
        groups.IrradiationEventIdentificationSequence = [item(IrradiationEventUID="1.2.3.4")]
    if modality == "PT":
        groups.RadiopharmaceuticalUsageSequence = [item(RadiopharmaceuticalAgentNumber=1)]
    return groups


def _frame_groups(one: Dataset, number: int) -> Dataset:
    return item(
        FrameContentSequence=[
            item(
                DimensionIndexValues=[number],
                StackID="1",
                InStackPositionNumber=number,
                FrameAcquisitionNumber=1,
                TemporalPositionIndex=1,
                FrameReferenceDateTime="20240305101400",
                FrameAcquisitionDateTime="20240305101400",
                FrameAcquisitionDuration=1.0,
            )
        ],
        PlanePositionSequence=[item(ImagePositionPatient=one.ImagePositionPatient)],
        PixelValueTransformationSequence=[
            item(RescaleIntercept=one.RescaleIntercept, RescaleSlope=one.RescaleSlope, RescaleType=one.RescaleType)
        ],
    )


def write_instance(dataset: Dataset, path: Path, syntax: UID | None = None) -> Path:
    """Write an image, compressed if a `syntax` is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if syntax is not None:
        dataset.compress(syntax, generate_instance_uid=False)
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_enhanced(
    phantom: Phantom,
    folder: Path,
    *,
    sop_class: UID = EnhancedCTImageStorage,
    shared: bool = True,
    shuffled: bool = False,
    edit: EditInstance | None = None,
    syntax: UID | None = None,
) -> list[Path]:
    """Write all slices as one enhanced image; its frames in no order if `shuffled`."""
    indices = np.random.default_rng(phantom.seed).permutation(phantom.slices) if shuffled else range(phantom.slices)
    dataset = enhanced(phantom, [int(index) for index in indices], sop_class=sop_class, shared=shared)
    if edit is not None:
        edit(dataset)
    return [write_instance(dataset, folder / "enhanced.dcm", syntax)]


def write_two_echoes(phantom: Phantom, folder: Path, *, syntax: UID | None = None) -> list[Path]:
    """Write the slices at two echoes as one Enhanced MR, whose frames take turns; the second has `SECOND_ECHO` more."""
    dataset = enhanced(
        phantom, [index for index in range(phantom.slices) for _ in range(2)], sop_class=EnhancedMRImageStorage
    )
    frames = np.frombuffer(dataset.PixelData, np.int16).reshape(-1, phantom.rows, phantom.columns).copy()
    frames[1::2] += SECOND_ECHO
    dataset.PixelData = frames.tobytes()
    for index, groups in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        groups.MREchoSequence = [item(EffectiveEchoTime=80.0 if index % 2 else 10.0)]
    return [write_instance(dataset, folder / "echoes.dcm", syntax)]


def write_concatenation(phantom: Phantom, folder: Path, parts: int = 3) -> list[Path]:
    """Write the slices as the parts of a concatenation, in which they take turns."""
    return [
        write_instance(
            enhanced(phantom, range(part - 1, phantom.slices, parts), part=part, parts=parts), folder / f"{part}.dcm"
        )
        for part in range(1, parts + 1)
    ]


def write_legacy_converted(phantom: Phantom, folder: Path, modality: str = "CT") -> list[Path]:
    """Write the slices as one Legacy Converted Enhanced image, made by highdicom of single-frame ones."""
    storage, convert = {
        "CT": (CTImageStorage, highdicom.legacy.LegacyConvertedEnhancedCTImage),
        "MR": (MRImageStorage, highdicom.legacy.LegacyConvertedEnhancedMRImage),
        "PT": (PositronEmissionTomographyImageStorage, highdicom.legacy.LegacyConvertedEnhancedPETImage),
    }[modality]
    slices = [phantom.dataset(index) for index in range(phantom.slices)]
    for one in slices:
        one.SOPClassUID, one.Modality = storage, modality
        one.WindowCenter, one.WindowWidth = 40, 400
    converted = convert(
        slices,
        series_instance_uid=phantom.uid("legacy series"),
        series_number=4,
        sop_instance_uid=phantom.uid("legacy instance"),
        instance_number=1,
    )
    for element in [one for one in converted if one.tag.group == 0x0012]:
        del converted[element.tag]  # clinical trial attributes that the slices lack: highdicom adds them, empty
    return [write_instance(converted, folder / "legacy.dcm")]
