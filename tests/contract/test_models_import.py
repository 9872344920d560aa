"""`limner models …` with the real exporter environment and the real embedded Triton, from folder to served model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.errors import ImportRefused
from app.exporters.environment import run_task
from app.exporters.gated_import import Workplace
from app.exporters.importing import judge_configuration
from app.exporters.job import Job, job_as_json
from app.exporters.parity import EXACT
from app.exporters.planning import Wishes, plan_job
from app.settings import Settings
from operators.model_package import ModelPackage
from operators.nnunet.plans import check_supported
from tests.exporter_fixture import exporter_python, make_untrained
from tests.triton_fixture import MODEL_REPOSITORY, running_triton, triton_python
from tests.unit.app.exporters.segments_file import write_segments

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests/fixtures/nnunet/models"
TRAINED = FIXTURES / "ct_fullres"
PICKLE_THAT_RUNS = b"cposix\nmkdir\n(S'%s'\ntR."


def limner(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    exporter_python()
    triton_python()
    return subprocess.run(
        [sys.executable, "-m", "app.cli", "models", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "limner.toml"
    path.write_text('model_repository = "models"\n')
    return path


def trained_folder() -> Path:
    (folder,) = TRAINED.glob("results/*/*")
    return folder


def test_a_trained_network_is_imported_listed_and_checked(tmp_path: Path, settings: Path) -> None:
    segments = next(TRAINED.glob("repository/*/segments.json"))
    wanted = ("import", "nnunet", trained_folder(), "--segments", segments, "--settings", settings, "--name", "abdomen")
    done = limner(*wanted, "--accelerator", "openvino", "--threads", "1", "--no-postprocessing")
    assert done.returncode == 0, done.stderr
    assert "abdomen 1.0.0" in done.stdout
    package = ModelPackage.load(tmp_path / "models" / "abdomen")
    check_supported(package)
    committed = json.loads(next(TRAINED.glob("repository/*/manifest.json")).read_text())
    assert package.networks[0].weights_digest == committed["networks"][0]["weights_sha256"]
    parity = json.loads((package.folder / "manifest.json").read_text())["parity"]["networks"]["abdomen"]
    assert all(one["relative_error"] < 1e-4 for one in (*parity["onnxruntime"], *parity["served"]))
    # it is another runtime: its figures are near, and not the same
    assert [one["mean_error"] for one in parity["served_openvino"]] != [one["mean_error"] for one in parity["served"]]
    assert sorted(path.name for path in (package.folder / "configs").iterdir()) == ["gpu.pbtxt", "openvino.pbtxt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["limner.toml", "models"]

    assert limner(*wanted, "--accelerator", "tensorrt").stderr.startswith("option-unusable: ")
    again = limner(*wanted)
    assert again.returncode == 1
    assert again.stderr.startswith("model-exists: ")

    listed = json.loads(limner("list", "--settings", settings, "--json").stdout)
    assert [(one["name"], one["problem"]) for one in listed] == [("abdomen", "")]
    checked = limner("check", "abdomen", "--accelerator", "openvino", "--settings", settings, "--json")
    assert checked.returncode == 0, checked.stderr
    assert all(one["agreement"] >= 0.999 for one in json.loads(checked.stdout)["figures"]["openvino"]["abdomen"])
    assert (
        limner("check", "abdomen", "--accelerator", "cuda", "--settings", settings)
        .stderr.splitlines()[-1]
        .startswith("configuration-missing: abdomen has no configs/cuda.pbtxt; it has gpu, openvino")
    )

    (package.folder / "1" / "model.onnx").write_bytes(b"other weights")
    for command in (("check", "abdomen"), ("list",)):
        broken = limner(*command, "--settings", settings)
        assert broken.returncode == 1
        assert "another file than the manifest names" in broken.stdout + broken.stderr


def test_a_cascade_is_served_as_two_models(tmp_path: Path, settings: Path) -> None:
    (folder,) = (FIXTURES / "ct_cascade").glob("results/*/*__3d_cascade_fullres")
    segments = next((FIXTURES / "ct_cascade").glob("repository/*/segments.json"))
    done = limner(
        "import", "nnunet", folder, "--segments", segments, "--settings", settings, "--name", "liver", "--no-mirroring"
    )
    assert done.returncode == 0, done.stderr
    package = ModelPackage.load(tmp_path / "models" / "liver")
    check_supported(package)
    assert [network.name for network in package.all_networks] == ["liver_3d_lowres", "liver"]
    assert package.networks[0].mirroring_axes == ()
    parity = json.loads((package.folder / "manifest.json").read_text())["parity"]["networks"]
    assert all(one["agreement"] >= 0.9999 for figures in parity.values() for one in figures["served"])


def test_sub_models_are_merged_as_totalsegmentators_are(tmp_path: Path, settings: Path) -> None:
    folders = sorted((FIXTURES / "merge").glob("results/*/*"))
    segments = next((FIXTURES / "merge").glob("repository/*/segments.json"))
    committed = json.loads(next((FIXTURES / "merge").glob("repository/*/manifest.json")).read_text())
    merge = tmp_path / "merge.json"
    merge.write_text(json.dumps([network["label_values"] for network in committed["networks"]]))
    done = limner(
        "import", "nnunet", *folders, "--segments", segments, "--settings", settings, "--name", "parts",
        "--merge", merge, "--tile-step", "0.8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    package = ModelPackage.load(tmp_path / "models" / "parts")
    check_supported(package)
    assert package.combination == "merge"
    found = [(one.weights_digest, one.label_values, one.orientation, one.tile_step_size) for one in package.networks]
    assert found == [
        (one["weights_sha256"], {int(k): v for k, v in one["label_values"].items()}, one["orientation"], 0.8)
        for one in committed["networks"]
    ]


def test_a_checkpoint_that_would_run_something_publishes_nothing(tmp_path: Path, settings: Path) -> None:
    folder = make_untrained("plain", tmp_path / "results")
    made = tmp_path / "made-by-the-checkpoint"
    (folder / "fold_0" / "checkpoint_final.pth").write_bytes(PICKLE_THAT_RUNS % str(made).encode())
    segments = write_segments(tmp_path / "segments.json")
    done = limner("import", "nnunet", folder, "--segments", segments, "--settings", settings)
    assert done.returncode == 1
    assert "checkpoint-refused: fold_0/checkpoint_final.pth" in done.stderr
    assert not made.exists()
    assert list((tmp_path / "models").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["limner.toml", "models", "results", "segments.json"]


def test_a_served_model_that_computes_something_else_is_refused_by_class(tmp_path: Path) -> None:
    folder = make_untrained("plain", tmp_path / "results", "0,1")
    segments = write_segments(tmp_path / "segments.json")
    settings = Settings()
    jobs: dict[str, Job] = {}
    for fold in ("0", "1"):
        jobs[fold] = plan_job(Wishes((folder,), segments, folds=(fold,), threads=1))
        request = {"task": "export", "job": job_as_json(jobs[fold])}
        places = {"repository": str(tmp_path / fold), "gate_folder": str(tmp_path / f"gate{fold}")}
        run_task(exporter_python(), {**request, **places}, lambda _line: None)
    own, other = (Workplace(tmp_path / fold, tmp_path / "gate0", tmp_path) for fold in ("0", "1"))
    right = judge_configuration(settings, jobs["0"], own, None, EXACT)
    assert [one["name"] for one in right["dataset901_tiny"]] == ["background", "liver", "spleen"]
    (tmp_path / "repository-default").rename(tmp_path / "former")
    # the other fold's weights where the first one's should be
    with pytest.raises(ImportRefused, match="class (background|liver|spleen): ") as caught:
        judge_configuration(settings, jobs["0"], other, None, EXACT)
    assert caught.value.code == "parity-refused"


def test_half_precision_is_judged_before_an_engine_is_built(tmp_path: Path, settings: Path) -> None:
    source = next(TRAINED.glob("repository/*/manifest.json")).parent
    target = tmp_path / "models" / source.name
    shutil.copytree(source, target)
    done = limner("build-engine", source.name, "--precision", "fp16", "--settings", settings)
    assert done.returncode == 1
    # there is no TensorRT here: that is said after the graph in half precision has passed
    assert done.stderr.splitlines()[-1].startswith("tensorrt-missing: ")
    assert "compared with the one in single precision" in done.stderr
    assert not (target / "1" / "model.plan").exists()


def test_another_triton_is_judged_by_what_it_answers(tmp_path: Path, settings: Path) -> None:
    source = next(TRAINED.glob("repository/*/manifest.json")).parent
    ours, theirs = tmp_path / "models", tmp_path / "theirs"
    shutil.copytree(source, ours / source.name)
    shutil.copytree(source, theirs / source.name)
    shutil.copytree(MODEL_REPOSITORY / "limner_probe", theirs / "limner_probe")
    command = ("check", source.name, "--elsewhere", "--settings", settings)
    assert limner(*command).stderr.startswith("triton-address-missing: ")
    with running_triton(theirs) as triton:
        settings.write_text(f'model_repository = "models"\n[triton]\naddress = "{triton.target}"\n')
        done = limner(*command)
        assert done.returncode == 0, done.stderr
        assert "1.000000 of the voxels agree" in done.stdout


def test_a_configuration_that_computes_something_else_is_refused_by_class_and_layer(
    tmp_path: Path, settings: Path
) -> None:
    source = next(TRAINED.glob("repository/*/manifest.json")).parent
    model = tmp_path / "models" / source.name
    shutil.copytree(source, model)
    shutil.copytree(MODEL_REPOSITORY / "limner_probe", tmp_path / "models" / "limner_probe")
    subprocess.run(
        [exporter_python(), "-c", PERTURB, model / "1" / "model.onnx", model / "1" / "other.onnx"], check=True
    )
    (model / "configs").mkdir(exist_ok=True)
    text = (model / "config.pbtxt").read_text() + 'default_model_filename: "other.onnx"\n'
    (model / "configs" / "other.pbtxt").write_text(text)
    done = limner("check", source.name, "--accelerator", "other", "--settings", settings)
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert said.startswith(f"parity-refused: {source.name}, served with other, does not compute what was trained")
    assert "class " in said
    assert "they first part at Conv, encoder.stages.1." in said


PERTURB = """
import sys
import onnx
from onnx import numpy_helper
model = onnx.load(sys.argv[1])
weights = next(one for one in model.graph.initializer if one.name == "encoder.stages.1.0.convs.0.conv.weight")
values = numpy_helper.to_array(weights).copy()
values[0] *= -3
weights.CopyFrom(numpy_helper.from_array(values, weights.name))
onnx.save(model, sys.argv[2])
"""
"""One kernel of one convolution."""
