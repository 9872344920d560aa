"""An even stack of two images is found by what its headers say; what one acquisition or a scan in pieces has is not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydicom.dataset import Dataset

from operators.gate.acquisitions import mixed_acquisitions
from tests.gate_fixture import headers_of
from tests.phantom import ORIENTATIONS, Edit, Phantom, at

PHANTOM = Phantom(slices=12)


def _alternating(keyword: str, *values: object) -> Edit:
    def edit(index: int, dataset: Dataset) -> Dataset:
        setattr(dataset, keyword, values[index % len(values)])
        return dataset

    return edit


def _numbered(*numbers: int, modality: str = "CT") -> Edit:
    def edit(index: int, dataset: Dataset) -> Dataset:
        dataset.AcquisitionNumber, dataset.Modality = numbers[index], modality
        return dataset

    return edit


def _found(edit: Edit | None, phantom: Phantom = PHANTOM) -> list[str]:
    found = list(mixed_acquisitions(headers_of(phantom, edit)))
    assert all(code == "mixed-acquisition" for code, _ in found)
    return [message for _, message in found]


@pytest.mark.parametrize(
    ("keyword", "values", "words"),
    [
        ("EchoTime", ("10", "80"), "EchoTime (10, 80)"),
        ("EffectiveEchoTime", (4.6, 2.3), "EffectiveEchoTime (2.3, 4.6)"),
        ("InversionTime", ("0", "2500"), "InversionTime (0, 2500)"),
        ("FlipAngle", ("15", "30"), "FlipAngle (15, 30)"),
        ("DiffusionBValue", (0.0, 1000.0), "DiffusionBValue (0.0, 1000.0)"),
        ("KVP", ("80", "140"), "KVP (80, 140)"),
        ("EchoNumbers", (1, 2), "EchoNumbers (1, 2)"),
        ("ConvolutionKernel", ("Br36", "Bl64"), "ConvolutionKernel"),
        ("ConvolutionKernel", (["Br36", "3"], ["Br36", "4"]), "ConvolutionKernel"),
        ("ComplexImageComponent", ("MAGNITUDE", "PHASE"), "ComplexImageComponent"),
        ("ImageType", (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"]), "ImageType"),
        (
            "FrameType",
            (["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], ["ORIGINAL", "PRIMARY", "ANGIO", "NONE"]),
            "FrameType",
        ),
    ],
)
def test_two_images_in_turns(keyword: str, values: tuple[object, ...], words: str) -> None:
    (message,) = _found(_alternating(keyword, *values))
    assert f"which differ in {words}" in message


def test_one_slice_of_another_image_is_enough() -> None:
    assert len(_found(at(5, KVP="80"))) == 1


@pytest.mark.parametrize(
    "edit",
    [
        None,
        _alternating("EchoTime", "10", "10.05", "9.95"),
        _alternating("KVP", "120", "120.0", "121"),
        _alternating("EchoTime", "10", ""),
        _alternating("ConvolutionKernel", "Br36", None),
        _alternating("ImageType", ["ORIGINAL", "PRIMARY", "AXIAL"], ["DERIVED", "PRIMARY", "AXIAL"]),
        _alternating("ImageType", ["ORIGINAL", "PRIMARY"], ["ORIGINAL", "PRIMARY", "AXIAL"]),
        _alternating("TriggerTime", "10", "20"),
        _alternating("AcquisitionTime", "101400", "101401"),
    ],
)
def test_what_one_acquisition_may_differ_in(edit: Edit | None) -> None:
    assert _found(edit) == []


@pytest.mark.parametrize("name", sorted(ORIENTATIONS))
@pytest.mark.parametrize("against_normal", [False, True])
def test_acquisitions_of_a_ct_in_turns(name: str, against_normal: bool) -> None:
    phantom = replace(PHANTOM, orientation=ORIENTATIONS[name], against_normal=against_normal)
    (message,) = _found(_numbered(*(1, 2) * 6), phantom)
    assert "lie between each other (AcquisitionNumber (1, 2))" in message


@pytest.mark.parametrize(
    "edit",
    [
        _numbered(*[1] * 5, *[2] * 7),
        _numbered(*range(1, 13)),
        _numbered(*[1] * 4, 3, *[1] * 3, *[2] * 4),  # a slice that was scanned again
        _numbered(*(1, 2) * 6, modality="MR"),
        at(3, AcquisitionNumber=None),
    ],
)
def test_acquisitions_that_may_make_one_stack(edit: Edit) -> None:
    assert _found(edit) == []
