"""The model card against the header, one statement at a time, on phantoms that no axis is like another of."""

from dataclasses import replace

import pytest
from pydicom.dataset import Dataset

from operators.gate.fitness import mismatches
from operators.gate.intended_use import Bounds, IntendedUse
from tests.gate_fixture import headers_of
from tests.phantom import AXIAL, ORIENTATIONS, Edit, Phantom, at, setting

PRONE = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0)


def _found(intended: IntendedUse, edit: Edit | None = None, phantom: Phantom = Phantom(), spacing: float = 2.5) -> str:  # noqa: B008
    return ", ".join(code for code, _ in mismatches(headers_of(phantom, edit), spacing, intended))


def test_a_slice_spacing_that_nothing_states_is_not_held_against_the_card() -> None:
    ((code, _),) = mismatches(headers_of(Phantom(slices=1)), None, IntendedUse(slice_spacing_mm=Bounds(2, 6)))
    assert code == "slice-spacing-unknown"


def test_a_card_that_states_nothing_excludes_nothing() -> None:
    assert _found(IntendedUse()) == ""


@pytest.mark.parametrize(
    ("modality", "edit", "found"),
    [
        (("CT",), None, ""),
        (("MR", "CT"), None, ""),
        (("MR",), None, "wrong-modality"),
        (("CT",), at(2, Modality="MR"), "wrong-modality"),
        (("MR",), setting(Modality=None), ""),
        (("MR",), setting(Modality=""), ""),
    ],
)
def test_modality(modality: tuple[str, ...], edit: Edit | None, found: str) -> None:
    assert _found(IntendedUse(modality=modality), edit) == found


@pytest.mark.parametrize(
    ("term", "found"),
    [
        ("ABDOMEN", ""),
        ("CHESTABDPELVIS", ""),
        ("LIVER", ""),
        ("PARTIALBODY", ""),
        ("", ""),
        ("HEAD", "wrong-body-part"),
    ],
)
def test_body_part(term: str, found: str) -> None:
    assert _found(IntendedUse(body_part=("abdomen",)), setting(BodyPartExamined=term)) == found


def test_a_coded_region_speaks_for_a_series_that_a_protocol_calls_otherwise() -> None:
    region = Dataset()
    region.CodeValue, region.CodingSchemeDesignator, region.CodeMeaning = "818981001", "SCT", "Abdomen"
    intended = IntendedUse(body_part=("abdomen",))
    assert _found(intended, setting(BodyPartExamined="HEAD", AnatomicRegionSequence=[region])) == ""
    region.CodeValue = "69536005"
    assert _found(intended, setting(AnatomicRegionSequence=[region])) == "wrong-body-part"


def _used(phase: str) -> Edit:
    usage = Dataset()
    usage.ContrastBolusAgentPhase = phase
    return setting(ContrastBolusUsageSequence=[usage])


@pytest.mark.parametrize(
    ("contrast", "edit", "found"),
    [
        (("none",), None, ""),
        (("none",), setting(ContrastBolusAgent="APPLIED"), "wrong-contrast"),
        (("none",), setting(ContrastBolusAgent="None"), ""),
        (("none",), setting(ContrastBolusAgent=""), ""),
        (("none",), _used("ARTERIAL"), "wrong-contrast"),
        (("given",), None, ""),
        (("given",), setting(ContrastBolusAgent="Omnipaque"), ""),
        (("given",), setting(ContrastBolusAgent="NO"), "wrong-contrast"),
        (("given",), _used("PRE_CONTRAST"), "wrong-contrast"),
        (("PORTAL_VENOUS",), setting(ContrastBolusAgent="Omnipaque"), ""),
        (("PORTAL_VENOUS",), _used("PORTAL_VENOUS"), ""),
        (("PORTAL_VENOUS",), _used("ARTERIAL"), "wrong-contrast"),
        (("PORTAL_VENOUS",), setting(ContrastBolusAgentPhase="DELAYED"), "wrong-contrast"),
        (("PRE_CONTRAST",), setting(ContrastBolusAgent="NONE"), ""),
    ],
)
def test_contrast_where_the_tags_tell(contrast: tuple[str, ...], edit: Edit | None, found: str) -> None:
    assert _found(IntendedUse(contrast=contrast), edit) == found


@pytest.mark.parametrize("name", sorted(ORIENTATIONS))
def test_plane(name: str) -> None:
    phantom = replace(Phantom(), orientation=ORIENTATIONS[name])
    plane = name if name in ("coronal", "sagittal") else "axial"
    for stated in ("axial", "coronal", "sagittal"):
        assert _found(IntendedUse(orientation=(stated,)), phantom=phantom) == (
            "" if stated == plane else "wrong-orientation"
        )


@pytest.mark.parametrize(
    ("orientation", "directions"),
    [
        (AXIAL, ("L", "P")),
        (PRONE, ("R", "A")),
        (ORIENTATIONS["coronal"], ("L", "F")),
        (ORIENTATIONS["sagittal"], ("P", "F")),
        ((0.0, 0.0, 1.0, 0.0, 1.0, 0.0), ("H", "P")),
        (ORIENTATIONS["oblique"], ("L", "P")),
    ],
)
def test_where_rows_and_columns_run(orientation: tuple[float, ...], directions: tuple[str, str]) -> None:
    phantom = replace(Phantom(), orientation=orientation)
    assert _found(IntendedUse(patient_orientation=directions), phantom=phantom) == ""
    assert _found(IntendedUse(patient_orientation=directions[::-1]), phantom=phantom) == "wrong-orientation"


def test_a_prone_patient_is_another_patient_orientation_in_the_same_plane() -> None:
    prone = replace(Phantom(), orientation=PRONE)
    intended = IntendedUse(orientation=("axial",), patient_orientation=("L", "P"))
    ((code, message),) = mismatches(headers_of(prone), 2.5, intended)
    assert code == "wrong-orientation"
    assert message.endswith("towards L and P, and these run towards R and A")


def test_spacing_and_count_have_bounds_with_both_ends() -> None:
    phantom = Phantom(slices=6, row_spacing=0.8, column_spacing=0.5)
    for bounds, code in ((Bounds(2.5, 4), ""), (Bounds(1, 2.5), ""), (Bounds(3, 4), "wrong-slice-spacing")):
        assert _found(IntendedUse(slice_spacing_mm=bounds), phantom=phantom) == code
    for bounds, code in (
        (Bounds(0.5, 0.8), ""),
        (Bounds(0.6, 1), "wrong-pixel-spacing"),
        (Bounds(0.1, 0.7), "wrong-pixel-spacing"),
    ):
        assert _found(IntendedUse(pixel_spacing_mm=bounds), phantom=phantom) == code
    for bounds, code in ((Bounds(6, 6), ""), (Bounds(7, 20), "wrong-slice-count"), (Bounds(1, 5), "wrong-slice-count")):
        assert _found(IntendedUse(slice_count=bounds), phantom=phantom) == code


def test_all_that_is_wrong_is_found() -> None:
    intended = IntendedUse(modality=("MR",), orientation=("coronal",), slice_count=Bounds(100, 200))
    assert _found(intended) == "wrong-modality, wrong-orientation, wrong-slice-count"
