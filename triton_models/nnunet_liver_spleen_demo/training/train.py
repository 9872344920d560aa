"""Train the liver and spleen demonstration model from public data, start to end, on a CPU.

    python train.py --work DIR --totalsegmentator-sdist totalsegmentator-2.18.0.tar.gz

Needs the exporter environment (``requirements/exporter.txt``). Makes the data set, lets nnU-Net take its
fingerprint, plan and preprocess, trains, exports to ONNX and writes the files of the Triton model folder
to ``DIR/models``. Nothing outside ``DIR`` is changed.
"""

import argparse
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[2])]

from app.exporters.exporting import export_package  # noqa: E402
from app.exporters.job import Job, Part  # noqa: E402
from app.exporters.nnunet import define_torchvision_operators  # noqa: E402
from app.exporters.trained import find_training  # noqa: E402

define_torchvision_operators()  # here, since nnU-Net's spawned workers import this module first

import numpy as np  # noqa: E402
import SimpleITK  # noqa: E402
from phantom import make_phantom  # noqa: E402
from torso import SPACING_MM, Image, Labels, Torso, make_copy, read_torso  # noqa: E402

DATASET_ID = 931
DATASET = f"Dataset{DATASET_ID}_LimnerLiverSpleen"
CONFIGURATION = "3d_fullres"
TRAINER = "nnUNetTrainerLimnerDemo"
PATCH = [16, 128, 128]
FEATURES = [8, 16, 32, 48, 64]
STRIDES = [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2]]
KERNELS = [[1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]]
BATCH = 2
SEED = 20


def main() -> None:
    """Run every step and print where the model folder is."""
    arguments = parse_arguments()
    work: Path = arguments.work.resolve()
    point_nnunet_at(work, arguments.threads)
    started = time.monotonic()
    if not arguments.resume:
        make_dataset(work, arguments.totalsegmentator_sdist, (arguments.copies, arguments.phantoms), arguments.threads)
        plan_and_preprocess(work, arguments.threads)
    print(f"data ready after {time.monotonic() - started:.0f} s")
    results = train(arguments.epochs, arguments.threads, arguments.resume)
    print(f"trained after {time.monotonic() - started:.0f} s")
    print(write_model(results, work))


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="scratch folder, about 2 GB")
    parser.add_argument("--totalsegmentator-sdist", type=Path, required=True, help="source archive of 2.18.0")
    parser.add_argument("--copies", type=int, default=240, help="deformed copies of the torso")
    parser.add_argument("--phantoms", type=int, default=24, help="geometric phantoms")
    parser.add_argument("--epochs", type=int, default=23, help="epochs of 100 iterations")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint of this work folder")
    return parser.parse_args()


def point_nnunet_at(work: Path, threads: int) -> None:
    """Set nnU-Net's environment: its three folders, where the trainer lies, and how it uses the CPU."""
    environment = {"extTrainer": str(HERE / "trainer"), "compile": "f", "n_proc_DA": "1", "def_n_proc": str(threads)}
    for name in ("raw", "preprocessed", "results"):
        (work / name).mkdir(parents=True, exist_ok=True)
        environment[name] = str(work / name)
    os.environ.update({f"nnUNet_{name}": value for name, value in environment.items()})


def make_dataset(work: Path, sdist: Path, counts: tuple[int, int], processes: int) -> None:
    """Write the raw nnU-Net data set: so many deformed copies of the torso, then so many phantoms."""
    folder = work / "raw" / DATASET
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    torso = read_torso(sdist, work)
    copies, phantoms = counts
    with ProcessPoolExecutor(processes) as pool:
        list(pool.map(write_copy, repeat(folder), repeat(torso), range(copies)))
        list(pool.map(write_phantom, repeat(folder), range(phantoms)))
    description = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "liver": 1, "spleen": 2},
        "numTraining": copies + phantoms,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description, indent=4))


def write_copy(folder: Path, torso: Torso, index: int) -> None:
    """One deformed copy of the torso; the index alone decides how it looks."""
    image, labels = make_copy(torso, np.random.default_rng((SEED, 0, index)))
    write_case(folder, f"torso_{index:03d}", image, labels, SPACING_MM)


def write_phantom(folder: Path, index: int) -> None:
    """One phantom; the index alone decides how it looks."""
    write_case(folder, f"phantom_{index:03d}", *make_phantom(np.random.default_rng((SEED, 1, index))))


def write_case(folder: Path, name: str, image: Image, labels: Labels, spacing: tuple[float, float, float]) -> None:
    """One case as two NIfTI files; arrays and ``spacing`` (mm) are (z, y, x)."""
    for array, path in (
        (np.rint(image).astype(np.int16), folder / "imagesTr" / f"{name}_0000.nii.gz"),
        (labels, folder / "labelsTr" / f"{name}.nii.gz"),
    ):
        picture = SimpleITK.GetImageFromArray(array)
        picture.SetSpacing(spacing[::-1])
        SimpleITK.WriteImage(picture, str(path), True, 1)


def plan_and_preprocess(work: Path, processes: int) -> None:
    """nnU-Net's own fingerprint, plan and preprocessing, with the planned network made small in between."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprints,
        plan_experiments,
        preprocess,
    )

    extract_fingerprints([DATASET_ID], num_processes=processes, clean=True, show_progress_bar=False)
    plan_experiments([DATASET_ID], gpu_memory_target_in_gb=1, overwrite_target_spacing=SPACING_MM)
    path = work / "preprocessed" / DATASET / "nnUNetPlans.json"
    plans = json.loads(path.read_text())
    shrink(plans["configurations"][CONFIGURATION])
    path.write_text(json.dumps(plans, indent=4))
    preprocess([DATASET_ID], configurations=(CONFIGURATION,), num_processes=(processes,), show_progress_bar=False)


def shrink(configuration: dict[str, Any]) -> None:
    """Replace patch, batch and network of a planned configuration, in place, by ones a CPU can train."""
    configuration["patch_size"] = PATCH
    configuration["batch_size"] = BATCH
    network = configuration["architecture"]["arch_kwargs"]
    network["n_stages"] = len(FEATURES)
    network["features_per_stage"] = FEATURES
    network["strides"] = STRIDES
    network["kernel_sizes"] = KERNELS
    network["n_conv_per_stage"] = [2] * len(FEATURES)
    network["n_conv_per_stage_decoder"] = [1] * (len(FEATURES) - 1)


def train(epochs: int, threads: int, resume: bool) -> Path:
    """Train one network on all cases and return nnU-Net's result folder of it."""
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args

    os.environ.update(nnUNet_n_proc_DA="0")  # the batches are made in this process
    torch.set_num_threads(threads)
    torch.manual_seed(SEED)
    np.random.seed(SEED)
    trainer = get_trainer_from_args(str(DATASET_ID), CONFIGURATION, "all", TRAINER, device=torch.device("cpu"))
    trainer.num_epochs = epochs
    if resume:
        trainer.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
    trainer.run_training()
    return Path(trainer.output_folder_base)


def write_model(results: Path, work: Path) -> Path:
    """Export the network, compared with torch, into a model folder under ``work/models``, and return that."""
    name = HERE.parent.name
    job = Job(
        name=name,
        version="1.0.0",
        algorithm_name="Limner liver and spleen demonstration",
        parts=(Part(name, find_training(results, folds=["all"])),),
        combination="single",
        segments=HERE.parent / "segments.json",
    )
    export_package(job, work / "models", progress=print)
    return work / "models" / name


if __name__ == "__main__":
    main()
