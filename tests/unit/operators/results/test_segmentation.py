"""What all Segmentations have in common: who made them, and that one is described as the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from operators.results.binary import write_binary
from operators.results.finding import Finding, WrittenObject, device_uid
from operators.results.fractional import write_fractional
from operators.results.labelmap import write_labelmap
from operators.series_volume import read_series
from tests.finding_phantom import JAPANESE, PHANTOM, WITHOUT_TYPE_2, planted_finding, planted_probabilities
from tests.segmented_phantom import LIVER, SEGMENTS


def _fractional(finding: Finding, path: Path) -> WrittenObject:
    return write_fractional(finding, planted_probabilities(finding), path)


WRITERS: dict[str, Callable[[Finding, Path], WrittenObject]] = {
    "binary": write_binary,
    "labelmap": write_labelmap,
    "fractional": _fractional,
}
NOT_COMMON = (
    *("SOPClassUID", "SOPInstanceUID", "InstanceNumber", "SegmentationType", "SegmentSequence", "SegmentsOverlap"),
    *("PerFrameFunctionalGroupsSequence", "DimensionIndexSequence", "DimensionOrganizationType", "NumberOfFrames"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelData", "PixelPaddingValue", "MaximumFractionalValue"),
    "SegmentationFractionalType",
)


@pytest.fixture(params=WRITERS)
def write(request: pytest.FixtureRequest) -> Callable[[Finding, Path], WrittenObject]:
    return WRITERS[request.param]


def _rest(dataset: Dataset) -> Dataset:
    for keyword in NOT_COMMON:
        if keyword in dataset:
            delattr(dataset, keyword)
    return dataset


def test_all_types_say_the_same_of_all_but_their_pixels(tmp_path: Path) -> None:
    finding = planted_finding(tmp_path / "ct")
    binary, labelmap, fractional = (
        pydicom.dcmread(write(finding, tmp_path / "seg.dcm").path) for write in WRITERS.values()
    )
    assert labelmap.SegmentSequence[-1].SegmentLabel == "Background"
    assert list(labelmap.SegmentSequence[:-1]) == list(binary.SegmentSequence) == list(fractional.SegmentSequence)
    numbers = [(one.SOPInstanceUID, one.InstanceNumber) for one in (binary, labelmap, fractional)]
    assert len(set(numbers)) == len({number for _, number in numbers}) == 3
    assert _rest(binary) == _rest(labelmap) == _rest(fractional)


def test_it_names_the_model_as_processing_equipment(
    write: Callable[[Finding, Path], WrittenObject], tmp_path: Path
) -> None:
    finding = planted_finding(tmp_path / "ct")
    dataset = pydicom.dcmread(write(finding, tmp_path / "seg.dcm").path)
    (item,) = (one for one in dataset.ContributingEquipmentSequence if "DeviceUID" in one)
    (purpose,) = item.PurposeOfReferenceCodeSequence
    assert (purpose.CodeValue, purpose.CodingSchemeDesignator) == ("109102", "DCM")
    assert (item.Manufacturer, item.ManufacturerModelName, item.SoftwareVersions) == (
        "Limner",
        "Planted network",
        "2.1.0",
    )
    assert item.DeviceUID == device_uid(finding.algorithm)
    other = replace(finding.algorithm, weights_digest="f" * 64)
    assert item.DeviceUID != device_uid(other)


def test_the_same_finding_gives_the_same_bytes(write: Callable[[Finding, Path], WrittenObject], tmp_path: Path) -> None:
    finding = planted_finding(tmp_path / "ct")
    again = replace(finding, series=read_series(sorted((tmp_path / "ct").iterdir(), reverse=True)))
    first, second = write(finding, tmp_path / "1.dcm"), write(again, tmp_path / "2.dcm")
    assert first.path.read_bytes() == second.path.read_bytes()
    other = write(replace(finding, identity="other"), tmp_path / "3.dcm")
    assert other.sop_instance_uid != first.sop_instance_uid


def test_a_name_in_japanese_is_kept(write: Callable[[Finding, Path], WrittenObject], tmp_path: Path) -> None:
    dataset = pydicom.dcmread(write(planted_finding(tmp_path / "ct", JAPANESE), tmp_path / "seg.dcm").path)
    assert (str(dataset.PatientName), list(dataset.SpecificCharacterSet)) == (
        JAPANESE.patient_name,
        JAPANESE.character_set,
    )


def test_what_the_source_lacks_is_empty(write: Callable[[Finding, Path], WrittenObject], tmp_path: Path) -> None:
    finding = planted_finding(tmp_path / "ct", edit=WITHOUT_TYPE_2)
    dataset = pydicom.dcmread(write(finding, tmp_path / "seg.dcm").path)
    assert [dataset[keyword].value or "" for keyword in ("PatientName", "PatientID", "AccessionNumber")] == ["", "", ""]
    assert dataset.ContentCreatorName == ""


def test_what_a_segment_is_tracked_as_may_need_other_characters_than_the_sources(
    write: Callable[[Finding, Path], WrittenObject], tmp_path: Path
) -> None:
    segments = [replace(LIVER, tracking_id="Würfel 肝", tracking_uid="2.25.7"), *SEGMENTS[1:]]
    dataset = pydicom.dcmread(write(planted_finding(tmp_path / "ct", segments=segments), tmp_path / "seg.dcm").path)
    (liver,) = (one for one in dataset.SegmentSequence if one.SegmentNumber == 1)
    assert (liver.TrackingID, liver.TrackingUID) == ("Würfel 肝", "2.25.7")


def test_source_and_segmentation_have_their_places_in_common(
    write: Callable[[Finding, Path], WrittenObject], tmp_path: Path
) -> None:
    dataset = pydicom.dcmread(write(planted_finding(tmp_path / "ct"), tmp_path / "seg.dcm").path)
    said = {
        source.SpatialLocationsPreserved
        for groups in dataset.PerFrameFunctionalGroupsSequence
        for source in groups.DerivationImageSequence[0].SourceImageSequence
    }
    assert said == {"YES"}
    assert (dataset.Rows, dataset.Columns) == (PHANTOM.rows, PHANTOM.columns)
    assert np.prod(dataset.pixel_array.shape[-2:]) == PHANTOM.rows * PHANTOM.columns


def test_a_labelmap_is_compressed_as_it_is_asked_to_be(tmp_path: Path) -> None:
    finding = planted_finding(tmp_path / "ct")
    packed = pydicom.dcmread(write_labelmap(finding, tmp_path / "1.dcm").path)
    plain = write_labelmap(finding, tmp_path / "2.dcm", transfer_syntax_uid=ExplicitVRLittleEndian)
    assert packed.file_meta.TransferSyntaxUID == RLELossless
    assert np.array_equal(packed.pixel_array, pydicom.dcmread(plain.path).pixel_array)
