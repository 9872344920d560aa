import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from operators.errors import ModelPackageError
from operators.model_package import ModelPackage

CARD = '---\nname: small\nversion: "1.2.0"\nalgorithm_name: Small\n---\n\n# Small\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "small"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.onnx").write_bytes(b"weights")
    (folder / "config.pbtxt").write_text('backend: "onnxruntime"\n')
    (folder / "plans.json").write_text("{}")
    (folder / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "liver": 1}}))
    (folder / "segments.json").write_text(json.dumps({"segmentAttributes": [[{"labelID": 1}]]}))
    (folder / "model_card.md").write_text(CARD)
    return folder


def test_a_whole_package(folder: Path) -> None:
    package = ModelPackage.load(folder)
    assert (package.name, package.version, package.algorithm_name) == ("small", "1.2.0", "Small")
    assert package.weights_digest == hashlib.sha256(b"weights").hexdigest()
    assert package.triton_version == "1"
    assert package.segments_path == folder / "segments.json"
    assert package.dataset["labels"] == {"background": 0, "liver": 1}


def test_the_highest_version_with_weights_is_served(folder: Path) -> None:
    for version, content in (("2", b"two"), ("10", b"ten")):
        (folder / version).mkdir()
        (folder / version / "model.onnx").write_bytes(content)
    (folder / "11").mkdir()
    (folder / "training").mkdir()
    package = ModelPackage.load(folder)
    assert package.triton_version == "10"
    assert package.weights_digest == hashlib.sha256(b"ten").hexdigest()


@pytest.mark.parametrize(
    "name", ["config.pbtxt", "plans.json", "dataset.json", "segments.json", "model_card.md", "1/model.onnx"]
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
    with pytest.raises(ModelPackageError) as caught:
        ModelPackage.load(folder)
    assert caught.value.code == "file-unreadable"


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "segments.json").write_text(json.dumps({"segmentAttributes": [[{"labelID": 2}]]})),
        lambda folder: (folder / "dataset.json").write_text(
            json.dumps({"labels": {"background": 0, "liver": 1, "spleen": 2}})
        ),
    ],
)
def test_every_label_must_be_coded(folder: Path, change: Callable[[Path], object]) -> None:
    change(folder)
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
