"""What is exported computes what torch computes, for every kind of network that nnU-Net plans."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from app.errors import ImportRefused
from app.exporters.exporting import export_package
from app.exporters.job import job_as_json, job_from_json
from app.exporters.nnunet import load_fold
from app.exporters.onnx_graphs import WEIGHTS_FILE, open_session, run, write_graph
from app.exporters.trained import find_training
from operators.model_package import ModelPackage
from tests.fixtures.nnunet import planned
from tests.oracle.conftest import job_of, make


@pytest.mark.parametrize("kind", ["plain", "two_channels", "regions", "flat", "residual", "old", "totalsegmentator"])
def test_every_kind_is_exported_judged_and_written_as_a_whole_package(kind: str, tmp_path: Path) -> None:
    folder = make(kind, tmp_path / "results")
    export_package(job_of(folder), tmp_path / "models")
    package = ModelPackage.load(tmp_path / "models" / "tiny")
    network = package.networks[0]
    wanted = planned.KINDS[kind]
    assert network.configuration == wanted.configuration
    assert network.mirroring_axes == tuple(wanted.mirroring_axes or ())
    manifest = json.loads((package.folder / "manifest.json").read_text())
    figures = manifest["parity"]["networks"]["tiny"]["onnxruntime"]
    assert len(figures) == network.labels.heads
    assert all(one["finite"] and one["relative_error"] < 1e-4 for one in figures)
    assert set(manifest["exporter"]) == {"limner", "nnunetv2", "torch", "onnx", "onnxruntime", "opset"}
    assert list(manifest["checkpoints"]) == [f"{folder.name}/fold_0/checkpoint_final.pth"]


def test_several_folds_become_one_graph_of_their_mean(tmp_path: Path) -> None:
    folder = make("plain", tmp_path / "results", ("0", "1", "4"))
    export_package(job_of(folder), tmp_path / "models")
    training = find_training(folder)
    assert training.folds == ("0", "1", "4")
    patch = np.random.default_rng(3).standard_normal((2, 1, *planned.PATCH_3D), np.float32)
    logits = []
    for checkpoint in training.checkpoints:
        with torch.inference_mode():
            logits.append(load_fold(training, checkpoint).network(torch.from_numpy(patch)).numpy())
    found = run(open_session(tmp_path / "models/tiny/1/model.onnx"), patch)
    assert np.abs(np.mean(logits, axis=0) - found).max() < 1e-3
    assert np.abs(logits[0] - found).max() > 0.1  # the folds do differ
    assert ModelPackage.load(tmp_path / "models/tiny").networks[0].weights_digest


def test_a_cascade_takes_labels_beside_the_image(tmp_path: Path) -> None:
    low, full = make("lowres", tmp_path / "results"), make("cascade", tmp_path / "results")
    job = job_of(full)
    from dataclasses import replace

    from app.exporters.job import Part

    parts = (Part("tiny_low", find_training(low)), replace(job.parts[0], previous_stage="tiny_low"))
    export_package(replace(job, parts=parts), tmp_path / "models")
    package = ModelPackage.load(tmp_path / "models/tiny")
    assert [network.name for network in package.all_networks] == ["tiny_low", "tiny"]
    graph = onnx.load(tmp_path / "models/tiny/1/model.onnx").graph
    assert graph.input[0].type.tensor_type.shape.dim[1].dim_value == 3  # the image, liver, spleen


def test_large_weights_lie_in_a_file_of_their_own(tmp_path: Path) -> None:
    export_package(job_of(make("plain", tmp_path / "results")), tmp_path / "models")
    whole = tmp_path / "models/tiny/1/model.onnx"
    apart = tmp_path / "apart/model.onnx"
    write_graph(onnx.load(whole), apart, most_bytes=1000)
    assert (apart.parent / WEIGHTS_FILE).stat().st_size > 10_000
    assert apart.stat().st_size < whole.stat().st_size
    patch = np.ones((1, 1, *planned.PATCH_3D), np.float32)
    assert np.array_equal(run(open_session(whole), patch), run(open_session(apart), patch))


def test_a_job_survives_its_way_to_the_exporter(tmp_path: Path) -> None:
    job = job_of(make("plain", tmp_path / "results"))
    assert job_from_json(json.loads(json.dumps(job_as_json(job)))) == job


class Planted:
    """Unpickled by a reader that trusts it, this makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_a_checkpoint_that_would_run_something_is_refused_and_does_not(tmp_path: Path) -> None:
    folder, made = make("plain", tmp_path / "results"), tmp_path / "made-by-the-checkpoint"
    path = folder / "fold_0/checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    content["logging"] = Planted(made)
    torch.save(content, path)
    with pytest.raises(ImportRefused, match="could run anything") as caught:
        export_package(job_of(folder), tmp_path / "models")
    assert caught.value.code == "checkpoint-refused"
    assert not made.exists()
    torch.load(path, weights_only=False)  # as nnU-Net reads it: the fault was real
    assert made.exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint", pickle.dumps([1, 2])])
def test_what_is_no_checkpoint_is_refused(content: bytes, tmp_path: Path) -> None:
    folder = make("plain", tmp_path / "results")
    (folder / "fold_0/checkpoint_final.pth").write_bytes(content)
    with pytest.raises(ImportRefused) as caught:
        export_package(job_of(folder), tmp_path / "models")
    assert caught.value.code == "checkpoint-refused"


def changed(folder: Path, **values: Any) -> None:
    path = folder / "fold_0/checkpoint_final.pth"
    torch.save({**torch.load(path, weights_only=False), **values}, path)


def refusal_of(folder: Path, target: Path) -> ImportRefused:
    with pytest.raises(ImportRefused) as caught:
        export_package(job_of(folder), target)
    return caught.value


def test_a_checkpoint_without_weights_is_refused(tmp_path: Path) -> None:
    folder = make("plain", tmp_path / "results")
    torch.save({"state": 1}, folder / "fold_0/checkpoint_final.pth")
    assert refusal_of(folder, tmp_path / "models").code == "checkpoint-refused"


def test_a_trainer_of_nnunet_with_its_own_network_is_refused_by_name(tmp_path: Path) -> None:
    error = refusal_of(make("own_network", tmp_path / "results"), tmp_path / "models")
    assert error.code == "architecture-unsupported"
    assert "nnUNetTrainerBN" in str(error)


def test_weights_of_another_network_are_refused_with_the_trainers_name(tmp_path: Path) -> None:
    folder = make("plain", tmp_path / "results")
    changed(folder, network_weights={"some.weight": torch.zeros(1)}, trainer_name="ourTrainerMedNeXt")
    error = refusal_of(folder, tmp_path / "models")
    assert error.code == "architecture-unsupported"
    assert "ourTrainerMedNeXt" in str(error)


@pytest.mark.parametrize("kind", ["plain", "old"])
def test_a_planned_network_that_is_not_known_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    folder = make(kind, tmp_path / "results")
    text = (folder / "plans.json").read_text().replace("PlainConvUNet", "MedNeXt")
    (folder / "plans.json").write_text(text)
    error = refusal_of(folder, tmp_path / "models")
    assert error.code == "architecture-unsupported"
    assert "MedNeXt" in str(error)


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path) -> None:
    folder = make("plain", tmp_path / "results")
    changed(folder, init_args={"configuration": "3d_lowres"})
    error = refusal_of(folder, tmp_path / "models")
    assert error.code == "configuration-differs"
    assert "3d_lowres" in str(error)


def test_folds_of_different_mirroring_are_refused_unless_it_is_left_out(tmp_path: Path) -> None:
    from dataclasses import replace

    folder = make("plain", tmp_path / "results", ("0", "1"))
    changed(folder, inference_allowed_mirroring_axes=None)
    assert refusal_of(folder, tmp_path / "models").code == "folds-differ"
    job = job_of(folder)
    export_package(replace(job, parts=(replace(job.parts[0], mirroring=False),)), tmp_path / "again")
    assert ModelPackage.load(tmp_path / "again/tiny").networks[0].mirroring_axes == ()
