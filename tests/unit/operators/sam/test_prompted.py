"""What DICOM objects show on a ball, segmented by networks that find what is bright in a box."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from operators.errors import PromptRefused
from operators.results.finding import PromptingObject
from operators.sam.fitting import PromptForm
from operators.sam.frames import on_image
from operators.sam.laying import Overlap
from operators.sam.objects.placing import place_object
from operators.sam.objects.prompt_object import Kind, ObjectPrompt
from operators.sam.objects.reading import read_prompts, referenced_series
from operators.sam.prompted import (
    PromptedLabels,
    PromptReach,
    prompted_labels,
    read_prompt_files,
    segment_of,
)
from operators.sam.showing import shown_series
from operators.segments import Code
from operators.series_volume import read_series
from tests.ball_segmentation import ball_segmentation
from tests.prompt_objects import (
    FINDING,
    in_patient,
    measurement_groups,
    presentation_state,
    rectangle,
    region_group,
    report,
    structure_set,
)
from tests.sam_fixture import BrightInBox, bright_predictor, contract
from tests.web_fixture import BALL, ball_mask, overlap, write_ball

MIDDLE = 5
PLACE = BALL.slices - 1 - MIDDLE
"""Where the volume has it: its slices run the other way."""
OUTLINE = rectangle(20, 12, 45, 37)


def _found(
    folder: Path,
    *datasets: Dataset,
    reach: PromptReach = "slice",
    form: PromptForm = "box",
    networks: BrightInBox | None = None,
    changes: Mapping[str, Any] | None = None,
) -> PromptedLabels:
    folder.mkdir(exist_ok=True)
    files = []
    for number, dataset in enumerate(datasets):
        files.append(folder / f"{number}.dcm")
        dataset.save_as(files[-1], enforce_file_format=True)
    series = read_series(write_ball(folder / "ball"))
    shown, _ = shown_series(series, None)
    told: list[tuple[int, int]] = []
    found = prompted_labels(
        read_prompt_files(files),
        series,
        bright_predictor(networks or BrightInBox(), folder / "cache", **(changes or {})),
        shown,
        reach=reach,
        form=form,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told[-1][0] == told[-1][1]
    return found


def test_only_the_slice_that_was_drawn_on(tmp_path: Path) -> None:
    state = presentation_state(BALL, MIDDLE, [("POLYLINE", OUTLINE)], texts=["ball"])
    found = _found(tmp_path, state)
    assert set(np.flatnonzero(found.labels.array.any(axis=(1, 2)))) == {PLACE}
    assert overlap(found.labels.array[PLACE] == 1, ball_mask(PLACE)) > 0.85
    (segment,) = found.segments
    assert (segment.label, segment.type.value) == ("ball", "85756007")
    assert found.prompted_by == (PromptingObject(state.SeriesInstanceUID, state.SOPInstanceUID, state.SOPClassUID),)


def test_on_through_the_stack_from_the_largest_drawing(tmp_path: Path) -> None:
    small = in_patient(BALL, MIDDLE - 1, rectangle(26, 18, 38, 30)[:-1])
    contours = [("CLOSED_PLANAR", small), ("CLOSED_PLANAR", in_patient(BALL, MIDDLE, OUTLINE[:-1]))]
    found = _found(tmp_path, structure_set(BALL, [("Ball", contours)]), reach="volume")
    slices = set(np.flatnonzero(found.labels.array.any(axis=(1, 2))))
    assert slices == {index for index in range(12) if ball_mask(index).sum() > 40}


def test_what_was_outlined_is_shown_itself_where_that_is_wanted(tmp_path: Path) -> None:
    state = presentation_state(BALL, MIDDLE, [("POLYLINE", OUTLINE)])
    networks = BrightInBox()
    _found(tmp_path, state, form="mask", networks=networks)
    (request,) = networks.requests
    assert request["has_mask_input"].tolist() == [1]
    assert request["point_labels"].tolist() == [[2, 3]]  # and the box around it
    placed = place_object(read_prompts(state).objects[0], read_series(write_ball(tmp_path / "again")))
    mask = placed.slices[0].mask
    assert mask is not None
    shown = on_image(request["mask_input"][0], placed.grid.rows, placed.grid.columns, contract())[0] > 0
    assert overlap(shown, mask.full(placed.grid.rows, placed.grid.columns)) > 0.95


def test_where_nothing_was_outlined_there_is_no_mask_to_show(tmp_path: Path) -> None:
    networks = BrightInBox()
    _found(tmp_path, presentation_state(BALL, MIDDLE, [("POINT", OUTLINE[:1] + 5)]), form="mask", networks=networks)
    assert networks.requests[0]["has_mask_input"].tolist() == [0]


def test_several_objects_are_numbered_on_and_what_lies_elsewhere_is_left_out(tmp_path: Path) -> None:
    beyond = in_patient(BALL, 40, OUTLINE[:-1])
    regions = [
        ("here", [("CLOSED_PLANAR", in_patient(BALL, MIDDLE, OUTLINE[:-1]))]),
        ("there", [("CLOSED_PLANAR", beyond)]),
    ]
    groups = [region_group(BALL, MIDDLE + 1, "POLYLINE", OUTLINE)]
    found = _found(tmp_path, structure_set(BALL, regions, number=3), report(BALL, groups))
    assert [segment.label_value for segment in found.segments] == [1, 2]
    assert set(np.unique(found.labels.array)) == {0, 1, 2}
    assert [(one.number, one.code) for one in found.left_out] == [(4, "prompt-outside")]
    finding = next(one for one in found.segments if one.type.value == FINDING.value)
    assert finding.tracking_uid == BALL.uid("tracked")
    assert finding.category.value == "49755003"


INNER = rectangle(28, 20, 37, 29)
"""Within the ball."""


@pytest.mark.parametrize("reach", ["slice", "volume"])
@pytest.mark.parametrize("is_lesion_first", [True, False])
def test_a_lesion_in_an_organ_stays_visible_and_the_organ_says_what_it_gave(
    tmp_path: Path, is_lesion_first: bool, reach: PromptReach
) -> None:
    lesion = ("lesion", [("CLOSED_PLANAR", in_patient(BALL, MIDDLE, INNER[:-1]))])
    organ = ("organ", [("CLOSED_PLANAR", in_patient(BALL, MIDDLE, OUTLINE[:-1]))])
    regions = [lesion, organ] if is_lesion_first else [organ, lesion]
    found = _found(tmp_path, structure_set(BALL, regions), reach=reach)
    # values, segments and names keep the order of the object
    assert [segment.label for segment in found.segments] == [name for name, _ in regions]
    assert [segment.label_value for segment in found.segments] == [1, 2]
    number = {name: value for value, (name, _) in enumerate(regions, start=1)}
    alone = _found(tmp_path / "alone", structure_set(BALL, [lesion]), reach=reach).labels.array > 0
    np.testing.assert_array_equal(found.labels.array == number["lesion"], alone)
    (overlap_,) = found.overlaps
    kept = int((found.labels.array == number["organ"]).sum())
    assert overlap_ == Overlap(number["organ"], kept + int(alone.sum()), {number["lesion"]: int(alone.sum())})
    (note,) = found.notes
    assert (note.code, note.policy) == ("prompts-overlap", "warn")
    assert f"{int(alone.sum())} went to segment {number['lesion']}" in note.message
    assert f"segment {number['organ']} keeps {kept} of the {overlap_.found} voxels" in note.message
    assert not {"organ", "lesion"} & set(note.message.split()), "a person's words belong in no note"


def test_what_two_objects_show_twice_is_the_later_ones_and_said_so(tmp_path: Path) -> None:
    state = presentation_state(BALL, MIDDLE, [("POLYLINE", OUTLINE), ("POLYLINE", OUTLINE)])
    found = _found(tmp_path, state)
    assert set(np.unique(found.labels.array)) == {0, 2}
    (note,) = found.notes
    assert "keeps 0" in note.message


def test_what_was_left_out_is_noted(tmp_path: Path) -> None:
    state = presentation_state(BALL, MIDDLE, [("POINT", np.array([[30.0, 24.0]])), ("POLYLINE", OUTLINE)])
    found = _found(tmp_path, state, changes=BOXES_ALONE)
    (note,) = found.notes
    assert (note.code, note.policy) == ("prompt-kind-unsupported", "warn")
    assert note.message == f"structure 1 left out of what prompted it: {found.left_out[0].reason}"


@pytest.mark.parametrize(
    ("types", "is_automatic"),
    [
        (["AUTOMATIC"], True),
        (["SEMIAUTOMATIC"], False),
        (["MANUAL"], False),
        (["AUTOMATIC", "AUTOMATIC"], True),
        (["AUTOMATIC", "SEMIAUTOMATIC"], False),
        (["AUTOMATIC", ""], True),  # what has no voxel was not followed, whoever drew it
    ],
)
def test_what_algorithms_alone_drew_makes_an_automatic_result(
    tmp_path: Path, types: list[str], is_automatic: bool
) -> None:
    drawn = ball_segmentation(write_ball(tmp_path / "images"), PLACE, types, tmp_path)
    assert _found(tmp_path, drawn).is_automatic == is_automatic


def test_beside_what_a_person_drew_the_result_is_not_automatic(tmp_path: Path) -> None:
    drawn = ball_segmentation(write_ball(tmp_path / "images"), PLACE, ["AUTOMATIC"], tmp_path)
    state = presentation_state(BALL, MIDDLE, [("POLYLINE", OUTLINE)])
    assert not _found(tmp_path, state).is_automatic
    assert not _found(tmp_path, drawn, state).is_automatic


BOXES_ALONE = {"prompts": {"kinds": ["box"]}}
"""As LiteMedSAM's contract."""
ELLIPSE = np.array([[20, 24.5], [45, 24.5], [32.5, 12], [32.5, 37]])
TIP = np.array([[30.0, 24.0]])


def test_a_prompt_of_a_kind_that_the_model_does_not_take_does_not_refuse_its_neighbours(tmp_path: Path) -> None:
    state = presentation_state(BALL, MIDDLE, [("POINT", TIP), ("ELLIPSE", ELLIPSE)])
    networks = BrightInBox()
    found = _found(tmp_path, state, networks=networks, changes=BOXES_ALONE)
    assert [(one.number, one.code) for one in found.left_out] == [(1, "prompt-kind-unsupported")]
    assert [segment.label_value for segment in found.segments] == [1]
    assert overlap(found.labels.array[PLACE] == 1, ball_mask(PLACE)) > 0.85
    assert [request["point_labels"].tolist() for request in networks.requests] == [[[2, 3]]]


def test_points_beside_a_box_are_left_out_where_the_model_takes_boxes_alone(tmp_path: Path) -> None:
    group = region_group(BALL, MIDDLE, "POLYLINE", OUTLINE)
    point = region_group(BALL, MIDDLE, "POINT", TIP)
    both = report(BALL, [group])
    drawn, pointed = measurement_groups(both)[0], measurement_groups(report(BALL, [point]))[0]
    drawn.ContentSequence.extend(item for item in pointed.ContentSequence if item.ValueType == "SCOORD")
    networks = BrightInBox()
    found = _found(tmp_path, both, networks=networks, changes=BOXES_ALONE)
    assert [(one.number, one.code) for one in found.left_out] == [(1, "prompt-kind-unsupported")]
    assert "beside" in found.left_out[0].reason
    assert [request["point_labels"].tolist() for request in networks.requests] == [[[2, 3]]]
    assert len(found.segments) == 1
    # a model that takes both is shown both, and nothing is left out
    again = BrightInBox()
    assert _found(tmp_path, both, networks=again).left_out == ()
    assert sorted(again.requests[0]["point_labels"][0].tolist()) == [1, 2, 3]


def test_slices_that_can_not_be_followed_are_left_out_of_their_structure(tmp_path: Path) -> None:
    contours = [
        ("POINT", in_patient(BALL, MIDDLE + 1, TIP)),
        ("POINT", in_patient(BALL, MIDDLE + 2, TIP)),
        ("CLOSED_PLANAR", in_patient(BALL, MIDDLE, OUTLINE[:-1])),
    ]
    found = _found(tmp_path, structure_set(BALL, [("Ball", contours)]), changes=BOXES_ALONE)
    assert set(np.flatnonzero(found.labels.array.any(axis=(1, 2)))) == {PLACE}
    assert [(one.number, one.code) for one in found.left_out] == [(7, "prompt-kind-unsupported")]


def test_where_nothing_can_be_followed_the_first_reason_is_the_refusals(tmp_path: Path) -> None:
    points = presentation_state(BALL, MIDDLE, [("POINT", TIP), ("POINT", TIP + 1)])
    with pytest.raises(PromptRefused) as caught:
        _found(tmp_path, points, changes=BOXES_ALONE)
    assert caught.value.code == "prompt-kind-unsupported"
    outlined = presentation_state(BALL, MIDDLE, [("POLYLINE", OUTLINE)])
    with pytest.raises(PromptRefused) as caught:  # it is a mask that was asked for, and not the box around it
        _found(tmp_path, outlined, form="mask", changes=BOXES_ALONE)
    assert caught.value.code == "prompt-kind-unsupported"
    beyond = [("there", [("CLOSED_PLANAR", in_patient(BALL, 40, OUTLINE[:-1]))])]
    with pytest.raises(PromptRefused) as caught:
        _found(tmp_path, structure_set(BALL, beyond), changes=BOXES_ALONE)
    assert caught.value.code == "prompt-outside"


def test_an_object_that_lies_elsewhere_does_not_refuse_the_others_of_its_series(tmp_path: Path) -> None:
    beyond = structure_set(BALL, [("there", [("CLOSED_PLANAR", in_patient(BALL, 40, OUTLINE[:-1]))])])
    state = presentation_state(BALL, MIDDLE, [("POLYLINE", OUTLINE)])
    found = _found(tmp_path, beyond, state)
    assert [(one.number, one.code) for one in found.left_out] == [(7, "prompt-outside")]
    assert len(found.segments) == 1
    # the result says what it was made of
    assert [one.sop_instance_uid for one in found.prompted_by] == [state.SOPInstanceUID]


def test_an_object_that_can_not_be_read_does_not_refuse_the_others_of_its_series(tmp_path: Path) -> None:
    state = presentation_state(BALL, MIDDLE, [("POLYLINE", OUTLINE)])
    empty = presentation_state(BALL, MIDDLE, [("POLYLINE", OUTLINE)])
    del empty.GraphicAnnotationSequence  # a window alone, as viewers store it beside what was drawn
    empty.SOPInstanceUID = "2.25.9"
    del empty.file_meta.MediaStorageSOPInstanceUID
    found = _found(tmp_path, empty, state)
    assert len(found.segments) == 1
    assert [(one.number, one.code) for one in found.left_out] == [(0, "prompt-empty")]
    assert [one.sop_instance_uid for one in found.prompted_by] == [state.SOPInstanceUID]
    (note,) = found.notes
    assert note.message.startswith("left out of what prompted it: ")
    with pytest.raises(PromptRefused) as caught:
        _found(tmp_path / "alone", empty)
    assert caught.value.code == "prompt-empty"


def test_an_object_that_says_no_series_is_not_followed_where_others_lead_to_one(tmp_path: Path) -> None:
    nameless = structure_set(BALL, [("Ball", [("CLOSED_PLANAR", in_patient(BALL, MIDDLE, INNER[:-1]))])])
    del nameless.ReferencedFrameOfReferenceSequence
    found = _found(tmp_path, nameless, presentation_state(BALL, MIDDLE, [("POLYLINE", OUTLINE)]))
    assert [(one.number, one.code) for one in found.left_out] == [(0, "prompt-references-nothing")]
    assert len(found.segments) == 1
    with pytest.raises(PromptRefused) as caught:
        _found(tmp_path / "alone", nameless)
    assert caught.value.code == "prompt-references-nothing"


def test_what_of_a_structure_lies_beyond_the_series_is_told(tmp_path: Path) -> None:
    here, beyond = in_patient(BALL, MIDDLE, OUTLINE[:-1]), in_patient(BALL, 40, OUTLINE[:-1])
    contours = [("CLOSED_PLANAR", here), ("CLOSED_PLANAR", beyond)]
    found = _found(tmp_path, structure_set(BALL, [("Ball", contours)]))
    assert set(np.flatnonzero(found.labels.array.any(axis=(1, 2)))) == {PLACE}
    assert [(one.number, one.code) for one in found.left_out] == [(7, "prompt-outside")]
    assert "rest of it was followed" in found.left_out[0].reason


def test_what_a_prompt_says_of_itself_is_made_fit_for_a_segment() -> None:
    wanted = ObjectPrompt(
        3, (), label="  a\n\\lesion " + "x" * 90, code=Code("1", "SCT", ""), tracking_uid="no UID", tracking_id="t"
    )
    segment = segment_of(wanted, Kind.REPORT, 7)
    assert segment.label == ("a lesion " + "x" * 90)[:64]
    assert (segment.label_value, segment.type.value, segment.category.value) == (7, "85756007", "85756007")
    assert (segment.tracking_id, segment.tracking_uid) == ("t", "")
    assert segment_of(ObjectPrompt(1, ()), Kind.PRESENTATION_STATE, 2).label == "Prompt 2"


def test_a_file_that_is_no_dicom(tmp_path: Path) -> None:
    path = tmp_path / "prompt.dcm"
    path.write_bytes(b"no DICOM")
    with pytest.raises(PromptRefused) as caught:
        read_prompt_files([path])
    assert caught.value.code == "unreadable"


def test_which_series_a_segmentation_is_for_without_its_pixels() -> None:
    dataset, series, instance = Dataset(), Dataset(), Dataset()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.66.4"
    instance.ReferencedSOPInstanceUID, series.SeriesInstanceUID = "2.25.1", "2.25.2"
    series.ReferencedInstanceSequence, dataset.ReferencedSeriesSequence = [instance], [series]
    assert referenced_series(dataset) == "2.25.2"
    del dataset.ReferencedSeriesSequence
    with pytest.raises(PromptRefused) as caught:
        referenced_series(dataset)
    assert caught.value.code == "prompt-references-nothing"
