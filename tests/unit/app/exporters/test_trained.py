"""What nnU-Net left behind is found, and what is missing is named together with what is there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.errors import ImportRefused
from app.exporters.trained import find_previous_stage, find_training, planned
from tests.fixtures.nnunet.planned import CHECKPOINT, KINDS, describe


def refusal(call: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(ImportRefused) as caught:
        call()
    return caught.value.code, str(caught.value)


def test_the_folder_of_a_training(tmp_path: Path) -> None:
    folder = describe(KINDS["plain"], tmp_path, ("0", "1", "3"))
    training = find_training(folder)
    assert training.configuration == "3d_fullres"
    assert training.folds == ("0", "1", "3")
    assert training.checkpoints[2] == folder / "fold_3" / CHECKPOINT
    assert training.planned["patch_size"] == [16, 32, 32]


def test_folds_can_be_chosen_and_fold_all_is_taken_where_it_stands_alone(tmp_path: Path) -> None:
    folder = describe(KINDS["plain"], tmp_path, ("0", "1", "all"))
    assert find_training(folder).folds == ("0", "1")
    assert find_training(folder, folds=["all"]).folds == ("all",)
    assert find_training(folder, folds=["1", "0", "1"]).folds == ("1", "0")
    for fold in ("0", "1"):
        shutil.rmtree(folder / f"fold_{fold}")
    assert find_training(folder).folds == ("all",)


def test_a_folder_with_several_trainings_asks_which(tmp_path: Path) -> None:
    full, low = describe(KINDS["plain"], tmp_path), describe(KINDS["lowres"], tmp_path)
    code, message = refusal(lambda: find_training(tmp_path))
    assert code == "training-ambiguous"
    assert full.name in message
    assert low.name in message
    assert "--configuration" in message
    assert find_training(tmp_path, configuration="3d_lowres").folder == low
    assert refusal(lambda: find_training(tmp_path, configuration="2d"))[0] == "training-ambiguous"


def test_a_folder_with_one_training_is_that_training(tmp_path: Path) -> None:
    folder = describe(KINDS["plain"], tmp_path)
    assert find_training(tmp_path).folder == folder


@pytest.mark.parametrize(
    ("break_it", "code", "said"),
    [
        (shutil.rmtree, "training-missing", "there is no folder"),
        (lambda folder: (folder / "plans.json").unlink(), "training-missing", "plans.pkl"),
        (lambda folder: (folder / "dataset.json").unlink(), "training-missing", "dataset.json"),
        (lambda folder: (folder / "plans.json").write_text("{"), "training-unreadable", "JSON"),
        (lambda folder: (folder / "plans.json").write_text("[]"), "training-unreadable", "object"),
        (lambda folder: (folder / "plans.json").write_text("{}"), "training-unreadable", "nnU-Net v1"),
        (lambda folder: shutil.rmtree(folder / "fold_0"), "fold-missing", "nothing was trained"),
        (lambda folder: (folder / "fold_0" / CHECKPOINT).unlink(), "checkpoint-missing", "none at all"),
        (
            lambda folder: (folder / "fold_0" / CHECKPOINT).rename(folder / "fold_0" / "checkpoint_best.pth"),
            "checkpoint-missing",
            "checkpoint_best.pth: choose one with --checkpoint",
        ),
    ],
)
def test_what_is_missing_is_named(break_it: Callable[[Path], Any], code: str, said: str, tmp_path: Path) -> None:
    folder = describe(KINDS["plain"], tmp_path)
    break_it(folder)
    found, message = refusal(lambda: find_training(folder))
    assert found == code
    assert said in message


def test_a_missing_fold_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    folder = describe(KINDS["plain"], tmp_path, ("0", "2"))
    code, message = refusal(lambda: find_training(folder, folds=["0", "1", "4"]))
    assert code == "fold-missing"
    assert "has no fold 1, 4; it has 0, 2" in message


def test_a_fold_without_its_checkpoint_is_named_even_if_others_have_theirs(tmp_path: Path) -> None:
    folder = describe(KINDS["plain"], tmp_path, ("0", "1"))
    (folder / "fold_1" / CHECKPOINT).unlink()
    assert find_training(folder).folds == ("0",)
    assert refusal(lambda: find_training(folder, folds=["0", "1"]))[0] == "checkpoint-missing"


def test_a_folder_that_does_not_say_its_configuration_asks_for_it(tmp_path: Path) -> None:
    folder = describe(KINDS["plain"], tmp_path).rename(tmp_path / "renamed")
    assert find_training(folder).configuration == "3d_fullres"  # the only one that was planned
    plans = json.loads((folder / "plans.json").read_text())
    plans["configurations"]["2d"] = plans["configurations"]["3d_fullres"]
    (folder / "plans.json").write_text(json.dumps(plans))
    code, message = refusal(lambda: find_training(folder))
    assert code == "training-ambiguous"
    assert "3d_fullres, 2d with --configuration" in message
    assert refusal(lambda: find_training(folder, configuration="3d_lowres"))[0] == "configuration-missing"


def test_a_configuration_has_what_it_inherits() -> None:
    plans = {
        "configurations": {"a": {"x": 1, "y": 1}, "b": {"inherits_from": "a", "y": 2}, "c": {"inherits_from": "b"}}
    }
    assert planned(plans, "c") == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    ("configurations", "code"),
    [
        ({"a": {"inherits_from": "b"}, "b": {"inherits_from": "a"}}, "training-unreadable"),
        ({"a": {"inherits_from": "gone"}}, "configuration-missing"),
    ],
)
def test_a_configuration_that_inherits_from_nowhere(configurations: dict[str, Any], code: str) -> None:
    assert refusal(lambda: planned({"configurations": configurations}, "a"))[0] == code


def test_the_previous_stage_is_found_beside(tmp_path: Path) -> None:
    low, full = describe(KINDS["lowres"], tmp_path, ("0", "1")), describe(KINDS["cascade"], tmp_path, ("0", "1"))
    found = find_previous_stage(find_training(full, folds=["1"]), None)
    assert found is not None
    assert (found.folder, found.folds) == (low, ("1",))
    assert find_previous_stage(find_training(low), None) is None


def test_the_previous_stage_may_be_named(tmp_path: Path) -> None:
    low, full = describe(KINDS["lowres"], tmp_path / "elsewhere", ("all",)), describe(KINDS["cascade"], tmp_path)
    code, message = refusal(lambda: find_previous_stage(find_training(full), None))
    assert code == "previous-stage-missing"
    assert low.name in message
    found = find_previous_stage(find_training(full), low)
    assert found is not None
    assert found.folds == ("all",)
    assert refusal(lambda: find_previous_stage(find_training(low), low))[0] == "previous-stage-missing"
