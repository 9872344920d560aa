"""`limner models import sam` with the real exporter environment and the real embedded Triton."""

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
from app.exporters.sam.importing import judge_configuration
from app.exporters.sam.job import GeneralistJob, job_as_json
from app.exporters.sam.parity import NEAR
from app.settings import Settings
from operators.sam.package import GeneralistPackage
from tests.exporter_fixture import exporter_python
from tests.triton_fixture import triton_python

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests/fixtures/sam"
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


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    subprocess.run(
        [exporter_python(), "-W", "ignore", FIXTURES / "untrained.py", path],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
    )
    return path


def test_a_checkpoint_is_imported_listed_checked_and_replaced(checkpoint: Path, tmp_path: Path, settings: Path) -> None:
    wanted = ("import", "sam", checkpoint, "--variant", FIXTURES / "tiny.json", "--settings", settings)
    done = limner(*wanted, "--accelerator", "openvino", "--threads", "1")
    assert done.returncode == 0, done.stderr
    assert "tiny 1.0.0" in done.stdout
    package = GeneralistPackage.load(tmp_path / "models" / "tiny")
    assert (package.variant, package.algorithm_name) == ("tiny", "Tiny SAM")
    assert {part: one.model for part, one in package.parts.items()} == {"encoder": "tiny", "decoder": "tiny_decoder"}
    parity = json.loads((package.folder / "manifest.json").read_text())["parity"]["networks"]
    for model in ("tiny", "tiny_decoder"):
        assert all(one["relative_error"] < 1e-4 for how in ("onnxruntime", "served") for one in parity[model][how])
        # it is another runtime: its figures are near, and not the same
        assert [one["mean_error"] for one in parity[model]["served_openvino"]] != [
            one["mean_error"] for one in parity[model]["served"]
        ]
    assert len(parity["tiny_decoder"]["served"]) == 8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["limner.toml", "models"]

    listed = json.loads(limner("list", "--settings", settings, "--json").stdout)
    assert [(one["name"], one["family"], one["variant"], one["problem"]) for one in listed] == [
        ("tiny", "sam", "tiny", "")
    ]
    checked = limner("check", "tiny", "--accelerator", "openvino", "--settings", settings, "--json")
    assert checked.returncode == 0, checked.stderr
    figures = json.loads(checked.stdout)["figures"]["openvino"]
    assert all(one["agreement"] >= 0.999 for one in figures["tiny_decoder"])
    assert limner("check", "tiny", "--elsewhere", "--settings", settings).stderr.startswith("triton-address-missing: ")

    assert limner(*wanted).stderr.startswith("model-exists: ")
    again = limner(*wanted, "--replace", "--version", "1.1.0")
    assert again.returncode == 0, again.stderr
    replaced = GeneralistPackage.load(tmp_path / "models" / "tiny")
    assert (replaced.version, replaced.weights_digest) == ("1.1.0", package.weights_digest)
    assert [path.name for path in (replaced.folder / "configs").iterdir()] == ["gpu.pbtxt"]

    (replaced.folder.parent / "tiny_decoder" / "1" / "model.onnx.data").unlink()
    for command in (("check", "tiny"), ("list",)):
        broken = limner(*command, "--settings", settings)
        assert broken.returncode == 1
        assert "another file than the manifest names" in broken.stdout + broken.stderr


def test_what_is_refused_publishes_nothing(checkpoint: Path, tmp_path: Path, settings: Path) -> None:
    made, evil = tmp_path / "made-by-the-checkpoint", tmp_path / "evil.pth"
    evil.write_bytes(PICKLE_THAT_RUNS % str(made).encode())
    for arguments, code in (
        ((evil, "--variant", FIXTURES / "tiny.json"), "checkpoint-refused: "),
        ((checkpoint, "--variant", "samed"), "variant-refused: SAMed can't be served: it takes no prompt"),
        ((checkpoint, "--variant", "mobile_sam"), "architecture-unsupported: "),
        ((checkpoint, "--variant", FIXTURES / "tiny.json", "--adapter", checkpoint.with_name("no")), "checkpoint-miss"),
        ((checkpoint, "--variant", FIXTURES / "tiny.json", "--accelerator", "tensorrt"), "option-unusable: "),
    ):
        done = limner("import", "sam", *arguments, "--settings", settings)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith(code), done.stderr
    assert not made.exists()
    assert not [path for path in tmp_path.glob("**/*") if path.name.startswith(("tiny", "mobile", ".models"))]


def test_a_served_decoder_that_computes_something_else_is_refused_by_prompt(checkpoint: Path, tmp_path: Path) -> None:
    settings, staged, gate = Settings(), tmp_path / "staged", tmp_path / "gate"
    job = GeneralistJob(str(checkpoint), None, str(FIXTURES / "tiny.json"), "tiny", "1.0.0", "Tiny", 1)
    request = {
        "task": "export-generalist",
        "job": job_as_json(job),
        "repository": str(staged),
        "gate_folder": str(gate),
    }
    run_task(settings.models.exporter_python, request, lambda _line: None)
    weights = staged / "tiny_decoder" / "1" / "model.onnx.data"
    kept = weights.read_bytes()
    # Half of all weights, so that every question parts, whatever lies where in the file.
    weights.write_bytes(kept[: len(kept) // 2] + bytes(len(kept) - len(kept) // 2))
    (tmp_path / "wrong").mkdir()
    with pytest.raises(
        ImportRefused, match="the decoder tiny_decoder, served as it will be, does not compute"
    ) as caught:
        judge_configuration(settings, job, Workplace(staged, gate, tmp_path / "wrong"), None, NEAR)
    assert caught.value.code == "parity-refused"
    assert "Asked with a box on the image 'square'" in str(caught.value)
    weights.unlink()
    shutil.rmtree(tmp_path / "wrong")
    (tmp_path / "wrong").mkdir()
    with pytest.raises(ImportRefused) as caught:
        judge_configuration(settings, job, Workplace(staged, gate, tmp_path / "wrong"), None, NEAR)
    assert caught.value.code == "served-failed"
