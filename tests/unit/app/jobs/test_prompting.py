"""Which series prompt objects are for, and how many structures they may ask for."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from app.identifiers import UID
from app.jobs.entries import SeenSeries
from app.jobs.prompting import PromptBinding, bind_prompts
from app.settings_prompt import PromptSettings
from tests.ball_segmentation import ball_segmentation
from tests.phantom import Phantom
from tests.prompt_objects import in_patient, presentation_state, rectangle, region_group, report, structure_set
from tests.web_fixture import BALL, write_ball

PHANTOM = Phantom(slices=3)
OUTLINE = rectangle(2, 1.5, 9, 7)
_IMAGES = SeenSeries(
    study_instance_uid=UID("1.2"),
    series_instance_uid=UID(PHANTOM.uid("series", "")),
    state="routed",
    revision=1,
    calling_ae_title="MODALITY",
    last_received_at=datetime(2026, 1, 1, tzinfo=UTC),
    quiet_seconds=60.0,
    study_quiet_seconds=60.0,
    header_digest="0" * 64,
)


def _bound(folder: Path, *datasets: Dataset, images: SeenSeries = _IMAGES, most_structures: int = 100) -> PromptBinding:
    files = []
    for number, dataset in enumerate(datasets):
        files.append(folder / f"{number}.dcm")
        dataset.save_as(files[-1], enforce_file_format=True)
    return bind_prompts(files, [images], most_structures=most_structures)


def _points(number: int) -> Dataset:
    return presentation_state(PHANTOM, 1, [("POINT", np.array([[3.0, 3.0 + place / 100]])) for place in range(number)])


def test_images_that_are_held_are_bound(tmp_path: Path) -> None:
    assert _bound(tmp_path, _points(1)).images == _IMAGES


def test_images_that_retention_removed_are_not_held_so_that_they_are_fetched(tmp_path: Path) -> None:
    binding = _bound(tmp_path, _points(1), images=replace(_IMAGES, is_kept=False))
    assert binding.images is None
    assert binding.problem is not None
    assert (binding.problem.code, binding.wanted) == ("images-not-held", _IMAGES.series_instance_uid)


def test_an_object_that_can_not_be_read_does_not_refuse_the_others_of_its_series(tmp_path: Path) -> None:
    empty = _points(1)
    del empty.GraphicAnnotationSequence
    assert _bound(tmp_path, empty, _points(1)).images == _IMAGES
    (tmp_path / "none.dcm").write_bytes(b"no DICOM")
    assert bind_prompts([tmp_path / "none.dcm", tmp_path / "1.dcm"], [_IMAGES], most_structures=1).images == _IMAGES
    problem = bind_prompts([tmp_path / "none.dcm", tmp_path / "0.dcm"], [_IMAGES], most_structures=1).problem
    assert problem is not None
    assert problem.code == "unreadable"  # the first one's
    nameless = _points(1)
    del nameless.ReferencedSeriesSequence
    assert _bound(tmp_path, nameless, _points(1)).images == _IMAGES


def test_an_object_that_the_toolkit_stumbles_over_is_unreadable_whatever_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(_: Dataset) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr("app.jobs.prompting.structure_count", stumble)
    problem = _bound(tmp_path, _points(1)).problem
    assert problem is not None
    assert problem.code == "unreadable"


def test_more_structures_than_a_series_of_prompts_may_ask_for_are_refused(tmp_path: Path) -> None:
    assert _bound(tmp_path, _points(100)).problem is None
    binding = _bound(tmp_path, _points(100), _points(1))  # all objects of a series are one job
    assert binding.images is None
    assert binding.problem is not None
    assert binding.problem.code == "prompt-too-many-structures"
    for said in ("101", "100", "most_structures", "Graphic Group ID"):
        assert said in str(binding.problem)


def test_images_that_are_not_held_are_not_fetched_for_too_many(tmp_path: Path) -> None:
    binding = _bound(tmp_path, _points(3), images=replace(_IMAGES, is_kept=False), most_structures=2)
    assert binding.problem is not None
    assert (binding.problem.code, binding.wanted) == ("prompt-too-many-structures", "")


def test_structures_are_counted_as_they_are_followed(tmp_path: Path) -> None:
    grouped = _points(5)
    for graphic in grouped.GraphicAnnotationSequence[0].GraphicObjectSequence:
        graphic.GraphicGroupID = 1
    contours = [("CLOSED_PLANAR", in_patient(PHANTOM, index, OUTLINE[:-1])) for index in range(3)]
    regions = structure_set(PHANTOM, [("one", contours), ("other", contours)])
    groups = [region_group(PHANTOM, 1, "POLYLINE", OUTLINE, uid=f"{number}") for number in range(2)]
    for dataset, number in ((grouped, 1), (regions, 2), (report(PHANTOM, groups), 2)):
        assert _bound(tmp_path, dataset, most_structures=number).problem is None
        if number > 1:
            problem = _bound(tmp_path, dataset, most_structures=number - 1).problem
            assert problem is not None
            assert problem.code == "prompt-too-many-structures"


def test_segments_are_counted_without_their_pixels(tmp_path: Path) -> None:
    drawn = ball_segmentation(write_ball(tmp_path / "ball"), 5, ["MANUAL"] * 3, tmp_path)
    images = replace(_IMAGES, series_instance_uid=UID(BALL.uid("series", "")))
    assert _bound(tmp_path, drawn, images=images, most_structures=3).problem is None
    problem = _bound(tmp_path, drawn, images=images, most_structures=2).problem
    assert problem is not None
    assert problem.code == "prompt-too-many-structures"


def test_how_many_may_be_asked_for_does_not_decide_the_result() -> None:
    assert PromptSettings(most_structures=7).asked == PromptSettings().asked
    assert PromptSettings().most_structures >= 117, "a whole segmentation by TotalSegmentator may prompt"
    with pytest.raises(ValueError, match="most_structures"):
        PromptSettings(most_structures=0)
