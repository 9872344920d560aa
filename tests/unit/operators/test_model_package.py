import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from operators.errors import ModelPackageError
from operators.gate.intended_use import Bounds, IntendedUse
from operators.model_package import ModelPackage

CARD = '---\nname: small\nversion: "1.2.0"\nalgorithm_name: Small\n---\n\n# Small\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = write_network(tmp_path / "small")
    (folder / "segments.json").write_text(json.dumps({"segmentAttributes": [[{"labelID": 1}]]}))
    (folder / "model_card.md").write_text(CARD)
    write_manifest(folder)
    return folder


def write_network(folder: Path, labels: dict[str, Any] | None = None, **dataset: Any) -> Path:
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.onnx").write_bytes(b"weights")
    (folder / "config.pbtxt").write_text('backend: "onnxruntime"\n')
    (folder / "plans.json").write_text("{}")
    described = {"labels": labels or {"background": 0, "liver": 1}, "channel_names": {"0": "CT"}, **dataset}
    (folder / "dataset.json").write_text(json.dumps(described))
    return folder


def entry_of(folder: Path, **changes: Any) -> dict[str, Any]:
    newest = max(int(path.parent.name) for path in folder.glob("*/model.onnx") if path.parent.name.isdecimal())
    weights = b"".join(path.read_bytes() for path in sorted((folder / str(newest)).glob("model.onnx*")))
    return {
        "model": folder.name,
        "configuration": "3d_fullres",
        "folds": ["0"],
        "mirroring_axes": [],
        "tile_step_size": 0.5,
        "orientation": None,
        "previous_stage": None,
        "label_values": None,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "plans_sha256": hashlib.sha256((folder / "plans.json").read_bytes()).hexdigest(),
        "dataset_sha256": hashlib.sha256((folder / "dataset.json").read_bytes()).hexdigest(),
        **changes,
    }


def write_manifest(folder: Path, *entries: dict[str, Any], combination: str = "single") -> None:
    content = {
        "format": 1,
        "combination": combination,
        "networks": list(entries) or [entry_of(folder)],
        "postprocessing": [],
    }
    (folder / "manifest.json").write_text(json.dumps(content))


def test_a_whole_package(folder: Path) -> None:
    package = ModelPackage.load(folder)
    assert (package.name, package.version, package.algorithm_name) == ("small", "1.2.0", "Small")
    assert package.weights_digest == hashlib.sha256(b"weights").hexdigest()
    assert package.segments_path == folder / "segments.json"
    assert package.channel_names == ("CT",)
    (network,) = package.networks
    assert network.triton_version == "1"
    assert network.dataset["labels"] == {"background": 0, "liver": 1}
    assert network.labels.painted == {1}


def test_the_card_states_what_it_is_for(folder: Path) -> None:
    assert ModelPackage.load(folder).intended_use == IntendedUse()
    (folder / "model_card.md").write_text(CARD.replace("name: small", "modality: [CT]\nslice_count: [10, 20]"))
    assert ModelPackage.load(folder).intended_use == IntendedUse(modality=("CT",), slice_count=Bounds(10, 20))
    (folder / "model_card.md").write_text(CARD.replace("name: small", "slice_count: [20, 10]"))
    with pytest.raises(ModelPackageError, match="the model card of small states .* slice_count") as caught:
        ModelPackage.load(folder)
    assert caught.value.code == "card-malformed"


def test_the_highest_version_with_weights_is_served(folder: Path) -> None:
    for version, content in (("2", b"two"), ("10", b"ten")):
        (folder / version).mkdir()
        (folder / version / "model.onnx").write_bytes(content)
    (folder / "11").mkdir()
    (folder / "training").mkdir()
    write_manifest(folder)
    package = ModelPackage.load(folder)
    assert package.networks[0].triton_version == "10"
    assert package.weights_digest == hashlib.sha256(b"ten").hexdigest()


@pytest.mark.parametrize(
    "name",
    ["config.pbtxt", "plans.json", "dataset.json", "segments.json", "model_card.md", "manifest.json", "1/model.onnx"],
)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelPackageError, match=name) as caught:
        ModelPackage.load(folder)
    assert caught.value.code == "file-missing"


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelPackageError, match="no model folder absent"):
        ModelPackage.load(tmp_path / "absent")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plans.json", "{"),
        ("plans.json", "[]"),
        ("dataset.json", "{}"),
        ("segments.json", '{"segmentAttributes": [{"labelID": 1}]}'),
        ("model_card.md", ""),
        ("model_card.md", "# no front matter\n"),
        ("model_card.md", "---\nname: small\n"),
        ("model_card.md", "---\n- a list\n---\n"),
        ("model_card.md", "---\nname: [\n---\n"),
        ("model_card.md", "---\nversion: 1.2\nalgorithm_name: Small\n---\n"),
        ("model_card.md", '---\nversion: "1.2"\n---\n'),
    ],
)
def test_an_unreadable_file_is_named(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content)
    write_manifest(folder)
    with pytest.raises(ModelPackageError) as caught:
        ModelPackage.load(folder)
    assert caught.value.code == "file-unreadable"


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "segments.json").write_text(json.dumps({"segmentAttributes": [[{"labelID": 2}]]})),
        lambda folder: (folder / "dataset.json").write_text(
            json.dumps({"labels": {"background": 0, "liver": 1, "spleen": 2}, "channel_names": {"0": "CT"}})
        ),
    ],
)
def test_every_label_must_be_coded(folder: Path, change: Callable[[Path], object]) -> None:
    change(folder)
    write_manifest(folder)
    with pytest.raises(ModelPackageError) as caught:
        ModelPackage.load(folder)
    assert caught.value.code == "labels-differ"


@pytest.mark.parametrize(
    ("names", "channels"),
    [
        ({"0": "CT"}, ("CT",)),
        ({"1": "FLAIR", "0": "T1"}, ("T1", "FLAIR")),
        ({str(number): f"c{number}" for number in reversed(range(12))}, tuple(f"c{number}" for number in range(12))),
    ],
)
def test_channels_come_in_the_networks_order(folder: Path, names: dict[str, str], channels: tuple[str, ...]) -> None:
    _set_channels(folder, names)
    assert ModelPackage.load(folder).channel_names == channels


@pytest.mark.parametrize("names", [None, {}, ["CT"], {"1": "CT"}, {"0": "T1", "2": "FLAIR"}, {"a": "T1"}])
def test_channels_that_are_not_numbered_as_nnunet_does(folder: Path, names: object) -> None:
    _set_channels(folder, names)
    with pytest.raises(ModelPackageError, match="channel_names") as caught:
        _ = ModelPackage.load(folder).channel_names
    assert caught.value.code == "file-unreadable"


def _set_channels(folder: Path, names: object) -> None:
    dataset = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**dataset, "channel_names": names}))
    write_manifest(folder)


@pytest.mark.parametrize("name", ["1/model.onnx", "plans.json", "dataset.json"])
def test_a_file_that_was_changed_by_hand_is_found_out(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / name).read_bytes() + b" ")
    with pytest.raises(ModelPackageError, match=f"small/{name} is another file than the manifest names") as caught:
        ModelPackage.load(folder)
    assert caught.value.code == "file-differs"


def test_weights_beside_the_graph_count(folder: Path) -> None:
    (folder / "1" / "model.onnx.data").write_bytes(b" and more")
    write_manifest(folder)
    assert ModelPackage.load(folder).weights_digest == hashlib.sha256(b"weights and more").hexdigest()


def test_a_cascade(folder: Path) -> None:
    low = write_network(folder.parent / "small_low")
    first, second = entry_of(low), entry_of(folder, previous_stage="small_low")
    write_manifest(folder, second, first)
    package = ModelPackage.load(folder)
    (network,) = package.networks
    assert network.previous_stage is not None
    assert [one.name for one in package.all_networks] == ["small_low", "small"]
    listed = f"{first['weights_sha256']}  small_low\n{second['weights_sha256']}  small\n"
    assert package.weights_digest == hashlib.sha256(listed.encode()).hexdigest()


def test_a_merge_codes_the_common_labels(folder: Path) -> None:
    other = write_network(folder.parent / "other", {"background": 0, "left": 1, "right": 2})
    write_manifest(
        folder,
        entry_of(folder, label_values={"1": 4}),
        entry_of(other, label_values={"1": 5, "2": 6}),
        combination="merge",
    )
    with pytest.raises(ModelPackageError, match=r"paints the labels \[4, 5, 6\] and segments.json codes \[1\]"):
        ModelPackage.load(folder)
    codes = [{"labelID": value} for value in (4, 5, 6)]
    (folder / "segments.json").write_text(json.dumps({"segmentAttributes": [codes]}))
    assert len(ModelPackage.load(folder).networks) == 2


def test_a_merge_maps_only_labels_that_are_there(folder: Path) -> None:
    other = write_network(folder.parent / "other")
    entries = entry_of(folder, label_values={"1": 1}), entry_of(other, label_values={"2": 2})
    write_manifest(folder, *entries, combination="merge")
    with pytest.raises(ModelPackageError, match="other does not paint"):
        ModelPackage.load(folder)


@pytest.mark.parametrize(
    ("other", "code"),
    [
        ({"channel_names": {"0": "PET"}}, "channels-differ"),
        ({"labels": {"background": 0, "liver": [1, 2]}, "regions_class_order": [1]}, "labels-differ"),
    ],
)
def test_an_ensemble_is_of_one_data_set(folder: Path, other: dict[str, Any], code: str) -> None:
    write_manifest(
        folder,
        entry_of(folder),
        entry_of(write_network(folder.parent / "other", **other)),
        combination="mean-of-probabilities",
    )
    with pytest.raises(ModelPackageError) as caught:
        ModelPackage.load(folder)
    assert caught.value.code == code


def test_a_network_that_is_not_there(folder: Path) -> None:
    entries = entry_of(folder, previous_stage="absent"), entry_of(folder, model="absent")
    write_manifest(folder, *entries)
    with pytest.raises(ModelPackageError, match="no model folder absent") as caught:
        ModelPackage.load(folder)
    assert caught.value.code == "file-missing"
