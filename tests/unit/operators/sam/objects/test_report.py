"""Structured reports, as the templates have them and as viewers deviate."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ComprehensiveSRStorage, MRImageStorage, SegmentationStorage

from operators.errors import PromptRefused
from operators.sam.objects.placing import place_object
from operators.sam.objects.prompt_object import Kind
from operators.sam.objects.reading import read_prompts
from operators.segments import Code
from operators.series_volume import SeriesVolume, read_series
from tests.phantom import Phantom
from tests.placements import placements
from tests.prompt_objects import (
    in_patient,
    line_report,
    measurement_groups,
    rectangle,
    region_group,
    report,
    stored,
)

PHANTOM = Phantom(slices=4, rows=24, columns=40, row_spacing=0.8, column_spacing=0.5)
OUTLINE = rectangle(6.25, 3.5, 21.0, 14.75)
LONG, SHORT = np.array([[10.0, 12.0], [26.0, 12.0]]), np.array([[17.0, 9.0], [17.0, 14.0]])  # 8 mm and 4 mm


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> SeriesVolume:
    return read_series(PHANTOM.write(tmp_path_factory.mktemp("ct")))


def _region(dataset: Dataset) -> Dataset:
    (found,) = [
        item for item in measurement_groups(dataset)[0].ContentSequence if item.ValueType in ("SCOORD", "SCOORD3D")
    ]
    region: Dataset = found
    return region


def _edges(dataset: Dataset, series: SeriesVolume) -> list[float]:
    (wanted,) = read_prompts(stored(dataset)).objects
    prompt = place_object(wanted, series)
    box = prompt.key.prompt.box
    assert box is not None
    return [box.left, box.top, box.right, box.bottom]


def test_finding_site_tracking_and_references() -> None:
    found = read_prompts(stored(report(PHANTOM, [region_group(PHANTOM, 2, "POLYLINE", OUTLINE)])))
    assert found.kind is Kind.REPORT
    assert found.referenced_series() == PHANTOM.uid("series", "")
    assert len(found.images) == 4
    (wanted,) = found.objects
    assert wanted.code == Code("4147007", "SCT", "Mass")
    assert wanted.site is not None
    assert wanted.site.meaning == "Liver"
    assert (wanted.label, wanted.tracking_id, wanted.tracking_uid) == ("Mass", "lesion 1", PHANTOM.uid("tracked"))


def test_in_the_patient_its_frame_of_reference_is_the_objects() -> None:
    region = region_group(PHANTOM, 2, "POLYGON", in_patient(PHANTOM, 2, OUTLINE))
    found = read_prompts(stored(report(PHANTOM, [region])))
    assert found.frame_of_reference_uid == PHANTOM.uid("frame of reference")
    assert found.referenced_series() == PHANTOM.uid("series", "")


def test_long_and_short_axis_are_one_lesion(series: SeriesVolume) -> None:
    dataset = line_report(PHANTOM, 2, [LONG, SHORT])
    (wanted,) = read_prompts(stored(dataset)).objects
    assert len(wanted.drawings) == 2
    assert _edges(dataset, series) == pytest.approx([10, 9, 26, 14.5], abs=0.01)  # 4 mm across: 12 ± 2.5; ends from 9
    assert _edges(line_report(PHANTOM, 2, [LONG]), series) == pytest.approx([10, 7, 26, 17], abs=0.01)


def test_a_slanted_line_has_a_square_too(series: SeriesVolume) -> None:
    line = np.array([[14.0, 6.0], [26.0, 16.0]])  # 6 mm by 8 mm: 10 mm
    assert _edges(line_report(PHANTOM, 2, [line]), series) == pytest.approx([10, 11 - 6.25, 30, 11 + 6.25], abs=0.01)


def test_an_image_region_is_closed_without_its_first_point_again(series: SeriesVolume) -> None:
    dataset = report(PHANTOM, [region_group(PHANTOM, 2, "POLYLINE", OUTLINE)])
    _region(dataset).GraphicData = OUTLINE[:-1].flatten().tolist()
    assert _edges(dataset, series) == pytest.approx([6.25, 3.5, 21.0, 14.75])


def test_a_lone_region_anywhere_is_named_by_what_is_measured(series: SeriesVolume) -> None:
    dataset = line_report(PHANTOM, 2, [LONG])
    (measured,) = [item for item in measurement_groups(dataset)[0].ContentSequence if item.ValueType == "NUM"]
    dataset.ContentSequence = [measured]
    (wanted,) = read_prompts(stored(dataset)).objects
    assert wanted.label == "Long Axis"
    assert _edges(dataset, series) == pytest.approx([10, 7, 26, 17], abs=0.01)


def test_the_image_is_found_by_reference_and_in_the_group(series: SeriesVolume) -> None:
    dataset = report(PHANTOM, [region_group(PHANTOM, 2, "POLYLINE", OUTLINE)])
    region = _region(dataset)
    image = region.ContentSequence[0]
    del region.ContentSequence
    group = measurement_groups(dataset)[0]
    group.ContentSequence.append(image)
    assert _edges(dataset, series) == pytest.approx([6.25, 3.5, 21.0, 14.75])
    group.ContentSequence.pop()
    dataset.ContentSequence.append(image)
    reference = Dataset()
    reference.RelationshipType = "SELECTED FROM"
    reference.ReferencedContentItemIdentifier = [1, len(dataset.ContentSequence)]
    region.ContentSequence = [reference]
    assert _edges(dataset, series) == pytest.approx([6.25, 3.5, 21.0, 14.75])


def test_a_circle_and_points(series: SeriesVolume) -> None:
    circle = np.array([[20.0, 12.0], [20.0, 17.0]])
    dataset = report(PHANTOM, [region_group(PHANTOM, 1, "CIRCLE", circle)])
    assert _edges(dataset, series) == pytest.approx([15, 7, 25, 17], abs=0.05)
    _region(dataset).GraphicType, _region(dataset).GraphicData = "MULTIPOINT", [1.0, 2.0, 3.0, 4.0]
    (wanted,) = read_prompts(stored(dataset)).objects
    prompt = place_object(wanted, series)
    assert [(point.x, point.y) for point in prompt.key.prompt.points] == [(1, 2), (3, 4)]


def _evidence(dataset: Dataset, sop_class_uid: str) -> None:
    """Add an object of a series of its own to the evidence."""
    series, instance = Dataset(), Dataset()
    instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID = sop_class_uid, "2.25.91"
    series.SeriesInstanceUID, series.ReferencedSOPSequence = "2.25.9", [instance]
    dataset.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence.append(series)


def test_evidence_that_is_no_image_is_no_series_to_draw_on() -> None:
    dataset = report(PHANTOM, [region_group(PHANTOM, 2, "POLYGON", in_patient(PHANTOM, 2, OUTLINE))])
    for other in (SegmentationStorage, ComprehensiveSRStorage):
        _evidence(dataset, other)
    assert read_prompts(stored(dataset)).referenced_series() == PHANTOM.uid("series", "")
    _evidence(dataset, MRImageStorage)  # nothing says which of the two
    with pytest.raises(PromptRefused) as refusal:
        read_prompts(dataset).referenced_series()
    assert refusal.value.code == "prompt-references-several-series"


def test_evidence_of_other_series_does_not_count_where_an_image_was_drawn_on() -> None:
    dataset = report(PHANTOM, [region_group(PHANTOM, 2, "POLYLINE", OUTLINE)])
    _evidence(dataset, MRImageStorage)
    assert read_prompts(stored(dataset)).referenced_series() == PHANTOM.uid("series", "")


def _deep(dataset: Dataset) -> None:
    item = Dataset()
    for _ in range(200):
        above = Dataset()
        above.ValueType, above.ContentSequence = "CONTAINER", [item]
        item = above
    dataset.ContentSequence.append(item)


def _segment_only(dataset: Dataset) -> None:
    region = _region(dataset)
    image = copy.deepcopy(region.ContentSequence[0])
    concept = image.ConceptNameCodeSequence[0]
    concept.CodeValue, concept.CodingSchemeDesignator = "121191", "DCM"
    group = measurement_groups(dataset)[0]
    group.ContentSequence = [item for item in group.ContentSequence if item.ValueType != "SCOORD"] + [image]


def _missing_item(dataset: Dataset) -> None:
    reference = Dataset()
    reference.ReferencedContentItemIdentifier = [1, 99]
    _region(dataset).ContentSequence = [reference]


REFUSED = {
    "no image": (lambda dataset: delattr(_region(dataset), "ContentSequence"), "prompt-references-nothing"),
    "a missing item": (_missing_item, "unreadable"),
    "odd": (lambda dataset: setattr(_region(dataset), "GraphicData", [1.0, 2.0, 3.0]), "unreadable"),
    "no number": (lambda dataset: setattr(_region(dataset), "GraphicData", [np.inf] * 4), "prompt-not-finite"),
    "no type": (lambda dataset: delattr(_region(dataset), "GraphicType"), "graphic-unsupported"),
    "deep": (_deep, "prompt-too-long"),
    "a segment": (_segment_only, "graphic-unsupported"),
    "nothing": (lambda dataset: delattr(dataset, "ContentSequence"), "prompt-empty"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cant_be_followed_is_refused_with_its_code(name: str) -> None:
    edit, code = REFUSED[name]
    dataset = report(PHANTOM, [region_group(PHANTOM, 2, "POLYLINE", OUTLINE)])
    edit(dataset)
    with pytest.raises(PromptRefused) as refusal:
        read_prompts(dataset)
    assert refusal.value.code == code


def _reference(dataset: Dataset) -> Dataset:
    """What the first group's region says of its image."""
    reference: Dataset = _region(dataset).ContentSequence[0].ReferencedSOPSequence[0]
    return reference


def _a_word_for_an_item(dataset: Dataset) -> None:
    reference = Dataset()
    reference.add_new(0x0040DB73, "LO", ["1", "a"])
    _region(dataset).ContentSequence = [reference]


BESIDE_OTHERS = {
    **{name: REFUSED[name] for name in ("no image", "a missing item", "odd", "no number", "no type", "a segment")},
    "a word for an item": (_a_word_for_an_item, "unreadable"),
    "a word for a frame": (lambda dataset: _reference(dataset).add_new(0x00081160, "LO", "a"), "unreadable"),
    "an unknown image": (
        lambda dataset: setattr(_reference(dataset), "ReferencedSOPInstanceUID", "2.25.9"),
        "prompt-outside",
    ),
    "words": (lambda dataset: _region(dataset).add_new(0x00700022, "LO", ["a", "b"]), "unreadable"),
    "beside the image": (lambda dataset: setattr(_region(dataset), "GraphicData", [90.0, 2.0] * 2 + [99.0, 9.0]), ""),
}


@pytest.mark.parametrize("name", BESIDE_OTHERS)
def test_what_is_wrong_with_one_group_leaves_the_others_alone(name: str, series: SeriesVolume) -> None:
    edit, code = BESIDE_OTHERS[name]
    dataset = report(PHANTOM, [region_group(PHANTOM, 2, "POLYLINE", OUTLINE, uid=f"{number}") for number in range(3)])
    edit(dataset)
    found = read_prompts(dataset)
    assert found.referenced_series() == PHANTOM.uid("series", "")
    placement = placements(found, series)
    assert [prompt.wanted.number for prompt in placement.prompts] == [2, 3]
    assert [(one.number, one.code) for one in placement.left_out] == [(1, code or "prompt-outside")]


def test_one_group_in_another_frame_of_reference_leaves_the_others_alone(series: SeriesVolume) -> None:
    points = in_patient(PHANTOM, 2, OUTLINE)
    dataset = report(PHANTOM, [region_group(PHANTOM, 2, "POLYGON", points, uid=f"{number}") for number in range(2)])
    _region(dataset).ReferencedFrameOfReferenceUID = "2.25.9"
    placement = placements(read_prompts(dataset), series)
    assert [prompt.wanted.number for prompt in placement.prompts] == [2]
    assert [(one.number, one.code) for one in placement.left_out] == [(1, "frame-of-reference-differs")]


def test_too_many_points_are_refused_when_placed(series: SeriesVolume) -> None:
    dataset = report(PHANTOM, [region_group(PHANTOM, 1, "POLYLINE", OUTLINE)])
    _region(dataset).GraphicType, _region(dataset).GraphicData = "MULTIPOINT", [3.0] * 2000
    with pytest.raises(PromptRefused) as refusal:
        place_object(read_prompts(dataset).objects[0], series)
    assert refusal.value.code == "prompt-too-long"


def test_another_frame_of_reference_is_refused(series: SeriesVolume) -> None:
    points = in_patient(PHANTOM, 2, OUTLINE)
    dataset = report(PHANTOM, [region_group(PHANTOM, 2, "POLYGON", points)])
    for uid in (PHANTOM.uid("elsewhere"), ""):
        _region(dataset).ReferencedFrameOfReferenceUID = uid
        with pytest.raises(PromptRefused) as refusal:
            place_object(read_prompts(dataset).objects[0], series)
        assert refusal.value.code == "frame-of-reference-differs"


def test_a_frame_that_the_image_has_not_is_refused(series: SeriesVolume) -> None:
    dataset = report(PHANTOM, [region_group(PHANTOM, 2, "POLYLINE", OUTLINE)])
    _region(dataset).ContentSequence[0].ReferencedSOPSequence[0].ReferencedFrameNumber = 3
    with pytest.raises(PromptRefused) as refusal:
        place_object(read_prompts(dataset).objects[0], series)
    assert refusal.value.code == "prompt-outside"


def test_an_outline_across_the_slices_is_refused(series: SeriesVolume, tmp_path: Path) -> None:
    points = in_patient(PHANTOM, 0, OUTLINE)
    points[:, 2] = np.linspace(30, 38, len(points))
    points[-1] = points[0]
    dataset = report(PHANTOM, [region_group(PHANTOM, 2, "POLYGON", in_patient(PHANTOM, 2, OUTLINE))])
    _region(dataset).GraphicData = points.flatten().tolist()
    with pytest.raises(PromptRefused) as refusal:
        place_object(read_prompts(dataset).objects[0], series)
    assert refusal.value.code == "graphic-unsupported"
