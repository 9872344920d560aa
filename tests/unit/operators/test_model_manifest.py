import json
from pathlib import Path
from typing import Any

import pytest

from operators.errors import ModelPackageError
from operators.model_manifest import read_manifest

ENTRY = {
    "model": "lesion",
    "configuration": "3d_fullres",
    "folds": ["0", 1],
    "mirroring_axes": [0, 1, 2],
    "tile_step_size": 0.5,
    "orientation": None,
    "previous_stage": None,
    "label_values": None,
    "weights_sha256": "w",
    "plans_sha256": "p",
    "dataset_sha256": "d",
}


def written(folder: Path, *entries: dict[str, Any], **changes: Any) -> Path:
    content = {
        "format": 1,
        "combination": "single",
        "networks": [{**ENTRY, **entry} for entry in entries],
        "postprocessing": [],
        **changes,
    }
    path = folder / "manifest.json"
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))
    return path


def test_one_network(tmp_path: Path) -> None:
    steps = [{"keep_largest_component_of": [1, 2]}, {"keep_largest_component_of": [2]}]
    manifest = read_manifest(written(tmp_path, {}, postprocessing=steps, exporter={"limner": "0.2"}))
    assert manifest.combination == "single"
    (network,) = manifest.networks
    assert network.folds == ("0", "1")
    assert network.mirroring_axes == (0, 1, 2)
    assert manifest.postprocessing == ((1, 2), (2,))


def test_a_cascade(tmp_path: Path) -> None:
    manifest = read_manifest(written(tmp_path, {"previous_stage": "low"}, {"model": "low"}))
    assert [network.previous_stage for network in manifest.networks] == ["low", None]


def test_a_merge(tmp_path: Path) -> None:
    entries = ({"label_values": {"1": 7}}, {"model": "other", "label_values": {"2": 9}})
    manifest = read_manifest(written(tmp_path, *entries, combination="merge"))
    assert [network.label_values for network in manifest.networks] == [{1: 7}, {2: 9}]


@pytest.mark.parametrize(
    ("entries", "changes", "said"),
    [
        (({},), {"format": 2}, "its format is 2"),
        (({},), {"networks": ...}, "'networks' is missing"),
        (({"weights_sha256": ...},), {}, "weights_sha256"),
        ((), {}, "0 networks give results"),
        (({},), {"combination": "median"}, "'median'"),
        (({},), {"combination": "merge"}, "1 networks give results"),
        (({}, {"model": "other"}), {}, "2 networks give results"),
        (({}, {}), {"combination": "mean-of-probabilities"}, "a model of its own"),
        (({"previous_stage": "low"},), {}, "low is not among"),
        (({}, {"model": "other"}), {"combination": "merge"}, "label_values belong"),
        (({"label_values": {"1": 2}},), {}, "label_values belong"),
        (({"tile_step_size": 0},), {}, "tile_step_size"),
        (({"orientation": "LPS"},), {}, "'LPS'"),
        (({"model": "../other"},), {}, "not the name of a folder"),
        (({"model": ".."},), {}, "not the name of a folder"),
        (({"model": None},), {}, "not the name of a folder"),
        (({},), {"postprocessing": [{"other": []}]}, "keep_largest_component_of"),
    ],
)
def test_what_it_must_say(
    tmp_path: Path, entries: tuple[dict[str, Any], ...], changes: dict[str, Any], said: str
) -> None:
    present = [{key: value for key, value in {**ENTRY, **entry}.items() if value is not ...} for entry in entries]
    path = written(tmp_path, **{"networks": present, **changes})
    with pytest.raises(ModelPackageError, match=said) as caught:
        read_manifest(path)
    assert caught.value.code == "file-unreadable"


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_what_is_no_manifest(tmp_path: Path, content: str) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(content)
    with pytest.raises(ModelPackageError):
        read_manifest(path)
