"""Export of one trained nnU-Net v2 fold to ONNX.

The graph holds the network alone, from one normalised patch to its logits. Cropping, normalising,
resampling, tiling and the way back stay outside, in ``operators/nnunet``, driven by ``plans.json``.

    image   float32 (batch, channel, z, y, x), batch dynamic, the rest fixed to the planned patch
    logits  float32 (batch, class, z, y, x)
"""

import functools
import hashlib
import importlib
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

INPUT_NAME = "image"
OUTPUT_NAME = "logits"
CHECKPOINT_NAME = "checkpoint_final.pth"
MOST_DIFFERENCE = 1e-3


class ExportError(RuntimeError):
    """The fold cannot be exported, or what was exported does not compute what torch computes."""


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how far onnxruntime strays from torch on random patches.

    ``patch_size`` is (z, y, x) in voxels. ``largest_difference`` is the largest absolute difference of
    two logits and ``disagreeing_share`` the share of voxels whose arg-max differs.
    """

    target: Path
    opset: int
    size_bytes: int
    sha256: str
    parameters: int
    configuration: str
    input_channels: int
    classes: int
    patch_size: tuple[int, ...]
    mirroring_axes: tuple[int, ...]
    largest_difference: float
    disagreeing_share: float


def export_fold(model_folder: Path, fold: str, target: Path, opset: int = 17) -> ExportReport:
    """Write the network of ``model_folder/fold_<fold>`` to ``target`` and compare the two.

    ``model_folder`` is what nnU-Net leaves behind: ``plans.json``, ``dataset.json`` and a folder a fold.
    The network is built from the plans, so a trainer with an architecture of its own is refused.

    Raises
    ------
    ExportError
        The weights do not fit the planned network, or onnxruntime disagrees with torch.
    """
    checkpoint = load_checkpoint(model_folder / f"fold_{fold}" / CHECKPOINT_NAME)
    plans = json.loads((model_folder / "plans.json").read_text())
    dataset = json.loads((model_folder / "dataset.json").read_text())
    configuration = str(checkpoint["init_args"]["configuration"])
    network, channels, patch_size = build_network(plans, dataset, configuration)
    try:
        network.load_state_dict(checkpoint["network_weights"])
    except RuntimeError as error:
        raise ExportError(f"the weights of fold {fold} do not fit the planned network") from error
    network.eval()
    write_onnx(network, (1, channels, *patch_size), target, opset)
    classes, difference, share = compare(network, target, (channels, *patch_size))
    if difference > MOST_DIFFERENCE:
        raise ExportError(f"onnxruntime differs from torch by {difference:.2g}")
    content = target.read_bytes()
    return ExportReport(
        target=target,
        opset=opset,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        configuration=configuration,
        input_channels=channels,
        classes=classes,
        patch_size=patch_size,
        mirroring_axes=tuple(checkpoint.get("inference_allowed_mirroring_axes") or ()),
        largest_difference=difference,
        disagreeing_share=share,
    )


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read an nnU-Net checkpoint without letting it run code.

    nnU-Net itself reads its checkpoints with ``weights_only=False``, since they hold numpy scalars beside
    the weights (the logged losses), and such a file may execute anything while it is unpickled. Here the
    restricted unpickler is kept and only those numpy types are added to what it may build.

    Raises
    ------
    pickle.UnpicklingError
        The file asks for any other type.
    """
    import torch

    with torch.serialization.safe_globals(numpy_scalar_types()):
        loaded: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return loaded


def numpy_scalar_types() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """The constructors behind a pickled numpy scalar, under the module names of numpy 1 and 2."""
    rebuild: Any = np.float64(0).__reduce__()[0]
    kinds = [type(np.dtype(name)) for name in ("float16", "float32", "float64", "int32", "int64", "bool")]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    return [np.dtype, *kinds, *((rebuild, name) for name in names)]


def build_network(
    plans: dict[str, Any], dataset: dict[str, Any], configuration: str
) -> tuple["torch.nn.Module", int, tuple[int, ...]]:
    """The planned network with random weights and without deep supervision, its channels and its patch."""
    define_torchvision_operators()
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(plans)
    planned = manager.get_configuration(configuration)
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
def define_torchvision_operators() -> list["torch.library.Library"]:
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


def write_onnx(network: "torch.nn.Module", shape: tuple[int, ...], target: Path, opset: int) -> None:
    """Trace ``network`` on one random patch of ``shape`` and write it with a dynamic first axis."""
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
    """Silence two notices of the exporter.

    That it is the older of two, and that it finds instance normalisation in training mode: this network's
    has no running statistics, so both modes are one.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", message="ONNX export mode is set to TrainingMode.EVAL")
        yield


def compare(network: "torch.nn.Module", target: Path, shape: tuple[int, ...]) -> tuple[int, float, float]:
    """Classes, largest difference of two logits, share of voxels with another arg-max: batches of 1 and 3."""
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(0)
    differences, shares, classes = [], [], 0
    for batch in (1, 3):
        patch: NDArray[np.float32] = generator.standard_normal((batch, *shape), np.float32)
        with torch.inference_mode():
            expected = network(torch.from_numpy(patch)).numpy()
        found = session.run([OUTPUT_NAME], {INPUT_NAME: patch})[0]
        if found.shape != expected.shape:
            raise ExportError(f"onnxruntime answers {found.shape}, torch {expected.shape}")
        classes = int(found.shape[1])
        differences.append(float(np.abs(found - expected).max()))
        shares.append(float((found.argmax(1) != expected.argmax(1)).mean()))
    return classes, max(differences), max(shares)
