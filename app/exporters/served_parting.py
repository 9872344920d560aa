"""Where a model, served by other means, first parts from its graph: that graph is served with its layers' outputs open.

The exporter environment opens the graph, a few layers at a time, and says what ONNX Runtime computes there; the
embedded Triton serves it by the configuration that strayed.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from app.errors import ImportRefused
from app.exporters.environment import run_task
from app.exporters.nnunet import INPUT_NAME, OUTPUT_NAME
from app.exporters.onnx_graphs import Layer
from app.exporters.parity import Array
from app.exporters.parting import Parting, first_parting, larger
from app.exporters.served import Search, copy_model, serving
from app.settings import Settings
from operators.errors import InferenceFailed
from operators.triton import TritonModel

_FILE = re.compile(r'^default_model_filename: "([^"]+\.onnx)"$', re.MULTILINE)


def search_of(settings: Settings, folder: Path, configuration: str | None) -> Search:
    """Return the search for one model and configuration; for the default one there is nothing to be searched."""
    if configuration is None:
        return lambda _image: None
    return lambda image: find_served_parting(settings, folder, configuration, image)


def find_served_parting(settings: Settings, folder: Path, configuration: str, image: Array) -> Parting | None:
    """Return where the model in `folder`, served by `configuration`, first parts from ``model.onnx``.

    Parameters
    ----------
    folder
        A Triton model, with ``configs/<configuration>.pbtxt``.
    image
        (channel, …patch).

    Returns
    -------
    Parting
        None if it can't be found out: what is served is no ONNX graph, or its layers can't be served one by one.
    """
    text = (folder / "configs" / f"{configuration}.pbtxt").read_text(encoding="utf-8")
    named = _FILE.search(text)
    if named is None and "default_model_filename" in text:
        return None
    with tempfile.TemporaryDirectory(prefix="limner-parting-") as scratch:
        np.save(Path(scratch) / "image.npy", image)
        request = {
            "task": "layers",
            "reference": str(folder / "1" / "model.onnx"),
            "served": str(folder / "1" / (named[1] if named else "model.onnx")),
            "image": str(Path(scratch) / "image.npy"),
        }
        try:
            return _search(settings, folder, configuration, request, Path(scratch), image)
        except (ImportRefused, InferenceFailed):
            return None  # the refusal itself stands, and must not be hidden by a search that failed


def _search(
    settings: Settings, folder: Path, configuration: str, request: Mapping[str, Any], scratch: Path, image: Array
) -> Parting | None:
    largest: Parting | None = None
    start, count = 0, 1
    while start < count:
        opened = scratch / f"layers-{start}"
        task = {**request, "start": start, "target": str(opened)}
        answer = run_task(settings.models.exporter_python, task, lambda _line: None)
        count = answer["count"]
        found = _served_outputs(settings, folder, configuration, opened, answer["layers"], image)
        expected = {name: np.load(opened / file) for name, file in answer["files"].items()}
        group = [(one["place"], Layer(one["kind"], one["place"], one["output"])) for one in answer["layers"]]
        parting = first_parting(group, expected, found)
        if parting is not None and parting.stands_out:
            return parting
        largest = larger(largest, parting)
        start += answer["opened"]
        shutil.rmtree(opened)
    return largest


def _served_outputs(
    settings: Settings, folder: Path, configuration: str, opened: Path, layers: list[dict[str, Any]], image: Array
) -> Mapping[str, Any]:
    """What the opened graph gives for the image, served by the configuration."""
    repository = opened / "repository"
    repository.mkdir()
    copy_model(folder, repository, configuration)
    config = repository / folder.name / "config.pbtxt"
    text = _FILE.sub("", config.read_text(encoding="utf-8"))
    for layer in (one for one in layers if one["output"] != OUTPUT_NAME):
        dimensions = ", ".join(str(size) for size in layer["shape"])
        name = json.dumps(layer["output"])
        text += f"output [\n  {{\n    name: {name}\n    data_type: TYPE_FP32\n    dims: [ {dimensions} ]\n  }}\n]\n"
    config.write_text(text, encoding="utf-8")
    version = repository / folder.name / "1"
    shutil.rmtree(version)
    version.mkdir()
    for file in opened.glob("model.onnx*"):
        file.rename(version / file.name)
    with (
        serving(settings, repository, opened / "run") as triton,
        TritonModel(
            triton.target,
            folder.name,
            version="1",
            deadline_seconds=settings.triton.request_seconds,
            shared_memory=settings.triton.shared_memory,
        ) as model,
    ):
        return model.infer({INPUT_NAME: image[None]})
