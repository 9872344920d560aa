"""Judge a model folder with nnU-Net's own predictor: on the held-out patient and on held-out phantoms.

    python evaluate.py --model .. --totalsegmentator-sdist totalsegmentator-2.18.0.tar.gz

The network is rebuilt from ``plans.json`` and takes its weights out of ``1/model.onnx``, so that no
checkpoint is needed and what is judged is what is served.
"""

import argparse
import contextlib
import gzip
import io
import os
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[2])]

import numpy as np  # noqa: E402
import pydicom  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from phantom import make_phantom  # noqa: E402
from torso import LIVER, MEMBER_FOLDER, SOURCE_LIVER, SOURCE_SPLEEN, SPLEEN  # noqa: E402

from app.exporters.nnunet import define_torchvision_operators  # noqa: E402

if TYPE_CHECKING:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

Spacing = tuple[float, float, float]
LabelMap = NDArray[np.uint8]
CONFIGURATION = "3d_fullres"
HELD_OUT_SEED = 7000
ORGANS = {"liver": LIVER, "spleen": SPLEEN}


@dataclass(frozen=True)
class Case:
    """One CT to judge: Hounsfield units and reference labels (z, y, x), spacing (z, y, x) in mm."""

    name: str
    image: NDArray[np.int16]
    reference: LabelMap
    spacing: Spacing


def main() -> None:
    """Print one line a case: Dice of liver and spleen, and the voxels on which onnxruntime disagrees."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=HERE.parent)
    parser.add_argument("--totalsegmentator-sdist", type=Path, required=True)
    parser.add_argument("--phantoms", type=int, default=6)
    arguments = parser.parse_args()
    os.environ.setdefault("nnUNet_def_n_proc", "2")
    torch_predictor = reference_predictor(arguments.model)
    onnx_predictor = reference_predictor(arguments.model)
    run_with_onnxruntime(onnx_predictor, arguments.model / "1" / "model.onnx")
    for case in [read_held_out(arguments.totalsegmentator_sdist), *map(phantom_case, range(arguments.phantoms))]:
        found = predict(torch_predictor, case.image, case.spacing)
        other = predict(onnx_predictor, case.image, case.spacing)
        scores = ", ".join(f"{organ} {dice(found, case.reference, label):.3f}" for organ, label in ORGANS.items())
        print(f"{case.name}: {scores}; onnxruntime differs in {int((found != other).sum())} of {found.size} voxels")


def dice(found: LabelMap, reference: LabelMap, label: int) -> float:
    """Dice coefficient of one label; 1.0 where both are empty."""
    a, b = found == label, reference == label
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def phantom_case(index: int) -> Case:
    """A phantom whose seed no training run uses."""
    image, labels, spacing = make_phantom(np.random.default_rng((HELD_OUT_SEED, index)))
    return Case(f"phantom {index}", np.rint(image).astype(np.int16), labels, spacing)


def read_held_out(sdist: Path) -> Case:
    """The 20-slice DICOM abdomen of the archive and its reference, on the voxel grid of the DICOM slices.

    z rises with the patient z of Image Position (Patient); y and x are rows and columns of the pixel
    matrix. The reference is a NIfTI file in another axis order and is turned to that grid.
    """
    with tarfile.open(sdist) as archive:
        members = [m for m in archive.getmembers() if f"{MEMBER_FOLDER}/example_ct_dicom/" in m.name and m.isfile()]
        slices = [pydicom.dcmread(io.BytesIO(extract(archive, member.name))) for member in members]
        root = members[0].name.split("/")[0]
        nifti = extract(archive, f"{root}/{MEMBER_FOLDER}/example_seg_dicom.nii.gz")
    slices.sort(key=lambda item: float(item.ImagePositionPatient[2]))
    image = np.stack([hounsfield(item) for item in slices])
    step = (float(slices[-1].ImagePositionPatient[2]) - float(slices[0].ImagePositionPatient[2])) / (len(slices) - 1)
    rows, columns = (float(value) for value in slices[0].PixelSpacing)
    return Case("held-out patient", image, reference_labels(nifti), (step, rows, columns))


def extract(archive: tarfile.TarFile, name: str) -> bytes:
    """The content of one member."""
    member = archive.extractfile(name)
    if member is None:
        raise FileNotFoundError(name)
    return member.read()


def hounsfield(item: pydicom.Dataset) -> NDArray[np.int16]:
    """The pixel matrix (y, x) of one CT slice in Hounsfield units (modality LUT, PS3.3 C.11.1)."""
    values = item.pixel_array.astype(np.float64) * float(item.RescaleSlope) + float(item.RescaleIntercept)
    return np.rint(values).astype(np.int16)


def reference_labels(nifti: bytes) -> LabelMap:
    """Liver 1 and spleen 2 from a TotalSegmentator label map, as (z, y, x) in the DICOM patient frame."""
    import nibabel

    volume = nibabel.Nifti1Image.from_bytes(gzip.decompress(nifti))
    found, wanted = nibabel.io_orientation(volume.affine), nibabel.orientations.axcodes2ornt(("L", "P", "S"))
    turn = nibabel.orientations.ornt_transform(found, wanted)
    source = np.asarray(nibabel.orientations.apply_orientation(volume.dataobj, turn)).transpose(2, 1, 0)
    labels = np.zeros(source.shape, np.uint8)
    labels[source == SOURCE_LIVER] = LIVER
    labels[source == SOURCE_SPLEEN] = SPLEEN
    return labels


def reference_predictor(model: Path) -> "nnUNetPredictor":
    """nnU-Net's predictor on the network of a Triton model folder, without mirroring, on the CPU."""
    define_torchvision_operators()
    import torch
    from batchgenerators.utilities.file_and_folder_operations import load_json
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from app.exporters.nnunet import build_network

    plans, dataset = (load_json(str(model / name)) for name in ("plans.json", "dataset.json"))
    network = build_network(plans, dataset, CONFIGURATION)[0]
    load_onnx_weights(network, model / "1" / "model.onnx")
    predictor = nnUNetPredictor(
        tile_step_size=0.5,
        use_gaussian=True,
        use_mirroring=False,
        perform_everything_on_device=False,
        device=torch.device("cpu"),
        verbose=False,
        allow_tqdm=False,
    )
    manager = PlansManager(plans)
    configuration, weights = manager.get_configuration(CONFIGURATION), [network.state_dict()]
    predictor.manual_initialization(network, manager, configuration, weights, dataset, "nnUNetTrainer", None)
    network.eval()
    return predictor


def load_onnx_weights(network: Any, path: Path) -> None:
    """Put the initializers of an exported graph back into the network they were traced from.

    The exporter keeps torch's parameter names. Only the heads of deep supervision are not in the graph.
    """
    import onnx
    import torch

    graph = onnx.load(path).graph
    weights = {item.name: torch.from_numpy(onnx.numpy_helper.to_array(item).copy()) for item in graph.initializer}
    parameters = dict(network.named_parameters())
    for name, parameter in parameters.items():
        if name in weights:
            parameter.data.copy_(weights.pop(name))
        elif "seg_layers" not in name:
            raise KeyError(f"{name} is not in {path.name}")
    if weights:
        raise KeyError(f"no parameter is named {sorted(weights)}")


def run_with_onnxruntime(predictor: "nnUNetPredictor", path: Path) -> None:
    """Let a predictor compute its patches with onnxruntime instead of torch."""
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    class OnnxNetwork(torch.nn.Module):  # type: ignore[misc]
        """Forwards one batch of patches to the exported graph."""

        def forward(self, patch: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(session.run(["logits"], {"image": patch.numpy()})[0])

    predictor.network = OnnxNetwork()
    predictor.list_of_parameters = [{}]


def predict(predictor: "nnUNetPredictor", image: NDArray[np.int16], spacing: Spacing) -> LabelMap:
    """The label map (z, y, x) of one CT (z, y, x) in Hounsfield units; ``spacing`` (z, y, x) in mm."""
    call: Callable[..., Any] = predictor.predict_single_npy_array
    with contextlib.redirect_stdout(io.StringIO()):
        found = call(image[None].astype(np.float32), {"spacing": list(spacing)}, None, None, False)
    return np.asarray(found, np.uint8)


if __name__ == "__main__":
    main()
