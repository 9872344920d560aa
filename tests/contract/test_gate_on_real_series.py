"""The gate lets real series pass without a word: an abdominal CT, a torso CT and an MR; others it refuses.

The torso and the MR come from the same pinned archive as the abdominal CT, as NIfTI; they are made DICOM series here.
"""

from __future__ import annotations

import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage

from abdominal_ct import download
from operators.errors import SeriesRefused
from operators.gate.gate import Gate
from operators.gate.intended_use import Bounds, IntendedUse
from operators.gate.policies import GatePolicies
from operators.model_package import ModelPackage
from operators.nnunet.fingerprint import intensity_ranges
from operators.series_volume import read_series
from tests.phantom import Edit, Phantom

MODEL = Path(__file__).resolve().parents[2] / "triton_models" / "nnunet_liver_spleen_demo"
_NAMES = {"CT": "example_ct.nii.gz", "MR": "example_mr_sm.nii.gz"}
MR_CARD = IntendedUse(modality=("MR",), orientation=("axial",), slice_count=Bounds(10, 200))


@pytest.fixture(scope="module")
def demonstration() -> Gate:
    """The gate of the demonstration model with the default policies."""
    package = ModelPackage.load(MODEL)
    return Gate(intended=package.intended_use, ranges=intensity_ranges(package))


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """The files of the torso CT and of the MR, by their modality."""
    folder = tmp_path_factory.mktemp("real")
    with tarfile.open(download(folder)) as archive:
        for member in archive.getmembers():
            name = Path(member.name).name
            if name in _NAMES.values() and member.name.endswith(f"reference_files/{name}"):
                content = archive.extractfile(member)
                assert content is not None
                (folder / name).write_bytes(content.read())
    return {modality: _write(folder / name, folder / modality, modality) for modality, name in _NAMES.items()}


def _write(nifti: Path, folder: Path, modality: str) -> list[Path]:
    image = SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(nifti), SimpleITK.sitkFloat64), "LPS")
    voxels = SimpleITK.GetArrayFromImage(image)
    column_spacing, row_spacing, slice_spacing = image.GetSpacing()
    slices, rows, columns = voxels.shape
    phantom = Phantom(
        slices=slices,
        rows=rows,
        columns=columns,
        row_spacing=row_spacing,
        column_spacing=column_spacing,
        slice_spacing=slice_spacing,
        origin=image.GetOrigin(),
    )
    return phantom.write(folder, edit=_showing(voxels, modality))


def _showing(voxels: np.ndarray[tuple[int, ...], np.dtype[np.float64]], modality: str) -> Edit:
    """The real voxels in place of the phantom's; an MR's are stored without rescaling."""

    def edit(index: int, dataset: Dataset) -> Dataset:
        stored = voxels[index]
        if modality == "MR":
            dataset.Modality = "MR"
            dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
            for keyword in ("RescaleSlope", "RescaleIntercept", "RescaleType", "KVP"):
                delattr(dataset, keyword)
        else:
            stored = stored + 1024
        dataset.PixelData = np.rint(stored).astype(np.int16).tobytes()
        return dataset

    return edit


def test_the_abdominal_ct_passes_the_demonstration_models_gate_without_a_word(
    abdominal_ct: list[Path], demonstration: Gate
) -> None:
    series = read_series(abdominal_ct, gate=demonstration)
    assert (series.notes, series.dropped) == ((), {})


def test_the_torso_is_refused_for_its_pixels_alone(real: dict[str, list[Path]], demonstration: Gate) -> None:
    with pytest.raises(SeriesRefused, match=r"0\.4 to 2\.7 mm, and this series has 3 x 3 mm") as caught:
        read_series(real["CT"], gate=demonstration)
    assert caught.value.code == "wrong-pixel-spacing"
    wider = replace(demonstration, intended=replace(demonstration.intended, pixel_spacing_mm=Bounds(0.4, 3)))
    assert read_series(real["CT"], gate=wider).notes == ()


@pytest.mark.parametrize("gate", [Gate(), Gate(MR_CARD), Gate(MR_CARD, ranges=(None,))])
def test_the_mr_passes_without_a_word(real: dict[str, list[Path]], gate: Gate) -> None:
    assert read_series(real["MR"], gate=gate).notes == ()


def test_a_model_for_ct_refuses_the_mr_and_sees_it_in_the_values_too(
    real: dict[str, list[Path]], demonstration: Gate
) -> None:
    with pytest.raises(SeriesRefused, match="for CT, and this series is MR") as caught:
        read_series(real["MR"], gate=demonstration)
    assert caught.value.code == "wrong-modality"
    blind = replace(demonstration, intended=IntendedUse())
    (note,) = read_series(real["MR"], gate=blind).notes
    assert note.code == "intensity-far"
    with pytest.raises(SeriesRefused):
        read_series(real["MR"], gate=replace(blind, policies=GatePolicies({"intensity-far": "refuse"})))
