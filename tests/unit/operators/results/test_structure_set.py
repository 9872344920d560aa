"""Structure sets hold the finding's contours in the patient, say what they are, and are the same each time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from operators.errors import OperatorError
from operators.results import slices
from operators.results.finding import PromptingObject, device_uid
from operators.results.structure_set import write_structure_set
from operators.sam.objects.prompt_object import Graphic
from operators.sam.objects.rasters import filled
from operators.sam.objects.structure_set import structure_set_parts
from tests.phantom import OBLIQUE
from tests.pictured_phantom import PHANTOM, Pictured, pictured
from tests.segmented_phantom import ALGORITHM, LIVER, SEGMENTS, no_labels


def _written(one: Pictured, path: Path) -> pydicom.Dataset:
    return pydicom.dcmread(write_structure_set(one.finding, path).path)


def test_contours_are_where_the_phantoms_own_arithmetic_says(tmp_path: Path) -> None:
    phantom = replace(PHANTOM, orientation=OBLIQUE)
    dataset = _written(pictured(tmp_path / "ct", phantom), tmp_path / "rt.dcm")
    first = dataset.ROIContourSequence[0].ContourSequence[0]  # the voxel in the first slice's first corner
    last = phantom.slices - 1  # volumes run so that their axes are right-handed: here against the phantom's numbers
    assert first.ContourImageSequence[0].ReferencedSOPInstanceUID == phantom.uid("instance", last, "")
    _, down, right = phantom.axes
    corner = phantom.position(last) - (down + right) / 2
    expected = [corner, corner + right, corner + right + down, corner + down]
    assert np.abs(np.array(first.ContourData).reshape(-1, 3) - expected).max() < 1e-4


def test_areas_and_volumes_are_those_of_the_voxels(tmp_path: Path) -> None:
    one = pictured(tmp_path / "ct")
    dataset = _written(one, tmp_path / "rt.dcm")
    _, down, right = PHANTOM.axes
    for region, drawn, segment in zip(
        dataset.StructureSetROISequence, dataset.ROIContourSequence, SEGMENTS, strict=True
    ):
        area = 0.0
        for contour in drawn.get("ContourSequence", ()):
            points = np.array(contour.ContourData).reshape(-1, 3)
            x, y = (points @ axis / np.linalg.norm(axis) for axis in (right, down))
            area += float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2
        millilitres = area * PHANTOM.slice_spacing / 1000
        voxels = np.count_nonzero(one.finding.labels.array == segment.label_value)
        expected = voxels * 0.8 * 0.5 * 2.5 / 1000
        assert millilitres == pytest.approx(expected, rel=1e-3)
        assert float(region.ROIVolume) == pytest.approx(expected)


def test_our_own_reader_of_structure_sets_gets_the_label_map_back(tmp_path: Path) -> None:
    one = pictured(tmp_path / "ct")
    dataset = _written(one, tmp_path / "rt.dcm")
    to_index = np.linalg.inv(one.finding.labels.affine)
    for (number, part), segment in list(zip(structure_set_parts(dataset), SEGMENTS, strict=True))[:2]:
        back = np.zeros(one.finding.labels.spatial_shape, np.bool_)
        read = part()
        assert (number, read.label, read.code) == (read.number, segment.label, segment.type)
        for graphic in read.drawings:
            assert isinstance(graphic, Graphic)
            indices = np.c_[graphic.points, np.ones(len(graphic.points))] @ to_index.T
            plane = back[int(np.rint(indices[0, 0]))]
            plane |= filled(indices[:, [2, 1]] + 0.5, *plane.shape)
        assert np.array_equal(back, one.finding.labels.array == segment.label_value)


def test_every_segment_is_a_region_and_one_not_found_has_no_contours(tmp_path: Path) -> None:
    dataset = _written(pictured(tmp_path / "ct"), tmp_path / "rt.dcm")
    assert [str(one.ROIName) for one in dataset.StructureSetROISequence] == ["Liver", "Left kidney", "Spleen"]
    assert ["ContourSequence" in one for one in dataset.ROIContourSequence] == [True, True, False]
    nothing = _written(pictured(tmp_path / "empty", paint=no_labels), tmp_path / "nothing.dcm")
    assert not any("ContourSequence" in one for one in nothing.ROIContourSequence)
    assert [float(one.ROIVolume) for one in nothing.StructureSetROISequence] == [0, 0, 0]


def test_what_made_it_and_what_it_is(tmp_path: Path) -> None:
    one = pictured(tmp_path / "ct")
    guided = replace(one, finding=replace(one.finding, is_automatic=False))
    for each, said in ((one, "AUTOMATIC"), (guided, "SEMIAUTOMATIC")):
        dataset = _written(each, tmp_path / "rt.dcm")
        assert {region.ROIGenerationAlgorithm for region in dataset.StructureSetROISequence} == {said}
    region, observed = dataset.StructureSetROISequence[1], dataset.RTROIObservationsSequence[1]
    assert region.ROIGenerationDescription == "Planted network 2.1.0"
    assert observed.RTROIInterpretedType == "ORGAN"
    (code,) = observed.RTROIIdentificationCodeSequence
    assert (code.CodeValue, code.CodeMeaning) == ("64033007", "Kidney")
    assert code.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert list(dataset.ROIContourSequence[0].ROIDisplayColor) == [221, 130, 101]
    assert dataset.ApprovalStatus == "UNAPPROVED"
    model, library = dataset.ContributingEquipmentSequence
    assert (model.DeviceUID, library.ManufacturerModelName) == (device_uid(ALGORITHM), "highdicom")
    assert model.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    assert (dataset.Modality, dataset.SeriesNumber) == ("RTSTRUCT", 3003)
    assert dataset.SeriesDescription == "AI: organs: contours"


def test_a_morphological_abnormality_is_called_no_organ_and_no_target(tmp_path: Path) -> None:
    lesion = replace(LIVER, category=replace(LIVER.category, value="49755003"))
    one = pictured(tmp_path / "ct", segments=(lesion, *SEGMENTS[1:]))
    dataset = _written(one, tmp_path / "rt.dcm")
    assert dataset.RTROIObservationsSequence[0].RTROIInterpretedType == ""


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    one = pictured(tmp_path / "ct")
    first = write_structure_set(one.finding, tmp_path / "first.dcm")
    second = write_structure_set(one.finding, tmp_path / "second.dcm")
    assert first.digest == second.digest
    assert first.path.read_bytes() == second.path.read_bytes()


def test_a_contour_too_long_for_explicit_lengths_makes_it_implicit(tmp_path: Path) -> None:
    """PS3.3 C.8.8.6 warns that Contour Data may be longer than its length field in Explicit VR can say."""
    short = _written(pictured(tmp_path / "ct"), tmp_path / "short.dcm")
    assert short.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian

    def comb(shape: tuple[int, int, int]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        labels = np.zeros(shape, np.uint8)
        labels[1, :, ::2] = 1
        labels[1, 0] = 1
        return labels

    long = pictured(tmp_path / "wide", replace(PHANTOM, slices=3, rows=3, columns=2600), paint=comb)
    dataset = _written(long, tmp_path / "long.dcm")
    assert dataset.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    (contour,) = dataset.ROIContourSequence[0].ContourSequence
    assert len(contour.ContourData) == 3 * contour.NumberOfContourPoints > 3 * 5000


def test_it_refers_to_its_sources_and_to_what_prompted_it(tmp_path: Path) -> None:
    one = pictured(tmp_path / "ct")
    prompting = PromptingObject("1.2.3", "1.2.3.4")
    dataset = _written(replace(one, finding=replace(one.finding, prompted_by=[prompting])), tmp_path / "rt.dcm")
    own, others = dataset.ReferencedSeriesSequence
    assert len(own.ReferencedInstanceSequence) == 7
    assert others.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == "1.2.3.4"
    assert dataset.SourceInstanceSequence[-1].ReferencedSOPInstanceUID == "1.2.3.4"


def test_noise_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "MOST_CORNERS", 20)
    with pytest.raises(OperatorError) as caught:
        write_structure_set(pictured(tmp_path / "ct").finding, tmp_path / "rt.dcm")
    assert caught.value.code == "outlines-too-many"


def test_a_label_that_no_segment_has_is_refused(tmp_path: Path) -> None:
    one = pictured(tmp_path / "ct")
    with pytest.raises(OperatorError) as caught:
        write_structure_set(replace(one.finding, segments=SEGMENTS[1:]), tmp_path / "rt.dcm")
    assert caught.value.code == "label-undescribed"
