"""Everything that can be known without torch is checked before it is started."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.errors import ImportRefused
from app.exporters.planning import Wishes, plan_job
from tests.fixtures.nnunet.planned import KINDS, REGIONS, Kind, describe
from tests.unit.app.exporters.segments_file import write_segments


@pytest.fixture
def segments(tmp_path: Path) -> Path:
    return write_segments(tmp_path / "segments.json")


def refusal(wishes: Wishes) -> tuple[str, str]:
    with pytest.raises(ImportRefused) as caught:
        plan_job(wishes)
    return caught.value.code, str(caught.value)


def changed(folder: Path, file: str, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / file).read_text())
    change(content)
    (folder / file).write_text(json.dumps(content))


def test_one_training_becomes_one_network(tmp_path: Path, segments: Path) -> None:
    job = plan_job(Wishes((describe(KINDS["plain"], tmp_path, ("0", "1")),), segments, version="2.1.0"))
    assert (job.name, job.version, job.algorithm_name) == ("dataset901_tiny", "2.1.0", "dataset901_tiny")
    assert job.combination == "single"
    (part,) = job.parts
    assert part.model == "dataset901_tiny"
    assert part.training.folds == ("0", "1")
    assert (part.orientation, part.tile_step_size, part.mirroring) == (None, 0.5, True)


@pytest.mark.parametrize("kind", ["two_channels", "flat", "residual", "old"])
def test_what_nnunet_plans_is_supported(kind: str, tmp_path: Path, segments: Path) -> None:
    assert plan_job(Wishes((describe(KINDS[kind], tmp_path),), segments)).parts


def test_regions_paint_what_their_order_says(tmp_path: Path, segments: Path) -> None:
    assert plan_job(Wishes((describe(KINDS["regions"], tmp_path),), segments)).parts
    assert KINDS["regions"].labels is REGIONS


def test_images_that_were_turned_for_training_are_turned_again(tmp_path: Path, segments: Path) -> None:
    folder = describe(KINDS["totalsegmentator"], tmp_path)
    assert plan_job(Wishes((folder,), segments)).parts[0].orientation == "RAS"
    plain = describe(KINDS["plain"], tmp_path)
    assert plan_job(Wishes((plain,), segments, orientation="RAS", tile_step_size=0.8)).parts[0].orientation == "RAS"


def test_a_cascade_becomes_two_networks(tmp_path: Path, segments: Path) -> None:
    describe(KINDS["lowres"], tmp_path)
    job = plan_job(Wishes((describe(KINDS["cascade"], tmp_path),), segments, name="liver"))
    assert [(part.model, part.previous_stage) for part in job.parts] == [
        ("liver_3d_lowres", None),
        ("liver", "liver_3d_lowres"),
    ]
    assert job.combination == "single"


def test_several_trainings_become_an_ensemble(tmp_path: Path, segments: Path) -> None:
    folders = (describe(KINDS["plain"], tmp_path), describe(KINDS["flat"], tmp_path))
    job = plan_job(Wishes(folders, segments, name="liver"))
    assert [part.model for part in job.parts] == ["liver", "liver_part2"]
    assert job.combination == "mean-of-probabilities"


def test_an_ensemble_of_a_cascade_and_another(tmp_path: Path, segments: Path) -> None:
    describe(KINDS["lowres"], tmp_path)
    folders = (describe(KINDS["plain"], tmp_path), describe(KINDS["cascade"], tmp_path))
    job = plan_job(Wishes(folders, segments, name="liver"))
    assert [part.model for part in job.parts] == ["liver", "liver_part2_3d_lowres", "liver_part2"]
    assert job.combination == "mean-of-probabilities"


def merged(tmp_path: Path, content: Any, values: tuple[int, ...] = (1, 2, 7)) -> Wishes:
    other = replace(KINDS["flat"], labels={"background": 0, "aorta": 1})
    folders = (describe(KINDS["plain"], tmp_path), describe(other, tmp_path))
    (tmp_path / "merge.json").write_text(json.dumps(content))
    return Wishes(folders, write_segments(tmp_path / "merged.json", values), merge=tmp_path / "merge.json")


def test_a_merge_says_what_becomes_which(tmp_path: Path) -> None:
    job = plan_job(merged(tmp_path, [{"liver": 2, "2": 1}, {"aorta": 7}]))
    assert job.combination == "merge"
    assert [dict(part.label_values or {}) for part in job.parts] == [{1: 2, 2: 1}, {1: 7}]


def test_a_merge_with_a_cascade_in_it(tmp_path: Path) -> None:
    other = replace(KINDS["plain"], labels={"background": 0, "aorta": 1})
    describe(KINDS["lowres"], tmp_path)
    folders = (describe(other, tmp_path), describe(KINDS["cascade"], tmp_path))
    (tmp_path / "merge.json").write_text(json.dumps([{"aorta": 7}, {"liver": 1, "spleen": 2}]))
    segments = write_segments(tmp_path / "merged.json", (1, 2, 7))
    job = plan_job(Wishes(folders, segments, name="all", merge=tmp_path / "merge.json"))
    assert [(part.model, part.label_values) for part in job.parts] == [
        ("all", {1: 7}),
        ("all_part2_3d_lowres", None),
        ("all_part2", {1: 1, 2: 2}),
    ]


def test_a_previous_stage_with_other_labels_is_refused(tmp_path: Path, segments: Path) -> None:
    low = describe(replace(KINDS["lowres"], labels={"background": 0, "aorta": 1}), tmp_path / "elsewhere")
    cascade = describe(KINDS["cascade"], tmp_path)
    code, message = refusal(Wishes((cascade,), segments, previous_stage=low))
    assert code == "labels-differ"
    assert "--previous-stage" in message


@pytest.mark.parametrize(
    "content",
    [
        {},
        [],
        [{"liver": 1}],
        [{"kidney": 1}, {"aorta": 7}],
        [{"background": 1}, {"aorta": 7}],
        [{"liver": 0}, {"aorta": 7}],
        [{"liver": "1"}, {"aorta": 7}],
        [["liver"], {"aorta": 7}],
    ],
)
def test_a_merge_that_does_not_fit_is_refused(content: Any, tmp_path: Path) -> None:
    assert refusal(merged(tmp_path, content))[0] == "merge-unreadable"


def test_labels_that_differ_ask_for_a_merge(tmp_path: Path) -> None:
    code, message = refusal(replace(merged(tmp_path, []), merge=None))
    assert code == "labels-differ"
    assert "--merge" in message


def test_networks_that_take_other_images_are_no_ensemble(tmp_path: Path, segments: Path) -> None:
    other = replace(KINDS["flat"], channels=("T1",))
    code, message = refusal(Wishes((describe(KINDS["plain"], tmp_path), describe(other, tmp_path)), segments))
    assert code == "channels-differ"
    assert "CT" in message
    assert "T1" in message


@pytest.mark.parametrize(
    ("values", "said"),
    [((1,), "lacks the labels 2 (spleen)"), ((1, 2, 3), "has 3 (Structure 3), which the model never paints")],
)
def test_segments_must_code_what_is_painted(values: tuple[int, ...], said: str, tmp_path: Path) -> None:
    segments = write_segments(tmp_path / "segments.json", values)
    code, message = refusal(Wishes((describe(KINDS["plain"], tmp_path),), segments))
    assert code == "labels-differ"
    assert said in message


def test_segments_that_are_no_metainfo(tmp_path: Path, segments: Path) -> None:
    segments.write_text("{}")
    assert refusal(Wishes((describe(KINDS["plain"], tmp_path),), segments))[0] == "segments-unreadable"


def set_planned(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda plans: plans["configurations"]["3d_fullres"].update(values)


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (set_planned(normalization_schemes=["OurNormalization"]), "configuration-unsupported", "OurNormalization"),
        (set_planned(preprocessor_name="OurPreprocessor"), "configuration-unsupported", "OurPreprocessor"),
        (set_planned(patch_size=[16]), "configuration-unsupported", "tiles of 1 axes"),
        (set_planned(resampling_fn_data="our_resampling"), "configuration-unsupported", "our_resampling"),
        (set_planned(normalization_schemes=[]), "plans-unreadable", "0 normalisations for 1 channels"),
        (lambda plans: plans.pop("transpose_forward"), "plans-unreadable", "transpose_forward"),
        (lambda plans: plans.update(label_manager="Ours"), "configuration-unsupported", "Ours"),
        (lambda plans: plans.update(image_reader_writer="OurIO"), "configuration-unsupported", "OurIO"),
    ],
)
def test_what_the_image_path_can_not_do_is_refused_by_name(
    change: Callable[[dict[str, Any]], object], code: str, said: str, tmp_path: Path, segments: Path
) -> None:
    folder = describe(KINDS["plain"], tmp_path)
    changed(folder, "plans.json", change)
    found, message = refusal(Wishes((folder,), segments))
    assert found == code
    assert said in message


@pytest.mark.parametrize("labels", [{"liver": 1}, {"background": 0, "liver": 3}, {"background": 0}])
def test_labels_that_nnunet_would_not_write(labels: dict[str, int], tmp_path: Path, segments: Path) -> None:
    folder = describe(Kind(labels=labels), tmp_path)
    assert refusal(Wishes((folder,), segments))[0] == "labels-unreadable"


@pytest.mark.parametrize(
    "wish",
    [
        {"tile_step_size": 0.0},
        {"tile_step_size": 1.5},
        {"max_batch_size": 2},
        {"orientation": "LPS"},
        {"merge": Path("merge.json")},
    ],
)
def test_options_that_can_not_be(wish: dict[str, Any], tmp_path: Path, segments: Path) -> None:
    assert refusal(Wishes((describe(KINDS["plain"], tmp_path),), segments, **wish))[0] == "option-unusable"


@pytest.mark.parametrize("name", ["Liver", "", "../liver", "a" * 64, "leber:1"])
def test_a_name_that_can_not_be(name: str, tmp_path: Path, segments: Path) -> None:
    assert refusal(Wishes((describe(KINDS["plain"], tmp_path),), segments, name=name or "-"))[0] == "name-unusable"


def test_postprocessing_is_taken_over(tmp_path: Path, segments: Path) -> None:
    folder = describe(KINDS["plain"], tmp_path)
    function = "remove_all_but_largest_component_from_segmentation"
    (folder / "postprocessing.json").write_text(
        json.dumps({"postprocessing_fns": [function], "postprocessing_kwargs": [{"labels_or_regions": [1, 2]}]})
    )
    wishes = Wishes((folder,), segments)
    assert plan_job(wishes).postprocessing == ((1, 2),)
    assert plan_job(replace(wishes, without_postprocessing=True)).postprocessing == ()
    flat = describe(KINDS["flat"], tmp_path)
    assert plan_job(replace(wishes, folders=(folder, flat))).postprocessing == ()
    named = replace(wishes, folders=(folder, flat), postprocessing=folder / "postprocessing.json")
    assert plan_job(named).postprocessing == ((1, 2),)


def test_postprocessing_of_labels_that_are_never_painted(tmp_path: Path, segments: Path) -> None:
    folder, path = describe(KINDS["plain"], tmp_path), tmp_path / "other.json"
    function = "remove_all_but_largest_component_from_segmentation"
    path.write_text(json.dumps({"postprocessing_fns": [function], "postprocessing_kwargs": [{"labels_or_regions": 9}]}))
    assert refusal(Wishes((folder,), segments, postprocessing=path))[0] == "labels-differ"
