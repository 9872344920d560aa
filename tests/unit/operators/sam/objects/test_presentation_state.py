"""Graphics of presentation states: units, types, texts, and what can't be followed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydicom.dataset import Dataset

from operators.errors import PromptRefused
from operators.sam.objects.placing import PlacedPrompt, place_object
from operators.sam.objects.prompt_object import Graphic, Kind, Shape
from operators.sam.objects.reading import read_prompts
from operators.series_volume import SeriesVolume, read_series
from tests.phantom import Phantom
from tests.placements import placements
from tests.prompt_objects import Floats, presentation_state, rectangle, stored

PHANTOM = Phantom(slices=3, rows=24, columns=40, row_spacing=0.8, column_spacing=0.5)
OUTLINE = ("POLYLINE", rectangle(6.25, 3.5, 21.0, 14.75))


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> SeriesVolume:
    return read_series(PHANTOM.write(tmp_path_factory.mktemp("ct")))


def _drawn(dataset: Dataset) -> Graphic:
    (wanted,) = read_prompts(stored(dataset)).objects
    (drawing,) = wanted.drawings
    assert isinstance(drawing, Graphic)
    return drawing


def _placed(dataset: Dataset, series: SeriesVolume) -> PlacedPrompt:
    (wanted,) = read_prompts(stored(dataset)).objects
    return place_object(wanted, series)


def _edges(prompt: PlacedPrompt) -> list[float]:
    box = prompt.key.prompt.box
    assert box is not None
    return [box.left, box.top, box.right, box.bottom]


def test_what_it_is_and_what_it_refers_to() -> None:
    found = read_prompts(stored(presentation_state(PHANTOM, 1, [OUTLINE], texts=["lesion in segment 7"])))
    assert found.kind is Kind.PRESENTATION_STATE
    assert found.sop_instance_uid == PHANTOM.uid("presentation")
    assert found.series_instance_uid == PHANTOM.uid("presentation series")
    assert found.study_instance_uid == PHANTOM.uid("study")
    assert found.referenced_series() == PHANTOM.uid("series", "")
    assert [image.sop_instance_uid for image in found.images] == [PHANTOM.uid("instance", 1, "")]
    assert [wanted.label for wanted in found.objects] == ["lesion in segment 7"]


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("flip", ["N", "Y"])
def test_fractions_of_the_displayed_area_are_turned_back(rotation: int, flip: str) -> None:
    """Held against an array that is cut, turned and flipped as the display does it."""
    image = np.arange(24 * 40).reshape(24, 40)
    top, left, bottom, right = 2, 5, 20, 37
    shown = np.rot90(image[top:bottom, left:right], -rotation // 90)
    shown = shown[:, ::-1] if flip == "Y" else shown
    row, column = 11, 9
    ((down, across),) = np.argwhere(shown == image[row, column])
    fraction = np.array([[(across + 0.5) / shown.shape[1], (down + 0.5) / shown.shape[0]]])
    dataset = presentation_state(PHANTOM, 0, [("POINT", fraction)], units="DISPLAY")
    dataset.ImageRotation, dataset.ImageHorizontalFlip = rotation, flip
    # the area's corners are pixels of the stored image, called by where they are displayed
    first, last = (np.argwhere(image == shown[place, place])[0] for place in (0, -1))
    (area,) = dataset.DisplayedAreaSelectionSequence
    area.DisplayedAreaTopLeftHandCorner = [int(first[1]) + 1, int(first[0]) + 1]
    area.DisplayedAreaBottomRightHandCorner = [int(last[1]) + 1, int(last[0]) + 1]
    np.testing.assert_allclose(_drawn(dataset).points, [[column + 0.5, row + 0.5]], atol=1e-4)


def test_an_ellipse_a_circle_and_a_curve_have_the_box_around_them(series: SeriesVolume) -> None:
    ellipse = np.array([[10.0, 12.0], [30.0, 12.0], [20.0, 7.0], [20.0, 17.0]])
    assert _edges(_placed(presentation_state(PHANTOM, 1, [("ELLIPSE", ellipse)]), series)) == pytest.approx(
        [10, 7, 30, 17], abs=0.05
    )
    circle = np.array([[20.0, 12.0], [20.0, 17.0]])
    assert _edges(_placed(presentation_state(PHANTOM, 1, [("CIRCLE", circle)]), series)) == pytest.approx(
        [15, 7, 25, 17], abs=0.05
    )
    angles = np.linspace(0, 2 * np.pi, 9)
    curve = np.stack([20 + 6 * np.cos(angles + 0.2), 12 + 6 * np.sin(angles + 0.2)], axis=1)
    curve[-1] = curve[0]
    found = _placed(presentation_state(PHANTOM, 1, [("INTERPOLATED", curve)]), series)
    assert _edges(found) == pytest.approx([14, 6, 26, 18], abs=0.1)  # the polygon itself reaches to 14.4 only


def test_a_line_is_a_diameter_in_millimetres(series: SeriesVolume) -> None:
    line = ("POLYLINE", np.array([[10.0, 12.0], [26.0, 12.0]]))  # 8 mm
    assert _edges(_placed(presentation_state(PHANTOM, 1, [line]), series)) == pytest.approx([10, 7, 26, 17], abs=0.01)


def test_a_stroke_is_five_points_along_it(series: SeriesVolume) -> None:
    stroke = np.array([[5.0, 5.0], [15.0, 5.0], [25.0, 5.0]])
    prompt = _placed(presentation_state(PHANTOM, 1, [("POLYLINE", stroke)]), series).key.prompt
    assert prompt.box is None
    assert [point.x for point in prompt.points] == pytest.approx([7, 11, 15, 19, 23])
    assert [point.y for point in prompt.points] == pytest.approx([5] * 5)


def test_each_graphic_is_wanted_by_itself_and_a_group_together() -> None:
    graphics = [OUTLINE, ("POINT", np.array([[1.0, 1.0]])), ("POINT", np.array([[2.0, 2.0]]))]
    dataset = presentation_state(PHANTOM, 1, graphics, texts=["one", "other"])
    found = read_prompts(stored(dataset))
    assert [wanted.number for wanted in found.objects] == [1, 2, 3]
    assert [wanted.label for wanted in found.objects] == ["", "", ""]  # nobody knows which text is whose
    (annotation,) = dataset.GraphicAnnotationSequence
    for position in (0, 2):
        annotation.GraphicObjectSequence[position].GraphicGroupID = 4
    annotation.TextObjectSequence[1].GraphicGroupID = 4
    found = read_prompts(stored(dataset))
    assert [len(wanted.drawings) for wanted in found.objects] == [2, 1]
    assert [wanted.label for wanted in found.objects] == ["other", ""]


def test_a_filled_polyline_is_closed() -> None:
    dataset = presentation_state(PHANTOM, 1, [("POLYLINE", OUTLINE[1][:-1])])
    assert _drawn(dataset).shape is Shape.STROKE
    dataset.GraphicAnnotationSequence[0].GraphicObjectSequence[0].GraphicFilled = "Y"
    assert _drawn(dataset).shape is Shape.OUTLINE


def test_an_annotation_without_image_is_for_the_only_one() -> None:
    dataset = presentation_state(PHANTOM, 1, [OUTLINE])
    del dataset.GraphicAnnotationSequence[0].ReferencedImageSequence
    image = _drawn(dataset).image
    assert image is not None
    assert image.sop_instance_uid == PHANTOM.uid("instance", 1, "")


def _graphic(dataset: Dataset) -> Dataset:
    graphic: Dataset = dataset.GraphicAnnotationSequence[0].GraphicObjectSequence[0]
    return graphic


def _no_images(dataset: Dataset) -> None:
    del dataset.GraphicAnnotationSequence[0].ReferencedImageSequence
    del dataset.ReferencedSeriesSequence


def _compound_only(dataset: Dataset) -> None:
    compound = Dataset()
    compound.CompoundGraphicInstanceID, compound.CompoundGraphicType = 1, "RECTANGLE"
    (annotation,) = dataset.GraphicAnnotationSequence
    del annotation.GraphicObjectSequence
    annotation.CompoundGraphicSequence = [compound]


REFUSED = {
    "matrix": (lambda dataset: setattr(_graphic(dataset), "GraphicAnnotationUnits", "MATRIX"), "units-unsupported"),
    "no units": (lambda dataset: delattr(_graphic(dataset), "GraphicAnnotationUnits"), "units-unsupported"),
    "unknown type": (lambda dataset: setattr(_graphic(dataset), "GraphicType", "SPIRAL"), "graphic-unsupported"),
    "odd": (lambda dataset: setattr(_graphic(dataset), "GraphicData", [1.0, 2.0, 3.0]), "unreadable"),
    "no number": (lambda dataset: setattr(_graphic(dataset), "GraphicData", [1.0, np.nan]), "prompt-not-finite"),
    "far": (lambda dataset: setattr(_graphic(dataset), "GraphicData", [1.0, 1e30]), "prompt-outside"),
    "empty": (lambda dataset: setattr(_graphic(dataset), "GraphicData", None), "prompt-empty"),
    "one place": (lambda dataset: setattr(_graphic(dataset), "GraphicData", [1.0, 2.0] * 4), "prompt-empty"),
    "many": (lambda dataset: setattr(_graphic(dataset), "GraphicData", [1.0, 2.0] * 200_000), "prompt-too-long"),
    "ellipse of three": (lambda dataset: setattr(_graphic(dataset), "GraphicType", "ELLIPSE"), "unreadable"),
    "no images": (_no_images, "prompt-references-nothing"),
    "compound": (_compound_only, "graphic-unsupported"),
    "no annotation": (lambda dataset: delattr(dataset, "GraphicAnnotationSequence"), "prompt-empty"),
    "a text as sequence": (lambda dataset: dataset.add_new(0x00700001, "LO", "garbage"), "prompt-empty"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cant_be_followed_is_refused_with_its_code(name: str) -> None:
    edit, code = REFUSED[name]
    dataset = presentation_state(PHANTOM, 1, [OUTLINE])
    edit(dataset)
    with pytest.raises(PromptRefused) as refusal:
        read_prompts(dataset)
    assert refusal.value.code == code


def test_what_cant_be_followed_is_left_out_beside_what_can(series: SeriesVolume) -> None:
    far: Floats = np.array([[900.0, 900.0], [950.0, 900.0], [950.0, 950.0], [900.0, 900.0]])
    dataset = presentation_state(PHANTOM, 1, [OUTLINE, OUTLINE, ("POLYLINE", far * 0.02)])
    graphics = dataset.GraphicAnnotationSequence[0].GraphicObjectSequence
    graphics[0].GraphicType = "SPIRAL"
    graphics[2].GraphicData = far.flatten().tolist()
    found = read_prompts(dataset)
    assert [(one.number, one.code) for one in found.left_out] == [(1, "graphic-unsupported")]
    here, beyond = found.objects
    assert (here.number, beyond.number) == (2, 3)
    assert place_object(here, series).slices
    with pytest.raises(PromptRefused) as refusal:
        place_object(beyond, series)
    assert refusal.value.code == "prompt-outside"


def _annotated_thrice() -> Dataset:
    """Three annotations of one graphic each."""
    dataset = presentation_state(PHANTOM, 1, [OUTLINE])
    for _ in range(2):
        dataset.GraphicAnnotationSequence.extend(presentation_state(PHANTOM, 1, [OUTLINE]).GraphicAnnotationSequence)
    return dataset


def _second_image(dataset: Dataset) -> Dataset:
    image: Dataset = dataset.GraphicAnnotationSequence[1].ReferencedImageSequence[0]
    return image


def _second_graphic(dataset: Dataset) -> Dataset:
    graphic: Dataset = dataset.GraphicAnnotationSequence[1].GraphicObjectSequence[0]
    return graphic


BESIDE_OTHERS = {
    "an unknown image": (
        lambda dataset: setattr(_second_image(dataset), "ReferencedSOPInstanceUID", "2.25.9"),
        "prompt-outside",
    ),
    "no image": (lambda dataset: delattr(_second_image(dataset), "ReferencedSOPInstanceUID"), "prompt-outside"),
    "an unknown frame": (lambda dataset: setattr(_second_image(dataset), "ReferencedFrameNumber", 4), "prompt-outside"),
    "a word for a frame": (lambda dataset: _second_image(dataset).add_new(0x00081160, "LO", "a"), "unreadable"),
    "words": (lambda dataset: _second_graphic(dataset).add_new(0x00700022, "LO", ["a", "b"]), "unreadable"),
    "nothing": (lambda dataset: delattr(_second_graphic(dataset), "GraphicData"), "prompt-empty"),
    "beside the image": (
        lambda dataset: setattr(
            _second_graphic(dataset), "GraphicData", [100.0, 2.0, 110.0, 2.0, 110.0, 9.0, 100.0, 2.0]
        ),
        "prompt-outside",
    ),
    "units": (lambda dataset: setattr(_second_graphic(dataset), "GraphicAnnotationUnits", "MM"), "units-unsupported"),
}


@pytest.mark.parametrize("name", BESIDE_OTHERS)
def test_what_is_wrong_with_one_annotation_leaves_the_others_alone(name: str, series: SeriesVolume) -> None:
    edit, code = BESIDE_OTHERS[name]
    dataset = _annotated_thrice()
    edit(dataset)
    found = read_prompts(dataset)
    assert found.referenced_series() == PHANTOM.uid("series", "")
    placement = placements(found, series)
    assert [prompt.wanted.number for prompt in placement.prompts] == [1, 3]
    assert [(one.number, one.code) for one in placement.left_out] == [(2, code)]


def test_an_image_of_another_series_is_refused(series: SeriesVolume) -> None:
    other = replace(PHANTOM, series="other")
    with pytest.raises(PromptRefused) as refusal:
        place_object(read_prompts(presentation_state(other, 1, [OUTLINE])).objects[0], series)
    assert refusal.value.code == "prompt-outside"


def test_several_series_are_refused() -> None:
    dataset = presentation_state(PHANTOM, 1, [OUTLINE])
    other = presentation_state(replace(PHANTOM, series="other"), 1, [OUTLINE])
    dataset.GraphicAnnotationSequence.extend(other.GraphicAnnotationSequence)
    dataset.ReferencedSeriesSequence.extend(other.ReferencedSeriesSequence)
    with pytest.raises(PromptRefused) as refusal:
        read_prompts(dataset).referenced_series()
    assert refusal.value.code == "prompt-references-several-series"


def test_another_object_is_refused() -> None:
    for dataset in (PHANTOM.dataset(0), Dataset()):
        with pytest.raises(PromptRefused) as refusal:
            read_prompts(dataset)
        assert refusal.value.code == "prompt-object-unsupported"
