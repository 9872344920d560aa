"""nnU-Net's postprocessing becomes steps of the manifest; its pickle is never opened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.errors import ImportRefused
from app.exporters.removal import find_postprocessing, read_postprocessing

FUNCTION = "remove_all_but_largest_component_from_segmentation"


def write(path: Path, arguments: list[dict[str, Any]], function: str = FUNCTION) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"postprocessing_fns": [function] * len(arguments), "postprocessing_kwargs": arguments}))
    return path


def code_of(path: Path) -> str:
    with pytest.raises(ImportRefused) as caught:
        read_postprocessing(path)
    return caught.value.code


@pytest.mark.parametrize(
    ("value", "labels"),
    [(1, (1,)), ([1, 2], (1, 2)), ([[1, 2], 3], (1, 2, 3)), ([[2, 1]], (1, 2)), ([1, 1], (1,))],
)
def test_labels_and_regions(value: Any, labels: tuple[int, ...], tmp_path: Path) -> None:
    path = write(tmp_path / "postprocessing.json", [{"labels_or_regions": value}, {"labels_or_regions": 2}])
    assert read_postprocessing(path) == (labels, (2,))


def test_no_steps(tmp_path: Path) -> None:
    assert read_postprocessing(write(tmp_path / "postprocessing.json", [])) == ()


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"postprocessing_fns": [FUNCTION], "postprocessing_kwargs": []},
        {"postprocessing_fns": [FUNCTION], "postprocessing_kwargs": [{}]},
        {"postprocessing_fns": ["fill_holes"], "postprocessing_kwargs": [{"labels_or_regions": 1}]},
        {"postprocessing_fns": [FUNCTION], "postprocessing_kwargs": [{"labels_or_regions": "liver"}]},
        {"postprocessing_fns": [FUNCTION], "postprocessing_kwargs": [{"labels_or_regions": 1, "background_label": 4}]},
    ],
)
def test_what_can_not_be_taken_over_is_refused(content: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "postprocessing.json"
    path.write_text(json.dumps(content))
    assert code_of(path) == "postprocessing-unsupported"


def test_a_pickle_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "postprocessing.pkl"
    path.write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    assert code_of(path) == "postprocessing-pickle"


def test_it_is_found_beside_the_folds_or_with_the_cross_validation(tmp_path: Path) -> None:
    assert find_postprocessing(tmp_path) is None
    inside = write(tmp_path / "crossval_results_folds_0_1" / "postprocessing.json", [])
    assert find_postprocessing(tmp_path) == inside
    inside.with_suffix(".pkl").write_bytes(b"")
    assert find_postprocessing(tmp_path) == inside
    write(tmp_path / "postprocessing.json", [])
    with pytest.raises(ImportRefused, match="--no-postprocessing") as caught:
        find_postprocessing(tmp_path)
    assert caught.value.code == "postprocessing-ambiguous"


def test_a_pickle_alone_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "postprocessing.pkl").write_bytes(b"")
    with pytest.raises(ImportRefused, match="--postprocessing") as caught:
        find_postprocessing(tmp_path)
    assert caught.value.code == "postprocessing-pickle"
