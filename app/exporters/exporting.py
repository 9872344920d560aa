"""From trained folds to a model package on disk, each network found to compute what was trained. No Triton is needed.

`export_package` is the plain function behind `limner models import nnunet`; it runs in the exporter environment.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from app.errors import ImportRefused
from app.exporters.gate import Heads, judge_fold, judge_graph, torch_logits
from app.exporters.job import Job, Part
from app.exporters.nnunet import Fold, load_fold, write_onnx
from app.exporters.onnx_graphs import join_folds
from app.exporters.package import VERSION_FOLDER, Exported, write_network, write_package
from app.exporters.parity import LABELS_SCALE, Array, Comparison, Scale, fixed_volumes, scale_of
from app.exporters.trained import Training
from app.exporters.triton_config import Served
from operators.label_scheme import read_label_scheme
from operators.model_folder import file_digest
from operators.model_package import channel_names

GRAPH = "model.onnx"

Progress = Callable[[str], None]


def export_package(
    job: Job, repository: Path, *, progress: Progress = lambda _line: None, gate_folder: Path | None = None
) -> None:
    """Write the model package of `job` into `repository`, one folder for each of its networks.

    Parameters
    ----------
    repository
        Made if missing; the folders that are written must not be there.
    progress
        Told, line by line, what is being done.
    gate_folder
        Where the fixed volumes and torch's logits of them are kept for a later comparison:
        ``<model>/<volume>.image.npy`` (channel, …patch) and ``<model>/<volume>.logits.npy`` (class, …patch), float32.

    Raises
    ------
    ImportRefused
        If a checkpoint, a plan or the parity gate speaks against it; what was written by then is of no use.
    """
    exported = [export_part(part, job, repository / part.model, progress, gate_folder) for part in job.parts]
    write_package(job, exported, repository)


def export_part(part: Part, job: Job, folder: Path, progress: Progress, gate_folder: Path | None) -> Exported:
    """Write the Triton model of one network into `folder`."""
    training = part.training
    heads = Heads.of(training.dataset, len(channel_names(training.dataset)))
    scales = _scales(training)
    volumes = fixed_volumes(scales, training.planned["patch_size"])
    folds: list[Fold] = []
    with _kept(gate_folder, part.model) as kept, tempfile.TemporaryDirectory(prefix="limner-export-") as scratch:
        graphs, sums = [], _Sums(kept, volumes)
        for fold, checkpoint in zip(training.folds, training.checkpoints, strict=True):
            progress(f"{part.model}: fold {fold} is read and exported")
            loaded = load_fold(training, checkpoint)
            graphs.append(Path(scratch) / f"fold_{fold}" / GRAPH)
            write_onnx(loaded.network, (1, loaded.channels, *loaded.patch), graphs[-1], job.opset)
            progress(f"{part.model}: fold {fold} is compared with torch")
            expected = {name: torch_logits(loaded.network, volume) for name, volume in volumes.items()}
            judge_fold(f"fold {fold} of {part.model}", loaded.network, graphs[-1], volumes, expected, heads)
            sums.add(expected)
            folds.append(_without_network(loaded))
        target = folder / VERSION_FOLDER / GRAPH
        _join(graphs, target)
        progress(f"{part.model}: the graph that will be served is compared with torch")
        comparison = judge_graph(part.model, target, volumes, sums.means(len(folds)), heads)
    exported = _exported(part, job, folds, len(heads.classes), scales, comparison)
    write_network(exported, folder)
    return exported


@contextmanager
def _kept(gate_folder: Path | None, model: str) -> Iterator[Path]:
    """The folder for volumes and logits: a lasting one, or one for the moment."""
    if gate_folder is not None:
        (gate_folder / model).mkdir(parents=True)
        yield gate_folder / model
        return
    with tempfile.TemporaryDirectory(prefix="limner-gate-") as scratch:
        yield Path(scratch)


class _Sums:
    """torch's logits of each volume, added up fold by fold; on disk, since those of a large network fill the memory."""

    def __init__(self, folder: Path, volumes: Mapping[str, Array]) -> None:
        self._folder = folder
        self._sums: dict[str, Array] = {}
        for name, volume in volumes.items():
            np.save(folder / f"{name}.image.npy", volume)

    def add(self, logits: Mapping[str, Array]) -> None:
        """Take in one fold's."""
        for name, value in logits.items():
            if name not in self._sums:
                path = self._folder / f"{name}.logits.npy"
                self._sums[name] = np.lib.format.open_memmap(path, "w+", np.float32, value.shape)
            self._sums[name] += value

    def means(self, folds: int) -> Mapping[str, Array]:
        """Return the mean of the folds."""
        for value in self._sums.values():
            value /= np.float32(folds)
            value.flush()  # type: ignore[attr-defined]
        return self._sums


def _without_network(fold: Fold) -> Fold:
    """What is remembered of a fold: not its weights."""
    import torch

    return Fold(torch.nn.Identity(), fold.channels, fold.patch, fold.mirroring_axes, fold.trainer)


def _scales(training: Training) -> tuple[Scale, ...]:
    """The scale of each input channel."""
    plans, planned = training.plans, training.planned
    intensities: Mapping[str, Any] = plans.get("foreground_intensity_properties_per_channel") or plans.get(
        "foreground_intensity_properties_by_modality", {}
    )
    images = [
        scale_of(str(name), intensities.get(str(number), {}))
        for number, name in enumerate(planned["normalization_schemes"])
    ]
    seen = read_label_scheme(training.dataset).foreground if planned.get("previous_stage") else ()
    return (*images, *[LABELS_SCALE] * len(seen))


def _join(graphs: list[Path], target: Path) -> None:
    if len(graphs) > 1:
        join_folds(graphs, target)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    for file in graphs[0].parent.iterdir():
        shutil.copyfile(file, target.parent / file.name)


def _exported(
    part: Part, job: Job, folds: Sequence[Fold], classes: int, scales: tuple[Scale, ...], comparison: Comparison
) -> Exported:
    axes = {fold.mirroring_axes if part.mirroring else () for fold in folds}
    if len(axes) > 1:
        raise ImportRefused(
            f"the folds of {part.training.folder.name} were trained with different mirroring ({sorted(axes)}); import "
            "folds of one kind with --folds, or leave mirroring out with --no-mirroring",
            code="folds-differ",
        )
    shape = folds[0].patch
    return Exported(
        part=part,
        served=Served(part.model, (folds[0].channels, *shape), (classes, *shape), job.max_batch_size, job.threads),
        mirroring_axes=axes.pop(),
        trainers=tuple(dict.fromkeys(fold.trainer for fold in folds)),
        checkpoints={
            str(path.relative_to(part.training.folder.parent)): file_digest(path) for path in part.training.checkpoints
        },
        scales=scales,
        figures=comparison.as_json(),
    )
