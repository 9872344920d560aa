"""One structure drawn slice by slice, with a way back, and prompts placed on slices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from app.web.drawing import MOST_STEPS, Drawing, Found
from app.web.placement import MOST_CORNERS, placed_prompt
from operators.errors import PromptRefused
from operators.sam.prompts import Box, Point, SlicePrompt
from operators.sam.showing import shown_series
from operators.series_volume import SeriesVolume, read_series
from operators.source_identity import with_same_elements
from tests.multi_frame import write_enhanced
from tests.phantom import Phantom
from tests.sam_fixture import (
    MEMORY,
    SIDE,
    BrightBesideRemembered,
    BrightInBox,
    bright_predictor,
    remembering_predictor,
)
from tests.web_fixture import BALL, ball_mask, write_ball

MIDDLE = 5
BOX = SlicePrompt(Box(20, 12, 45, 37))


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> SeriesVolume:
    return read_series(write_ball(tmp_path_factory.mktemp("ball")))


@pytest.fixture
def drawing(series: SeriesVolume, tmp_path: Path) -> Drawing:
    shown, _ = shown_series(series, None)
    return Drawing(series, shown, bright_predictor(BrightInBox(), tmp_path))


def ask(drawing: Drawing, index: int = MIDDLE, prompt: SlicePrompt = BOX, **flags: bool) -> Found:
    return drawing.prompt(index, prompt, **{"refine": False, "several": False, **flags})


def whole(drawing: Drawing) -> dict[int, bytes]:
    return dict(drawing.mask().slices)


def go_on(drawing: Drawing, slices: tuple[int | None, int | None] | None = None, stop_after: int = 99) -> Found:
    looks = iter(range(99))
    return drawing.propagate(slices, lambda done, most: None, lambda: next(looks) >= stop_after)


def test_it_knows_what_was_shown_for_what_is_drawn(drawing: Drawing) -> None:
    points = SlicePrompt(points=(Point(32, 24),))
    assert drawing.kinds() == ()
    ask(drawing)
    go_on(drawing)
    assert drawing.kinds() == ("box",)
    ask(drawing, prompt=points)  # the slices beside it still come of the box
    assert drawing.kinds() == ("box", "points")
    drawing.clear()
    ask(drawing, prompt=points)
    assert drawing.kinds() == ("points",)
    ask(drawing, MIDDLE + 1)
    ask(drawing, MIDDLE + 1, SlicePrompt(points=(Point(32, 24),)), refine=True)
    drawing.choose(0)
    assert drawing.kinds() == ("box", "points", "mask")
    drawing.undo()
    drawing.undo()
    assert drawing.kinds() == ("box", "points")
    drawing.undo()
    assert drawing.kinds() == ("points",)


def test_each_step_can_be_undone(drawing: Drawing) -> None:
    states = [whole(drawing)]
    for act in (
        lambda: ask(drawing),
        lambda: ask(drawing, prompt=SlicePrompt(Box(25, 12, 45, 37)), refine=True),
        lambda: ask(drawing, several=True),
        lambda: drawing.choose(2),
        lambda: go_on(drawing),
        lambda: drawing.clear(),
    ):
        act()
        states.append(whole(drawing))
    assert len(states[5]) > 5
    assert states[6] == {}
    for before, after in zip(states[-2::-1], states[::-1], strict=False):
        undone = drawing.undo()
        assert whole(drawing) == before
        changed = {index for index in {*before, *after} if before.get(index) != after.get(index)}
        assert changed <= set(undone.slices)
    with pytest.raises(PromptRefused) as caught:
        drawing.undo()
    assert caught.value.code == "nothing-to-undo"


def test_steps_are_bounded(drawing: Drawing) -> None:
    for _ in range(MOST_STEPS + 5):
        drawing.clear()
    assert drawing.undo().facts["steps"] == MOST_STEPS - 1


def test_3d_leaves_prompted_slices_alone_and_a_range_is_kept(drawing: Drawing) -> None:
    ask(drawing, 7, SlicePrompt(Box(20, 12, 30, 37)))
    by_hand = whole(drawing)[7]
    ask(drawing)
    found = go_on(drawing, (4, 8))
    assert found.facts["slices"] == [4, 6, 8]
    assert whole(drawing)[7] == by_hand
    assert set(whole(drawing)) == {4, 5, 6, 7, 8}


@pytest.mark.parametrize(("components", "leak"), [("all", 8), ("largest", 0)])
def test_3d_drops_what_lies_apart_where_the_variant_does_and_prompted_slices_keep_their_masks(
    components: str, leak: int, tmp_path: Path
) -> None:
    rod = np.zeros((9, SIDE, SIDE), np.uint8)
    rod[2:7, 10:20, 10:20] = 220
    rod[4, 10:14, 21:23] = rod[5, 13:18, 21:23] = 220  # beside it, within reach of what is remembered
    series = read_series(Phantom(slices=9, rows=SIDE, columns=SIDE).write(tmp_path / "ct"))
    predictor = remembering_predictor(
        BrightBesideRemembered(), tmp_path / "cache", memory={**MEMORY, "components": components}
    )
    shown: Any = rod
    drawing = Drawing(series, shown, predictor)
    ask(drawing, 5, SlicePrompt(Box(21, 12, 23, 18)))  # by hand: what lies beside it alone
    by_hand = whole(drawing)[5]
    ask(drawing, 3, SlicePrompt(Box(8, 8, 20, 22)))
    go_on(drawing)
    found = drawing.labels().array
    assert np.count_nonzero(found[4, :, 21:]) == leak
    assert [np.count_nonzero(found[index, :, :20]) for index in (2, 3, 4, 5, 6)] == [100, 100, 100, 0, 100]
    assert whole(drawing)[5] == by_hand


def test_cancelled_3d_leaves_everything_as_it_was(drawing: Drawing) -> None:
    ask(drawing)
    before = whole(drawing)
    found = go_on(drawing, stop_after=3)
    assert found.facts == {"cancelled": True, "steps": 1}
    assert whole(drawing) == before


@pytest.mark.parametrize(
    ("code", "act"),
    [
        ("nothing-to-refine", lambda one: ask(one, refine=True)),
        ("nothing-to-choose", lambda one: one.choose(0)),
        ("nothing-to-propagate", go_on),
        ("nothing-to-accept", lambda one: one.digest()),
        ("slice-unknown", lambda one: one.mask(BALL.slices)),
        ("choice-unknown", lambda one: (ask(one), one.choose(1))),
    ],
)
def test_what_can_not_be_done_yet_is_refused(drawing: Drawing, code: str, act: Any) -> None:
    with pytest.raises(PromptRefused) as caught:
        act(drawing)
    assert caught.value.code == code


def test_the_digest_is_of_the_structure_alone(drawing: Drawing) -> None:
    ask(drawing)
    first = drawing.digest()
    ask(drawing, prompt=SlicePrompt(Box(20, 12, 30, 37)))
    assert drawing.digest() != first
    drawing.undo()
    assert drawing.digest() == first


def test_the_labels_lie_where_the_structure_was_drawn(drawing: Drawing) -> None:
    ask(drawing)
    labels = drawing.labels()
    assert labels.geometry_equal(drawing.series.volume)
    assert labels.array.sum() == drawing.mask().facts["voxels"]
    drawn = labels.array[MIDDLE] == 1
    assert (drawn & ball_mask(MIDDLE)).sum() > 0.9 * drawn.sum()


# --- where prompts lie ---


def request(**more: Any) -> dict[str, Any]:
    nothing: dict[str, Any] = {"box": None, "outline": None, "points": [], "refine": False, "sop_instance_uid": None}
    return {"coordinates": "pixel", "slice": MIDDLE, **nothing, **more}


def in_patient(series: SeriesVolume, **more: Any) -> dict[str, Any]:
    uid = series.volume.frame_of_reference_uid
    return request(coordinates="patient", frame_of_reference_uid=uid, **more)


def position(series: SeriesVolume, index: float, row: float, column: float) -> list[float]:
    place: list[float] = (series.volume.affine @ [index, row, column, 1])[:3].tolist()
    return place


def test_the_patient_and_the_pixels_are_one_place(series: SeriesVolume) -> None:
    points = [{"position": position(series, 3.2, 10, 20), "foreground": False}]
    box = [position(series, 3, 30.5, 40.5), position(series, 3, 4.5, 9.5)]
    index, prompt = placed_prompt(in_patient(series, points=points, box=box), series)
    assert index == 3
    (point,) = prompt.points
    assert (point.x, point.y) == pytest.approx((20.5, 10.5))
    assert not point.is_foreground
    assert prompt.box is not None
    edges = (prompt.box.left, prompt.box.top, prompt.box.right, prompt.box.bottom)
    assert edges == pytest.approx((10, 5, 41, 31))


def test_an_outline_is_the_box_around_it_and_an_instance_names_its_slice(series: SeriesVolume) -> None:
    uid = str(series.datasets[2].SOPInstanceUID)
    asked = request(slice=None, sop_instance_uid=uid, outline=[[3, 4], [9, 5], [6, 11]], points=[])
    assert placed_prompt(asked, series) == (2, SlicePrompt(Box(3, 4, 9, 11)))
    points = [{"x": 1.5, "y": 2.5, "foreground": True}]
    assert placed_prompt(request(points=points), series)[1] == SlicePrompt(points=(Point(1.5, 2.5),))


def test_only_a_refinement_may_show_nothing(series: SeriesVolume) -> None:
    assert placed_prompt(request(refine=True), series) == (MIDDLE, SlicePrompt())
    assert refused(request(), series) == "prompt-empty"


def refused(asked: dict[str, Any], series: SeriesVolume) -> str:
    with pytest.raises(PromptRefused) as caught:
        placed_prompt(asked, series)
    return caught.value.code


@pytest.mark.parametrize(
    ("code", "more"),
    [
        ("prompt-empty", {"outline": []}),
        ("prompt-empty", {"outline": [[1, 1], [2, 2]]}),
        ("prompt-empty", {"box": {"left": 5, "top": 5, "right": 5, "bottom": 9}}),
        ("prompt-too-long", {"points": [{"x": 1, "y": 1, "foreground": True}] * 1000}),
        ("prompt-too-long", {"outline": [[1, 1]] * (MOST_CORNERS + 1)}),
        ("prompt-outside", {"points": [{"x": 64.1, "y": 1, "foreground": True}]}),
        ("prompt-outside", {"box": {"left": 70, "top": 5, "right": 75, "bottom": 9}}),
        ("prompt-outside", {"box": {"left": 1, "top": 5, "right": 1e300, "bottom": 9}}),
        ("prompt-outside", {"outline": [[1e9, 1], [1, 1], [1, 5]]}),
        ("prompt-not-finite", {"points": [{"x": float("nan"), "y": 1, "foreground": True}]}),
        ("prompt-not-finite", {"outline": [[1, 1], [float("inf"), 2], [3, 3]]}),
        ("slice-unknown", {"slice": BALL.slices, "points": []}),
        ("slice-unknown", {"slice": -1}),
        ("slice-unknown", {"slice": None, "sop_instance_uid": "1.2.3"}),
    ],
)
def test_bad_prompts_are_refused(series: SeriesVolume, code: str, more: dict[str, Any]) -> None:
    assert refused(request(**more), series) == code


def test_bad_prompts_in_the_patient_are_refused(series: SeriesVolume) -> None:
    here = {"position": position(series, 3, 10, 20), "foreground": True}
    above = {"position": position(series, 4, 10, 20), "foreground": True}
    far = {"position": [900, 900, 900], "foreground": True}
    assert refused(in_patient(series), series) == "prompt-empty"
    assert refused(in_patient(series, refine=True), series) == "prompt-empty"
    assert refused(in_patient(series, points=[here, above]), series) == "prompt-across-slices"
    assert refused(in_patient(series, points=[far]), series) == "prompt-outside"
    other = {**in_patient(series, points=[here]), "frame_of_reference_uid": "1.2.3"}
    assert refused(other, series) == "frame-of-reference-differs"


# --- what is shown ---


@pytest.mark.parametrize(
    ("asked", "ends"),
    [
        (None, (-160, 240)),
        ({"name": "lung"}, (-1350, 150)),
        ({"centre": 10, "width": 20}, (0, 20)),
        ({"lower": 0, "upper": 100}, None),
    ],
)
def test_windows(series: SeriesVolume, asked: dict[str, Any] | None, ends: tuple[float, float] | None) -> None:
    if ends is None:  # all values above 0 are one
        with pytest.raises(Exception, match="shows nothing"):
            shown_series(series, asked)
        return
    shown, window = shown_series(series, asked)
    assert window.ends == ends
    assert len(shown) == BALL.slices
    assert shown[0].dtype == np.uint8


def test_a_frame_of_a_multi_frame_instance_is_named_by_its_number(tmp_path: Path) -> None:
    frames = read_series(write_enhanced(Phantom(), tmp_path, shuffled=True))
    uid = str(frames.datasets[0].SOPInstanceUID)
    points = [{"x": 1.5, "y": 2.5, "foreground": True}]

    def asked(number: int | None, instance: str = uid) -> dict[str, Any]:
        return request(slice=None, sop_instance_uid=instance, frame_number=number, points=points)

    for index, number in enumerate(frames.frame_numbers):
        assert placed_prompt(asked(number), frames)[0] == index
    assert refused(asked(None), frames) == "slice-unknown"
    assert refused(asked(7), frames) == "slice-unknown"
    assert refused(asked(1, "1.2.3"), frames) == "slice-unknown"


def test_the_only_frame_that_was_kept_is_not_taken_for_another(tmp_path: Path) -> None:
    series = read_series(write_enhanced(Phantom(), tmp_path))
    uid = str(series.datasets[3].SOPInstanceUID)
    others = [with_same_elements(header) for header in series.datasets]
    for index, header in enumerate(others):
        if index != 3:
            header["SOPInstanceUID"] = pydicom.DataElement(0x00080018, "UI", f"1.2.{index}")
    alone = replace(series, datasets=tuple(others))
    points = [{"x": 1.5, "y": 2.5, "foreground": True}]
    number = series.frame_numbers[3]
    assert number is not None
    assert number > 1
    asked = request(slice=None, sop_instance_uid=uid, frame_number=number, points=points)
    assert placed_prompt(asked, alone)[0] == 3
    assert refused({**asked, "frame_number": 1}, alone) == "slice-unknown"


def test_a_single_frame_instance_has_one_frame(series: SeriesVolume) -> None:
    uid = str(series.datasets[2].SOPInstanceUID)
    points = [{"x": 1.5, "y": 2.5, "foreground": True}]
    for number, found in ((None, 2), (1, 2)):
        asked = request(slice=None, sop_instance_uid=uid, frame_number=number, points=points)
        assert placed_prompt(asked, series)[0] == found
    asked = request(slice=None, sop_instance_uid=uid, frame_number=2, points=points)
    assert refused(asked, series) == "slice-unknown"
