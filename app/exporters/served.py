"""The parity gate at the served model: a Triton is started on a staging repository and sees the fixed volumes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from app.errors import ImportRefused, ServingError
from app.exporters.nnunet import INPUT_NAME, OUTPUT_NAME
from app.exporters.parity import Array, Comparison, Limits, class_names, describe
from app.serving.triton import EmbeddedTriton
from app.settings import Settings
from operators.errors import InferenceFailed
from operators.tensors import Signature, TensorSpec
from operators.triton import PROBE_MODEL, TritonModel

LARGE_BATCH = 3
"""Beside single patches, so many at once."""
_PROBE_FOLDER = Path(__file__).resolve().parents[2] / "triton_models" / PROBE_MODEL

Infer = Callable[[Array], Array]
Search = Callable[[Array], object | None]


@contextmanager
def serving(settings: Settings, repository: Path, scratch: Path) -> Iterator[EmbeddedTriton]:
    """Start an embedded Triton on `repository`, to which the probe's model is added.

    Raises
    ------
    ImportRefused
        ``served-failed`` if it does not start, with the end of its log.
    """
    for probe in (settings.model_repository / PROBE_MODEL, _PROBE_FOLDER):
        if probe.is_dir() and not (repository / PROBE_MODEL).exists():
            shutil.copytree(probe, repository / PROBE_MODEL)
    triton = EmbeddedTriton(
        settings.triton.python,
        repository,
        scratch,
        start_seconds=settings.triton.start_seconds,
        probe_seconds=settings.triton.probe_seconds,
    )
    try:
        triton.start()
    except ServingError as error:
        raise ImportRefused(f"the embedded Triton can't serve it: {error}", code="served-failed") from error
    try:
        yield triton
    finally:
        triton.stop()


@contextmanager
def served_model(
    settings: Settings, target: str, model: str, shapes: tuple[Any, Any], *, version: str = "1"
) -> Iterator[Infer]:
    """Give the model as a function from a batch (n, channel, …) to logits (n, class, …).

    Parameters
    ----------
    shapes
        Of an input and an output without the batch: (channel, …patch) and (class, …patch).
    """
    single = np.dtype(np.float32)
    signature = Signature(
        inputs={INPUT_NAME: TensorSpec(single, (-1, *shapes[0]))},
        outputs={OUTPUT_NAME: TensorSpec(single, (-1, *shapes[1]))},
    )
    try:
        with TritonModel(
            target,
            model,
            version=version,
            deadline_seconds=settings.triton.request_seconds,
            shared_memory=settings.triton.shared_memory,
            signature=signature,
        ) as handle:
            yield lambda batch: handle.infer({INPUT_NAME: batch})[OUTPUT_NAME]
    except InferenceFailed as error:
        raise ImportRefused(f"the served {model} does not answer: {error}", code="served-failed") from error


def judge_served(
    model: str,
    infer: Infer,
    gate_folder: Path,
    dataset: Mapping[str, Any],
    limits: Limits,
    how: str,
    search: Search = lambda _image: None,
) -> list[dict[str, Any]]:
    """Compare a served model with what was expected of the fixed volumes, and return the figures.

    Parameters
    ----------
    gate_folder
        ``<volume>.image.npy`` and ``<volume>.logits.npy``, as the exporter leaves them.
    how
        How it is served, for the refusal.
    search
        Finds out where it parts from its graph, given the image (channel, …patch) in which it strays most.

    Raises
    ------
    ImportRefused
        ``parity-refused``, naming the class.
    """
    names, has_regions = class_names(dataset)
    comparison = Comparison(names, has_regions=has_regions)
    volumes = sorted(path.name.removesuffix(".image.npy") for path in gate_folder.glob("*.image.npy"))
    for name in volumes:
        comparison.add(name, _load(gate_folder, name, "logits"), infer(_load(gate_folder, name, "image")[None])[0])
    together = volumes[:LARGE_BATCH]
    answers = infer(np.stack([_load(gate_folder, name, "image") for name in together]))
    for name, answer in zip(together, answers, strict=True):
        comparison.add(f"{name}, in a batch of {LARGE_BATCH}", _load(gate_folder, name, "logits"), answer)
    worst = comparison.worst(limits)
    if worst is not None:
        parting = search(_load(gate_folder, worst.worst_volume.partition(",")[0], "image"))
        raise ImportRefused(
            f"{model}, served {how}, does not compute what was trained, and nothing is published. "
            f"{describe(worst, limits)}; {parting or 'its graph itself computes it, so they part in how it is served'}",
            code="parity-refused",
        )
    return comparison.as_json()


def keep_answers(infer: Infer, volumes: Mapping[str, Array], gate_folder: Path) -> None:
    """Write volumes and a served model's logits of them, as the exporter leaves torch's."""
    gate_folder.mkdir(parents=True)
    for name, volume in volumes.items():
        np.save(gate_folder / f"{name}.image.npy", volume)
        np.save(gate_folder / f"{name}.logits.npy", infer(volume[None])[0])


def shapes_of(gate_folder: Path) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of an input and an output without the batch."""
    image = next(iter(sorted(gate_folder.glob("*.image.npy"))))
    logits = gate_folder / image.name.replace(".image.", ".logits.")
    return tuple(np.load(image, mmap_mode="r").shape), tuple(np.load(logits, mmap_mode="r").shape)


def copy_model(folder: Path, repository: Path, configuration: str | None = None) -> None:
    """Put a model into a staging repository, by hard links where that goes, with one of its ``configs/`` if named.

    Raises
    ------
    ImportRefused
        ``configuration-missing`` if it has none of that name.
    """

    def link(source: str, target: str) -> str:
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)
        return target

    target = repository / folder.name
    shutil.copytree(folder, target, copy_function=link)
    if configuration is None:
        return
    chosen = folder / "configs" / f"{configuration}.pbtxt"
    if not chosen.is_file():
        known = sorted(path.stem for path in (folder / "configs").glob("*.pbtxt"))
        raise ImportRefused(
            f"{folder.name} has no configs/{configuration}.pbtxt; it has {', '.join(known) or 'none'}",
            code="configuration-missing",
        )
    (target / "config.pbtxt").unlink()
    shutil.copyfile(chosen, target / "config.pbtxt")


def add_figures(manifest: Path, key: str, figures: Mapping[str, Any]) -> None:
    """Write each network's figures into the manifest's ``parity``, under `key`."""
    content = json.loads(manifest.read_text(encoding="utf-8"))
    for model, values in figures.items():
        content["parity"]["networks"][model][key] = values
    manifest.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _load(folder: Path, volume: str, what: str) -> Array:
    loaded: Array = np.load(folder / f"{volume}.{what}.npy", mmap_mode="r")
    return loaded
