"""Series through the gate and the reader together: what comes out is the clean series, or a refusal with its code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from operators.errors import SeriesRefused
from operators.gate.gate import Gate
from operators.gate.intended_use import Bounds, IntendedUse
from operators.gate.intensity import IntensityRange
from operators.gate.policies import GatePolicies, Policy
from operators.series_volume import SeriesVolume, read_channels, read_series
from tests.gate_fixture import later_phase, localizer, renamed, secondary_capture, write_beside
from tests.phantom import CORONAL, ORIENTATIONS, Edit, Phantom, setting

PHANTOM = Phantom(slices=5, row_spacing=0.9, column_spacing=0.6)


def _again(phantom: Phantom) -> list[Dataset]:
    return [renamed(phantom.dataset(index), "again", index) for index in range(phantom.slices)]


def _late(phantom: Phantom) -> list[Dataset]:
    return [later_phase(phantom, index) for index in range(phantom.slices)]


def _read(folder: Path, beside: list[Dataset], gate: Gate = Gate(), phantom: Phantom = PHANTOM) -> SeriesVolume:  # noqa: B008
    return read_series(phantom.write(folder) + write_beside(folder, beside), gate=gate)


def _refused(folder: Path, beside: list[Dataset], gate: Gate) -> SeriesRefused:
    with pytest.raises(SeriesRefused) as caught:
        _read(folder, beside, gate)
    return caught.value


def _policies(**chosen: Policy) -> Gate:
    return Gate(policies=GatePolicies({code.replace("_", "-"): policy for code, policy in chosen.items()}))


@settings(max_examples=25)
@given(
    orientation=st.sampled_from(sorted(ORIENTATIONS)),
    against_normal=st.booleans(),
    named=st.booleans(),
    repeated=st.sets(st.integers(0, 4)),
    captured=st.booleans(),
    order=st.randoms(use_true_random=False),
)
def test_whatever_got_in_the_volume_is_that_of_the_clean_series(
    tmp_path_factory: pytest.TempPathFactory,
    orientation: str,
    against_normal: bool,
    named: bool,
    repeated: set[int],
    captured: bool,
    order: Any,
) -> None:
    phantom = replace(PHANTOM, orientation=ORIENTATIONS[orientation], against_normal=against_normal)
    folder = tmp_path_factory.mktemp("gate")
    clean = phantom.write(folder / "clean")
    beside = [localizer(phantom, named=named), *(_again(phantom)[index] for index in repeated)]
    beside += [secondary_capture(phantom)] if captured else []
    files = clean + write_beside(folder, beside)
    order.shuffle(files)
    series, expected = read_series(files), read_series(clean)
    assert np.array_equal(series.volume.array, expected.volume.array)
    assert np.array_equal(series.volume.affine, expected.volume.affine)
    codes = ["secondary-capture"] * captured + ["localizer"] + ["duplicate-slice"] * bool(repeated)
    assert [(note.code, note.policy) for note in series.notes] == [(code, "repair") for code in codes]
    everything = {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in files}
    assert set(series.dropped) == everything - {str(header.SOPInstanceUID) for header in series.datasets}
    assert len(series.dropped) == len(beside)


def test_a_clean_series_has_no_note(tmp_path: Path) -> None:
    series = _read(tmp_path, [])
    assert (series.notes, series.dropped) == ((), {})


@pytest.mark.parametrize(
    ("code", "beside"),
    [
        ("secondary-capture", [secondary_capture(PHANTOM)]),
        ("localizer", [localizer(PHANTOM)]),
        ("duplicate-slice", _again(PHANTOM)[1:3]),
    ],
)
def test_what_is_repaired_by_default_can_be_refused(code: str, beside: list[Dataset], tmp_path: Path) -> None:
    assert _refused(tmp_path, beside, Gate(policies=GatePolicies({code: "refuse"}))).code == code


def test_localizers_alone_are_refused_whatever_the_policy(tmp_path: Path) -> None:
    edit = setting(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    with pytest.raises(SeriesRefused) as caught:
        read_series(PHANTOM.write(tmp_path, edit=edit))
    assert caught.value.code == "localizer"
    assert str(caught.value) == "5 of 5 images are localizers; slices are expected"


def test_secondary_captures_alone_are_no_image_that_can_be_used(tmp_path: Path) -> None:
    with pytest.raises(SeriesRefused) as caught:
        read_series(write_beside(tmp_path, [secondary_capture(PHANTOM)]))
    assert caught.value.code == "sop-class-unsupported"


def test_several_phases_are_refused_with_what_tells_them_apart(tmp_path: Path) -> None:
    refused = _refused(tmp_path, _late(PHANTOM), Gate())
    assert refused.code == "duplicate-position"
    assert "got 5 more at positions already taken" in str(refused)
    assert "AcquisitionNumber (1, 2), AcquisitionTime" in str(refused)
    assert "10150" not in str(refused)


@pytest.mark.parametrize(("number", "higher"), [(1, 0.0), (2, 100.0)])
def test_the_phase_that_the_pipeline_names_is_taken(number: int, higher: float, tmp_path: Path) -> None:
    alone = read_series(PHANTOM.write(tmp_path / "alone")).volume.array
    series = _read(tmp_path, [*_late(PHANTOM), localizer(PHANTOM)], Gate(take={"AcquisitionNumber": number}))
    assert np.array_equal(series.volume.array, alone + higher)
    assert [note.message for note in series.notes] == [
        "1 of 11 images are localizers",
        f"took the 5 of 10 images with AcquisitionNumber {number}",
    ]
    assert len(series.dropped) == 6


def test_a_phase_that_no_image_is_of_is_refused(tmp_path: Path) -> None:
    refused = _refused(tmp_path, [], Gate(take={"AcquisitionNumber": 7}))
    assert refused.code == "phase-missing"
    assert "AcquisitionNumber 7" in str(refused)


def test_a_phase_with_a_gap_is_refused_for_the_gap(tmp_path: Path) -> None:
    late = _late(PHANTOM)
    del late[2]
    assert _refused(tmp_path, late, Gate(take={"AcquisitionNumber": 2})).code == "slice-missing"


def test_another_patients_slice_is_refused_before_anything_is_left_out(tmp_path: Path) -> None:
    stray = localizer(PHANTOM)
    stray.PatientID = "SOMEBODY-ELSE"
    assert _refused(tmp_path, [stray], Gate()).code == "mixed-patient"


def test_a_slice_that_is_twice_and_cant_be_read_is_refused(tmp_path: Path) -> None:
    (again, *_) = _again(PHANTOM)
    again.PixelData = again.PixelData[:-20]
    assert _refused(tmp_path, [again], Gate()).code == "unreadable-instance"


CARD = IntendedUse(
    modality=("MR",),
    body_part=("head",),
    orientation=("sagittal",),
    contrast=("none",),
    slice_spacing_mm=Bounds(5, 6),
    pixel_spacing_mm=Bounds(2, 3),
    slice_count=Bounds(50, 60),
)
STATEMENTS = {
    "wrong-modality": IntendedUse(modality=CARD.modality),
    "wrong-body-part": IntendedUse(body_part=CARD.body_part),
    "wrong-contrast": IntendedUse(contrast=CARD.contrast),
    "wrong-orientation": IntendedUse(orientation=CARD.orientation),
    "wrong-slice-spacing": IntendedUse(slice_spacing_mm=CARD.slice_spacing_mm),
    "wrong-pixel-spacing": IntendedUse(pixel_spacing_mm=CARD.pixel_spacing_mm),
    "wrong-slice-count": IntendedUse(slice_count=CARD.slice_count),
}
_SAID = setting(BodyPartExamined="ABDOMEN", ContrastBolusAgent="Omnipaque")


@pytest.mark.parametrize("code", sorted(STATEMENTS))
@pytest.mark.parametrize("policy", ["refuse", "warn"])
def test_each_statement_of_the_card_refuses_or_warns(code: str, policy: Policy, tmp_path: Path) -> None:
    gate = Gate(STATEMENTS[code], GatePolicies({code: policy}))
    files = PHANTOM.write(tmp_path, edit=_SAID)
    if policy == "refuse":
        with pytest.raises(SeriesRefused) as caught:
            read_series(files, gate=gate)
        assert caught.value.code == code
    else:
        series = read_series(files, gate=gate)
        assert [(note.code, note.policy) for note in series.notes] == [(code, "warn")]
        assert series.dropped == {}


def test_by_default_body_part_and_contrast_warn_since_their_tags_err(tmp_path: Path) -> None:
    gate = Gate(IntendedUse(body_part=CARD.body_part, contrast=CARD.contrast))
    series = read_series(PHANTOM.write(tmp_path, edit=_SAID), gate=gate)
    assert [note.code for note in series.notes] == ["wrong-body-part", "wrong-contrast"]
    assert series.notes[0].message == "the model is for head, and this series is said to show ABDOMEN"


def test_where_the_slices_lie_is_judged_before_what_the_model_is_for(tmp_path: Path) -> None:
    files = PHANTOM.write(tmp_path)
    with pytest.raises(SeriesRefused) as caught:
        read_series(files[:2] + files[3:], gate=Gate(CARD))
    assert caught.value.code in ("slice-missing", "too-few-slices")


def _first_value(dataset: Dataset) -> int:
    return int(np.frombuffer(dataset.PixelData, np.int16)[0])


def _padded(index: int, dataset: Dataset) -> Dataset:
    dataset.add_new("PixelPaddingValue", "SS", _first_value(dataset))
    return dataset


def _beyond(index: int, dataset: Dataset) -> Dataset:
    dataset.BitsStored, dataset.HighBit = 8, 7
    return dataset


def _negative(index: int, dataset: Dataset) -> Dataset:
    dataset.RescaleSlope = "-1"
    return dataset


def _kernels(index: int, dataset: Dataset) -> Dataset:
    dataset.ConvolutionKernel = "Br36" if index % 2 else "Bl64"
    return dataset


@pytest.mark.parametrize(
    ("code", "edit"),
    [
        ("lossy-compression", setting(LossyImageCompression="01", LossyImageCompressionRatio="9")),
        ("pixel-padding", _padded),
        ("bits-beyond-stored", _beyond),
        ("rescale-negative", _negative),
    ],
)
def test_what_headers_and_pixels_admit_is_noted_or_refused(code: str, edit: Edit, tmp_path: Path) -> None:
    files = PHANTOM.write(tmp_path, edit=edit)
    assert [(note.code, note.policy) for note in read_series(files).notes] == [(code, "warn")]
    with pytest.raises(SeriesRefused) as caught:
        read_series(files, gate=Gate(policies=GatePolicies({code: "refuse"})))
    assert caught.value.code == code


def test_padding_that_is_stated_and_nowhere_is_no_note(tmp_path: Path) -> None:
    assert read_series(PHANTOM.write(tmp_path, edit=setting(PixelPaddingValue=-30000))).notes == ()


def test_an_even_stack_of_two_images_is_refused_unless_one_is_taken(tmp_path: Path) -> None:
    files = PHANTOM.write(tmp_path, edit=_kernels)
    with pytest.raises(SeriesRefused, match="which differ in ConvolutionKernel; let the pipeline's gate") as caught:
        read_series(files)
    assert caught.value.code == "mixed-acquisition"
    one = read_series(files, gate=Gate(take={"ConvolutionKernel": "Bl64"}))
    assert (len(one.datasets), one.volume.spacing[0]) == (3, pytest.approx(5.0))
    both = read_series(files, gate=_policies(mixed_acquisition="warn"))
    assert [(note.code, note.policy) for note in both.notes] == [("mixed-acquisition", "warn")]


def test_slices_with_rescaling_of_their_own_are_noted(tmp_path: Path) -> None:
    series = _read(tmp_path, [], phantom=replace(PHANTOM, slopes=(1.0, 0.5)))
    assert [note.code for note in series.notes] == ["rescale-differs"]


@pytest.mark.parametrize("policy", ["refuse", "warn"])
def test_values_far_from_the_training(policy: Policy, tmp_path: Path) -> None:
    gate = Gate(policies=GatePolicies({"intensity-far": policy}), ranges=(IntensityRange(5000, 6000),))
    files = PHANTOM.write(tmp_path)
    if policy == "refuse":
        with pytest.raises(SeriesRefused) as caught:
            read_series(files, gate=gate)
        assert caught.value.code == "intensity-far"
    else:
        assert [note.code for note in read_series(files, gate=gate).notes] == ["intensity-far"]


def test_each_channel_goes_through_the_gate_and_notes_have_its_name(tmp_path: Path) -> None:
    first, second = PHANTOM, replace(PHANTOM, series="second", orientation=CORONAL, slices=9)
    inputs = {
        "CT": first.write(tmp_path / "1") + write_beside(tmp_path / "1", [localizer(first)]),
        "PET": second.write(tmp_path / "2") + write_beside(tmp_path / "2", [localizer(second, 1)]),
    }
    gate = Gate(ranges=(None, IntensityRange(5000, 6000)))
    series = read_channels(inputs, gate=gate)
    assert [(note.code, note.message.split(":")[0]) for note in series.notes] == [
        ("localizer", "channel CT"),
        ("localizer", "channel PET"),
        ("intensity-far", "channel PET"),
    ]
    assert len(series.dropped) == 2
    with pytest.raises(SeriesRefused, match="channel PET: ") as caught:
        read_channels(inputs, gate=replace(gate, policies=GatePolicies({"intensity-far": "refuse"})))
    assert caught.value.code == "intensity-far"


def test_no_message_holds_data_of_a_patient(tmp_path: Path) -> None:
    gate = _policies(wrong_modality="warn", wrong_orientation="warn", wrong_slice_spacing="warn")
    gate = replace(gate, intended=replace(CARD, slice_count=None, pixel_spacing_mm=None))
    edit = setting(
        Modality="OT",
        BodyPartExamined="ABDOMEN",
        ContrastBolusAgent="Phantom^Limner",
        LossyImageCompression="01",
        PixelPaddingValue=_first_value(PHANTOM.dataset(0)),
    )
    files = PHANTOM.write(tmp_path, edit=edit) + write_beside(
        tmp_path, [localizer(PHANTOM), secondary_capture(PHANTOM)]
    )
    notes = read_series(files, gate=gate).notes
    assert len(notes) == 9
    said = " ".join(note.message for note in notes)
    for value in ("Phantom^", "PHANTOM-1", "1960", "2024", "A1"):
        assert value not in said
