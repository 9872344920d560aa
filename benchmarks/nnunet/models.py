"""Makes the benchmark's networks, as nnU-Net leaves them and as Limner serves them. Runs in the exporter environment.

    python -m benchmarks.nnunet.models FOLDER small [small …]

For each model ``FOLDER/<model>/results`` is a folder of nnU-Net's and ``FOLDER/<model>/repository`` a model repository
with its package.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from app.exporters.job import Job, Part
from app.exporters.nnunet import build_network, write_onnx
from app.exporters.package import VERSION_FOLDER, Exported, write_network, write_package
from app.exporters.trained import CHECKPOINT, find_training
from app.exporters.triton_config import Served
from benchmarks.nnunet.cases import DEMO_MODEL, SCAN_MM, Model
from benchmarks.nnunet.folders import DEMO_FOLDER, MODELS, repository_of, results_of
from benchmarks.nnunet.volumes import CLIP_HU, DEVIATION_HU, MEAN_HU, phantom
from operators.nnunet.resampling import resample, resample_labels, resampled_shape

if TYPE_CHECKING:
    import torch

CONFIGURATION = "3d_fullres"
SPACING_MM = 1.5
_TRAINING_SEEDS = range(8)
_RATE = 1e-2
_RESAMPLING = "resample_data_or_seg_to_shape"
_STAMP = "made_from"
_UNET = "dynamic_network_architectures.architectures.unet.PlainConvUNet"


def main() -> None:
    """Make what the command line names and is not there yet, as many at once as there are cores."""
    cache, names = Path(sys.argv[1]), sys.argv[2:]
    missing = [name for name in names if not _is_there(cache / name)]
    with ProcessPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        for line in pool.map(_make, [cache] * len(missing), missing):
            print(line, flush=True)


def _is_there(folder: Path) -> bool:
    stamp = folder / _STAMP
    return stamp.exists() and stamp.read_text() == _origin(folder.name)


def _make(cache: Path, name: str) -> str:
    """Make one model; return what to say of it."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=cache, prefix="making-") as scratch:
        folder = Path(scratch) / name
        loss = _make_demo(folder) if name == DEMO_MODEL else make(MODELS[name], folder)
        (folder / _STAMP).write_text(_origin(name))
        shutil.rmtree(cache / name, ignore_errors=True)
        folder.rename(cache / name)
    return f"{name}: made in {time.monotonic() - started:.0f} s{loss}"


def _origin(name: str) -> str:
    """What a model is made from, as a digest: its description, and the programs that make it."""
    here = Path(__file__).parent
    sources = [(here / program).read_bytes() for program in ("models.py", "volumes.py")]
    return hashlib.sha256(b"".join([repr((MODELS.get(name), SCAN_MM)).encode(), *sources])).hexdigest()


def make(model: Model, folder: Path) -> str:
    """Train `model` and write both its folders; return what to say of the training."""
    plans, dataset = _plans(model), _dataset(model)
    import torch

    torch.manual_seed(0)
    network, channels, patch = build_network(plans, dataset, CONFIGURATION)
    loss = _train(network, model)
    network.eval()
    training = _write_results(results_of(folder), plans, dataset, network.state_dict())
    repository = repository_of(folder)
    write_onnx(network, (1, channels, *patch), repository / model.name / VERSION_FOLDER / "model.onnx")
    _write_package(model, training, folder, repository)
    return loss


def _make_demo(folder: Path) -> str:
    """The demonstration model as nnU-Net would have left it: its weights come out of the graph that is served."""
    sys.path.append(str(DEMO_FOLDER / "training"))
    from evaluate import load_onnx_weights

    plans, dataset = (json.loads((DEMO_FOLDER / name).read_text()) for name in ("plans.json", "dataset.json"))
    network, _, _ = build_network(plans, dataset, CONFIGURATION)
    load_onnx_weights(network, DEMO_FOLDER / VERSION_FOLDER / "model.onnx")
    _write_results(results_of(folder), plans, dataset, network.state_dict())
    repository = repository_of(folder)
    repository.mkdir(parents=True)
    (repository / DEMO_MODEL).symlink_to(DEMO_FOLDER)
    return ""


def _train(network: torch.nn.Module, model: Model) -> str:
    """A short training on phantoms of other seeds than are measured.

    On one thread: with more, sums would be taken in another order, and the network be another on each machine.
    """
    import torch

    if model.steps == 0:
        return ", random weights"
    torch.set_num_threads(1)
    network.to(memory_format=torch.channels_last_3d)  # a quarter faster here
    generator = np.random.default_rng(0)
    cases = [_training_case(model, seed) for seed in _TRAINING_SEEDS]
    optimiser = torch.optim.AdamW(network.parameters(), _RATE, weight_decay=0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=model.steps, pct_start=0.1)
    network.train()
    losses = []
    for step in range(model.steps):
        image, labels = cases[step % len(cases)]
        seen = _box(labels.shape, model.patch, generator)
        answers = torch.from_numpy(labels[seen].astype(np.int64))[None]
        tile = torch.from_numpy(image[seen])[None, None].to(memory_format=torch.channels_last_3d)
        logits = network(tile)
        loss = torch.nn.functional.cross_entropy(logits, answers)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
    return f", trained to a loss of {np.mean(losses[-20:]):.4f}"


def _training_case(model: Model, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """A phantom, normalised, and its labels, on the network's grid: with edges such as resampling makes them."""
    image, labels = phantom(model.scan, model.classes, seed)
    shape = resampled_shape(model.scan, SCAN_MM, (SPACING_MM,) * 3)
    return resample(_normalised(image), shape, 3, None), resample_labels(labels.astype(np.int32), shape, 1, None)


def _box(shape: tuple[int, ...], patch: int, generator: np.random.Generator) -> tuple[slice, ...]:
    """A box from anywhere, as large as a tile: of organs, or of nothing but body or air.

    Instance normalisation magnifies what little there is in a box of one density, down to rounding; a network that
    never saw such boxes is unsure of them.
    """
    starts = [int(generator.integers(0, size - patch + 1)) for size in shape]
    return tuple(slice(start, start + patch) for start in starts)


def _normalised(image: NDArray[np.int16]) -> NDArray[np.float32]:
    clipped = np.clip(image.astype(np.float32), *CLIP_HU)
    return (clipped - np.float32(MEAN_HU)) / np.float32(DEVIATION_HU)


def _write_results(results: Path, plans: dict[str, Any], dataset: dict[str, Any], weights: Any) -> Path:
    import torch

    (results / "fold_0").mkdir(parents=True)
    (results / "plans.json").write_text(json.dumps(plans))
    (results / "dataset.json").write_text(json.dumps(dataset))
    checkpoint = {
        "network_weights": weights,
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": CONFIGURATION, "fold": 0},
        "inference_allowed_mirroring_axes": None,
    }
    torch.save(checkpoint, results / "fold_0" / CHECKPOINT)
    return results


def _write_package(model: Model, results: Path, folder: Path, repository: Path) -> None:
    """The files of the package around its graph; no gate judges it, since the benchmark compares labels itself."""
    segments = folder / "segments.json"
    segments.write_text(json.dumps({"segmentAttributes": [[{"labelID": label} for label in range(1, model.classes)]]}))
    part = Part(model.name, find_training(results, configuration=CONFIGURATION), mirroring=False)
    job = Job(model.name, "1", model.name, (part,), "single", segments)
    patch = (model.patch,) * 3
    exported = Exported(
        part=part,
        served=Served(model.name, (1, *patch), (model.classes, *patch), job.max_batch_size, job.threads),
        mirroring_axes=(),
        trainers=("nnUNetTrainer",),
        checkpoints={},
        scales=(),
        figures=[],
    )
    write_network(exported, repository / model.name)
    write_package(job, [exported], repository)


def _dataset(model: Model) -> dict[str, Any]:
    return {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, **{f"organ {label}": label for label in range(1, model.classes)}},
        "numTraining": len(_TRAINING_SEEDS),
        "file_ending": ".nii.gz",
    }


def _plans(model: Model) -> dict[str, Any]:
    intensities = {
        "mean": MEAN_HU,
        "std": DEVIATION_HU,
        "percentile_00_5": CLIP_HU[0],
        "percentile_99_5": CLIP_HU[1],
        "median": MEAN_HU,
        "min": CLIP_HU[0],
        "max": CLIP_HU[1],
    }
    return {
        "dataset_name": "Dataset950_LimnerBenchmark",
        "plans_name": "nnUNetPlans",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "image_reader_writer": "SimpleITKIO",
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": intensities},
        "configurations": {CONFIGURATION: _configuration(model)},
    }


def _configuration(model: Model) -> dict[str, Any]:
    resampling = {
        key: value
        for what, order in (("data", 3), ("seg", 1), ("probabilities", 1))
        for key, value in (
            (f"resampling_fn_{what}", _RESAMPLING),
            (
                f"resampling_fn_{what}_kwargs",
                {"is_seg": what == "seg", "order": order, "order_z": 0, "force_separate_z": None},
            ),
        )
    }
    return {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [model.patch] * 3,
        "spacing": [SPACING_MM] * 3,
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "batch_dice": False,
        **resampling,
        "architecture": _architecture(model),
    }


def _architecture(model: Model) -> dict[str, Any]:
    stages = len(model.features)
    return {
        "network_class_name": _UNET,
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": list(model.features),
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * stages,
            "strides": [[1, 1, 1]] + [[2, 2, 2]] * (stages - 1),
            "n_conv_per_stage": [model.convolutions] * stages,
            "n_conv_per_stage_decoder": [model.convolutions] * (stages - 1),
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


if __name__ == "__main__":
    main()
