"""Trained nnU-Net v2 folds, as torch networks and as ONNX graphs. Runs in the exporter environment.

The graph holds the network alone, from normalised patches to their logits. Cropping, normalising, resampling, tiling
and the way back stay outside, in ``operators/nnunet``, driven by ``plans.json``.

    image   float32 (batch, channel, …patch), batch dynamic, the rest fixed to the planned patch
    logits  float32 (batch, class, …patch)
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.errors import ImportRefused
from app.exporters.checkpoints import load_restricted
from app.exporters.trained import Training

if TYPE_CHECKING:
    import torch

INPUT_NAME = "image"
OUTPUT_NAME = "logits"
OPSET = 17
"""The newest operator set that the exporter used here writes; InstanceNormalization needs no newer one."""
ARCHITECTURES = ("PlainConvUNet", "ResidualEncoderUNet")
"""Those whose layers the parity gate knows by kind; nnU-Net's own planners choose no other."""


@dataclass(frozen=True)
class Fold:
    """One trained fold."""

    network: torch.nn.Module
    """Without deep supervision, ready for inference."""
    channels: int
    """Of the input: those of the image, then one for each label of the previous stage."""
    patch: tuple[int, ...]
    mirroring_axes: tuple[int, ...]
    """Spatial axes along which nnU-Net would also look at the mirrored patch."""
    trainer: str


def load_fold(training: Training, checkpoint: Path) -> Fold:
    """Read one fold's checkpoint and put its weights into the planned network.

    Raises
    ------
    ImportRefused
        ``checkpoint-refused`` if the file asks for code to be run or is no checkpoint of nnU-Net,
        ``configuration-differs`` if another configuration was trained, ``architecture-unsupported`` if the network was
        not built from the plans.
    """
    loaded = load_restricted(checkpoint)
    where = f"{checkpoint.parent.name}/{checkpoint.name}"
    try:
        trainer, trained = str(loaded["trainer_name"]), str(loaded["init_args"]["configuration"])
        weights: Mapping[str, Any] = loaded["network_weights"]
    except (KeyError, TypeError) as error:
        raise ImportRefused(f"{where} is no checkpoint of nnU-Net v2: {error!r}", code="checkpoint-refused") from error
    if trained != training.configuration:
        raise ImportRefused(
            f"{where} was trained for {trained}, not for {training.configuration}; say --configuration {trained}",
            code="configuration-differs",
        )
    if _has_own_architecture(trainer):
        raise ImportRefused(
            f"{where} was trained by {trainer}, which builds a network of its own; only networks built from the plans "
            "can be imported",
            code="architecture-unsupported",
        )
    network, channels, patch = build_network(training.plans, training.dataset, trained)
    try:
        network.load_state_dict({name.removeprefix("module."): value for name, value in weights.items()})
    except RuntimeError as error:
        raise ImportRefused(
            f"the weights of {where} do not fit the network that plans.json describes; either the plans are of another "
            f"training, or the trainer {trainer} builds a network of its own",
            code="architecture-unsupported",
        ) from error
    network.eval()
    axes = tuple(int(axis) for axis in loaded.get("inference_allowed_mirroring_axes") or ())
    return Fold(network, channels, patch, axes, trainer)


def build_network(
    plans: dict[str, Any], dataset: dict[str, Any], configuration: str
) -> tuple[torch.nn.Module, int, tuple[int, ...]]:
    """The planned network with random weights and without deep supervision, its channels and its patch.

    Raises
    ------
    ImportRefused
        ``architecture-unsupported`` if the plans name another network than those in `ARCHITECTURES`.
    """
    define_torchvision_operators()
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(plans)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that plans before nnU-Net 2.4 say less of the network, which is known
        try:
            planned = manager.get_configuration(configuration)
        except RuntimeError as error:
            raise ImportRefused(
                f"the planned network is not supported: {error}", code="architecture-unsupported"
            ) from error
    name = planned.network_arch_class_name.rpartition(".")[2]
    if name not in ARCHITECTURES:
        raise ImportRefused(
            f"plans.json names the network {name}, and only {' and '.join(ARCHITECTURES)} can be imported",
            code="architecture-unsupported",
        )
    channels = int(determine_num_input_channels(manager, planned, dataset))
    network: torch.nn.Module = get_network_from_plans(
        planned.network_arch_class_name,
        planned.network_arch_init_kwargs,
        planned.network_arch_init_kwargs_req_import,
        channels,
        manager.get_label_manager(dataset).num_segmentation_heads,
        deep_supervision=False,
    )
    return network, channels, tuple(int(size) for size in planned.patch_size)


@functools.cache
def _trainer_classes() -> dict[str, ast.ClassDef]:
    """nnU-Net's own trainers, as they are written: reading them runs nothing and needs none of their imports."""
    spec = importlib.util.find_spec("nnunetv2")
    folder = Path(next(iter(spec.submodule_search_locations or ()))) if spec else Path()
    files = (folder / "training" / "nnUNetTrainer").rglob("*.py")
    return {
        node.name: node
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    }


def _has_own_architecture(trainer: str) -> bool:
    """Whether a trainer of nnU-Net, or one it is made from, overrides how the network is built."""
    found = _trainer_classes().get(trainer)
    if found is None or trainer == "nnUNetTrainer":
        return False  # a trainer of the site's own: whether its network is the planned one, its weights tell
    if any(isinstance(part, ast.FunctionDef) and part.name == "build_network_architecture" for part in found.body):
        return True
    return any(isinstance(base, ast.Name) and _has_own_architecture(base.id) for base in found.bases)


@functools.cache
def define_torchvision_operators() -> list[torch.library.Library]:
    """Declare the two operators without which a CUDA build of torchvision cannot be imported on a CPU torch.

    nnU-Net's network package imports timm, timm imports torchvision, and there is no CPU build of
    torchvision in the public index. None of its compiled operators is ever called here. The returned
    library must stay alive, which the cache sees to; an empty list means that torchvision is whole.
    """
    import torch

    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError):
        library: torch.library.Library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return [library]
    return []


def write_onnx(network: torch.nn.Module, shape: tuple[int, ...], target: Path, opset: int = OPSET) -> None:
    """Trace `network` on one patch of `shape` (batch, channel, …) and write it with a dynamic first axis."""
    import torch

    target.parent.mkdir(parents=True, exist_ok=True)
    with quiet_exporter():
        torch.onnx.export(
            network,
            (torch.zeros(shape),),
            str(target),
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_axes={INPUT_NAME: {0: "batch"}, OUTPUT_NAME: {0: "batch"}},
            opset_version=opset,
            dynamo=False,
        )


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Silence three notices of the exporter.

    That it is the older of two; that it finds instance normalisation in training mode, which has no running statistics
    here, so both modes are one; that checks of shapes are not traced, which is as it should be for a fixed patch.
    """
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", message="ONNX export mode is set to TrainingMode.EVAL")
        yield
