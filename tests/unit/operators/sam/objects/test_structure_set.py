"""RT Structure Sets: several contours a slice, keyholes, points, and what can't be followed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydicom.dataset import Dataset

from operators.errors import PromptRefused
from operators.sam.objects.placing import PlacedPrompt, place_object
from operators.sam.objects.prompt_object import Kind
from operators.sam.objects.reading import read_prompts
from operators.series_volume import SeriesVolume, read_series
from tests.phantom import Phantom
from tests.placements import placements
from tests.prompt_objects import Floats, in_patient, rectangle, stored, structure_set

PHANTOM = Phantom(slices=4, rows=24, columns=40, row_spacing=0.8, column_spacing=0.5)
OUTER, INNER = rectangle(4, 4, 20, 20)[:-1], rectangle(8, 8, 12, 16)[:-1]
KEYHOLE = np.concatenate([OUTER, OUTER[:1], INNER[::-1], INNER[-1:]])


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> SeriesVolume:
    return read_series(PHANTOM.write(tmp_path_factory.mktemp("ct")))


def _contours(*drawn: tuple[str, int, Floats]) -> list[tuple[str, Floats]]:
    return [(kind, in_patient(PHANTOM, index, pixels)) for kind, index, pixels in drawn]


def _placed(series: SeriesVolume, *drawn: tuple[str, int, Floats]) -> PlacedPrompt:
    (wanted,) = read_prompts(stored(structure_set(PHANTOM, [("organ", _contours(*drawn))]))).objects
    return place_object(wanted, series)


def test_name_number_type_and_references() -> None:
    drawn = _contours(("CLOSED_PLANAR", 1, OUTER))
    found = read_prompts(stored(structure_set(PHANTOM, [("Liver", drawn), ("Spleen", drawn)])))
    assert found.kind is Kind.STRUCTURE_SET
    assert found.frame_of_reference_uid == PHANTOM.uid("frame of reference")
    assert found.referenced_series() == PHANTOM.uid("series", "")
    assert len(found.images) == 4
    assert [(one.number, one.label, one.interpreted_type) for one in found.objects] == [
        (7, "Liver", "ORGAN"),
        (8, "Spleen", "ORGAN"),
    ]


@pytest.mark.parametrize(
    "drawn",
    [
        [("CLOSED_PLANAR", 1, KEYHOLE)],
        [("CLOSEDPLANAR_XOR", 1, OUTER), ("CLOSEDPLANAR_XOR", 1, INNER)],
    ],
    ids=["keyhole", "exclusive or"],
)
def test_a_hole_is_left_out_of_the_mask(series: SeriesVolume, drawn: list[tuple[str, int, Floats]]) -> None:
    (placed,) = _placed(series, *drawn).slices
    assert placed.mask is not None
    expected = np.zeros((24, 40), np.bool_)
    expected[4:20, 4:20] = True
    expected[8:16, 8:12] = False
    assert np.array_equal(placed.mask.full(24, 40), expected)


def test_contours_of_one_slice_are_one_box(series: SeriesVolume) -> None:
    prompt = _placed(
        series,
        ("CLOSED_PLANAR", 1, rectangle(2, 3, 6, 9)[:-1]),
        ("CLOSED_PLANAR", 1, rectangle(30, 5, 36, 22)[:-1]),
        ("CLOSED_PLANAR", 2, rectangle(2, 3, 6, 9)[:-1]),
    )
    assert [one.slice_index for one in prompt.slices] == [1, 2]
    box = prompt.key.prompt.box
    assert box is not None
    assert (box.left, box.top, box.right, box.bottom) == pytest.approx((2, 3, 36, 22), abs=0.01)
    assert len(prompt.key.outlines) == 2
    assert prompt.key.slice_index == 2  # of four; the phantom's second slice is the volume's third


def test_what_reaches_beyond_the_image_is_cut_and_beyond_the_series_counted(series: SeriesVolume) -> None:
    prompt = _placed(
        series,
        ("CLOSED_PLANAR", 1, rectangle(30, -5, 50, 9)[:-1]),
        ("CLOSED_PLANAR", 9, OUTER),
    )
    assert prompt.outside == 1
    (placed,) = prompt.slices
    box = placed.prompt.box
    assert box is not None
    assert (box.left, box.top, box.right, box.bottom) == pytest.approx((30, 0, 40, 9), abs=0.01)


def test_open_contours_are_lines_and_strokes(series: SeriesVolume) -> None:
    line = _placed(series, ("OPEN_PLANAR", 1, np.array([[10.0, 12.0], [26.0, 12.0]]))).key.prompt.box
    assert line is not None
    assert (line.left, line.top, line.right, line.bottom) == pytest.approx((10, 7, 26, 17), abs=0.01)
    stroke = _placed(series, ("OPEN_PLANAR", 1, np.array([[5.0, 5.0], [15.0, 5.0], [25.0, 9.0]]))).key.prompt
    assert len(stroke.points) == 5


def test_a_contour_between_two_slices_is_on_the_nearer(series: SeriesVolume) -> None:
    places = in_patient(PHANTOM, 1, OUTER) + 0.4 * PHANTOM.axes[0]
    dataset = structure_set(PHANTOM, [("organ", [("CLOSED_PLANAR", places)])])
    (wanted,) = read_prompts(stored(dataset)).objects
    prompt = place_object(wanted, series)
    assert [one.slice_index for one in prompt.slices] == [2]


def _without_references(dataset: Dataset) -> None:
    del dataset.ReferencedFrameOfReferenceSequence


def test_without_references_the_series_is_not_known(series: SeriesVolume) -> None:
    dataset = structure_set(PHANTOM, [("organ", _contours(("CLOSED_PLANAR", 1, OUTER)))])
    _without_references(dataset)
    found = read_prompts(stored(dataset))
    with pytest.raises(PromptRefused) as refusal:
        found.referenced_series()
    assert refusal.value.code == "prompt-references-nothing"
    assert place_object(found.objects[0], series).slices  # who knows the series can place them all the same


OTHER = replace(PHANTOM, series="other")
"""In the same frame of reference."""


def _also_of(dataset: Dataset, other: Phantom) -> None:
    """Have the structure set refer to another series too, in its frame of reference."""
    (added,) = structure_set(other, []).ReferencedFrameOfReferenceSequence
    dataset.ReferencedFrameOfReferenceSequence.append(added)


def _drawn_over(dataset: Dataset, region: int, phantom: Phantom) -> None:
    """Have each contour of a region name the image that it was drawn over (PS3.3 C.8.8.6)."""
    for contour in dataset.ROIContourSequence[region].ContourSequence:
        image = Dataset()
        image.ReferencedSOPClassUID = phantom.dataset(1).SOPClassUID
        image.ReferencedSOPInstanceUID = phantom.dataset(1).SOPInstanceUID
        contour.ContourImageSequence = [image]


def test_of_several_series_the_one_that_was_drawn_over_is_meant() -> None:
    drawn = _contours(("CLOSED_PLANAR", 1, OUTER))
    dataset = structure_set(PHANTOM, [("one", drawn), ("other", drawn)])
    _also_of(dataset, OTHER)
    with pytest.raises(PromptRefused) as refusal:
        read_prompts(dataset).referenced_series()
    assert refusal.value.code == "prompt-references-several-series"
    assert "for 2" in str(refusal.value)
    _drawn_over(dataset, 0, PHANTOM)
    assert read_prompts(stored(dataset)).referenced_series() == PHANTOM.uid("series", "")
    _drawn_over(dataset, 1, OTHER)  # structures on several
    with pytest.raises(PromptRefused) as refusal:
        read_prompts(dataset).referenced_series()
    assert refusal.value.code == "prompt-references-several-series"
    _drawn_over(dataset, 0, OTHER)
    assert read_prompts(dataset).referenced_series() == PHANTOM.uid("series", "other")


def test_of_several_series_the_one_in_the_frame_of_reference_of_the_contours_is_meant(series: SeriesVolume) -> None:
    drawn = _contours(("CLOSED_PLANAR", 1, OUTER))
    dataset = structure_set(PHANTOM, [("one", drawn), ("other", drawn)])
    _also_of(dataset, replace(OTHER, seed=1))
    found = read_prompts(dataset)
    assert found.referenced_series() == PHANTOM.uid("series", "")
    assert len(placements(found, series).prompts) == 2
    dataset.StructureSetROISequence[1].ReferencedFrameOfReferenceUID = replace(OTHER, seed=1).uid("frame of reference")
    with pytest.raises(PromptRefused) as refusal:  # one in each
        read_prompts(dataset).referenced_series()
    assert refusal.value.code == "prompt-references-several-series"


def _contour(dataset: Dataset) -> Dataset:
    contour: Dataset = dataset.ROIContourSequence[0].ContourSequence[0]
    return contour


REFUSED = {
    "odd": (lambda dataset: setattr(_contour(dataset), "ContourData", ["1", "2", "3", "4"]), "unreadable"),
    "two corners": (lambda dataset: setattr(_contour(dataset), "ContourData", ["1", "2", "3"] * 5), "prompt-empty"),
    "empty": (lambda dataset: setattr(_contour(dataset), "ContourData", None), "prompt-empty"),
    "unknown": (lambda dataset: setattr(_contour(dataset), "ContourGeometricType", "CUBE"), "graphic-unsupported"),
    "no contours": (lambda dataset: delattr(dataset, "ROIContourSequence"), "prompt-empty"),
    "no regions": (lambda dataset: delattr(dataset, "StructureSetROISequence"), "prompt-empty"),
    "no number": (lambda dataset: delattr(dataset.StructureSetROISequence[0], "ROINumber"), "unreadable"),
    "words": (
        lambda dataset: dataset.ROIContourSequence[0].ContourSequence[0].add_new(0x30060050, "LO", "a"),
        "unreadable",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cant_be_followed_is_refused_with_its_code(name: str) -> None:
    edit, code = REFUSED[name]
    dataset = structure_set(PHANTOM, [("organ", _contours(("CLOSED_PLANAR", 1, OUTER)))])
    edit(dataset)
    with pytest.raises(PromptRefused) as refusal:
        read_prompts(dataset)
    assert refusal.value.code == code


def test_a_region_without_contours_is_left_out_beside_others() -> None:
    found = read_prompts(structure_set(PHANTOM, [("empty", []), ("organ", _contours(("CLOSED_PLANAR", 1, OUTER)))]))
    assert [wanted.number for wanted in found.objects] == [8]
    assert [(one.number, one.code) for one in found.left_out] == [(7, "prompt-empty")]


def _second(dataset: Dataset) -> Dataset:
    contour: Dataset = dataset.ROIContourSequence[1].ContourSequence[0]
    return contour


def _set_region(dataset: Dataset, keyword: str, value: object) -> None:
    setattr(dataset.StructureSetROISequence[1], keyword, value)


BESIDE_OTHERS = {
    "odd": (lambda dataset: setattr(_second(dataset), "ContourData", ["1", "2", "3", "4"]), 8, "unreadable"),
    "two corners": (lambda dataset: setattr(_second(dataset), "ContourData", ["1", "2", "3"] * 5), 8, "prompt-empty"),
    "empty": (lambda dataset: setattr(_second(dataset), "ContourData", None), 8, "prompt-empty"),
    "unknown": (lambda dataset: setattr(_second(dataset), "ContourGeometricType", "CUBE"), 8, "graphic-unsupported"),
    "words": (lambda dataset: _second(dataset).add_new(0x30060050, "LO", ["a", "b", "c"] * 3), 8, "unreadable"),
    "far": (lambda dataset: setattr(_second(dataset), "ContourData", ["1", "2", "9e7"] * 3), 8, "prompt-outside"),
    "beside the image": (
        lambda dataset: setattr(
            _second(dataset), "ContourData", ["900", "0", "31", "950", "0", "31", "950", "9", "31"]
        ),
        8,
        "prompt-outside",
    ),
    "elsewhere": (
        lambda dataset: _set_region(dataset, "ReferencedFrameOfReferenceUID", "2.25.9"),
        8,
        "frame-of-reference-differs",
    ),
    "nowhere": (
        lambda dataset: _set_region(dataset, "ReferencedFrameOfReferenceUID", ""),
        8,
        "frame-of-reference-differs",
    ),
    "no number": (lambda dataset: delattr(dataset.StructureSetROISequence[1], "ROINumber"), 0, "unreadable"),
    "a word for a number": (
        lambda dataset: dataset.StructureSetROISequence[1].add_new(0x30060022, "LO", "a"),
        0,
        "unreadable",
    ),
}


@pytest.mark.parametrize("name", BESIDE_OTHERS)
def test_what_is_wrong_with_one_region_leaves_the_others_alone(name: str, series: SeriesVolume) -> None:
    edit, number, code = BESIDE_OTHERS[name]
    drawn = _contours(("CLOSED_PLANAR", 1, OUTER))
    dataset = structure_set(PHANTOM, [("one", drawn), ("bad", drawn), ("other", drawn)])
    edit(dataset)
    placement = placements(read_prompts(dataset), series)
    assert [one.wanted.number for one in placement.prompts] == [7, 9]
    assert [(one.number, one.code) for one in placement.left_out] == [(number, code)]


@pytest.mark.parametrize("of", ["StructureSetROISequence", "ROIContourSequence"])
def test_regions_whose_number_is_not_theirs_alone_are_left_out(of: str, series: SeriesVolume) -> None:
    """Which contours are whose is not known: nothing is drawn under another region's name."""
    small, large = _contours(("CLOSED_PLANAR", 1, INNER)), _contours(("CLOSED_PLANAR", 1, OUTER))
    dataset = structure_set(PHANTOM, [("one", small), ("large", large), ("small", small)])
    numbers = {"StructureSetROISequence": "ROINumber", "ROIContourSequence": "ReferencedROINumber"}
    setattr(dataset[of].value[2], numbers[of], 8)
    placement = placements(read_prompts(dataset), series)
    assert [one.wanted.label for one in placement.prompts] == ["one"]
    assert [one.number for one in placement.left_out] == ([8, 8] if of == "StructureSetROISequence" else [8, 9])
    assert placement.left_out[0].code == "unreadable"


def test_where_every_region_is_wrong_the_first_reason_is_the_refusals() -> None:
    drawn = _contours(("CLOSED_PLANAR", 1, OUTER))
    dataset = structure_set(PHANTOM, [("one", drawn), ("other", [])])
    _contour(dataset).add_new(0x30060050, "LO", ["a", "b", "c"] * 3)
    with pytest.raises(PromptRefused) as refusal:
        read_prompts(dataset)
    assert refusal.value.code == "unreadable"


def test_another_frame_of_reference_is_refused(series: SeriesVolume) -> None:
    other = replace(PHANTOM, seed=1)
    found = read_prompts(structure_set(other, [("organ", _contours(("CLOSED_PLANAR", 1, OUTER)))]))
    with pytest.raises(PromptRefused) as refusal:
        place_object(found.objects[0], series)
    assert refusal.value.code == "frame-of-reference-differs"
