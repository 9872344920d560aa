from typing import Any

import pytest

from operators.errors import ModelPackageError
from operators.gate.intended_use import Bounds, IntendedUse, read_intended_use


def test_a_card_that_states_all() -> None:
    card = {
        "name": "liver",
        "modality": ["CT", "PET"],
        "body_part": "abdomen",
        "orientation": "axial",
        "patient_orientation": ["L", "P"],
        "contrast": ["ARTERIAL", "PORTAL_VENOUS"],
        "slice_spacing_mm": [0.5, 6],
        "pixel_spacing_mm": [0.4, 2.7],
        "slice_count": [10, 1200],
    }
    found = read_intended_use(card, "liver")
    assert found == IntendedUse(
        modality=("CT", "PT"),
        body_part=("abdomen",),
        orientation=("axial",),
        patient_orientation=("L", "P"),
        contrast=("ARTERIAL", "PORTAL_VENOUS"),
        slice_spacing_mm=Bounds(0.5, 6),
        pixel_spacing_mm=Bounds(0.4, 2.7),
        slice_count=Bounds(10, 1200),
    )
    assert found.stated["slice_spacing_mm"] == [0.5, 6.0]
    assert set(found.stated) == set(card) - {"name"}


@pytest.mark.parametrize("card", [{}, {"modality": [], "body_part": None, "slice_count": None}, {"kind": "nnunet"}])
def test_what_is_absent_is_not_stated(card: dict[str, Any]) -> None:
    assert read_intended_use(card, "liver") == IntendedUse()
    assert read_intended_use(card, "liver").stated == {}


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("modality", {"CT": 1}, "modality must be text"),
        ("modality", ["CT", 3], "modality must be text"),
        ("modality", [""], "modality must be text"),
        ("body_part", "flux capacitor", "flux capacitor"),
        ("orientation", "transversal", "axial or coronal or sagittal"),
        ("patient_orientation", ["L"], r"\[L, P\]"),
        ("patient_orientation", ["L", "R"], r"\[L, P\]"),
        ("patient_orientation", ["L", "X"], r"\[L, P\]"),
        ("contrast", "PORTAL", "PORTAL_VENOUS"),
        ("contrast", ["none", "ARTERIAL"], "contrast must be"),
        ("slice_spacing_mm", [6.0, 0.5], "lower one first"),
        ("slice_spacing_mm", [0, 6.0], "above 0"),
        ("slice_spacing_mm", 3, "two numbers"),
        ("slice_spacing_mm", [1, 2, 3], "two numbers"),
        ("pixel_spacing_mm", ["0.4", "2.7"], "two numbers"),
        ("slice_count", [True, 5], "two numbers"),
        ("slice_count", [1, float("inf")], "two numbers"),
    ],
)
def test_what_cant_be_checked_is_an_error_of_the_model(key: str, value: Any, told: str) -> None:
    with pytest.raises(ModelPackageError, match=told) as caught:
        read_intended_use({key: value}, "liver")
    assert caught.value.code == "card-malformed"
    assert "liver" in str(caught.value)


@pytest.mark.parametrize(("value", "held"), [(0.5, True), (6.0, True), (6.005, True), (6.1, False), (0.49, False)])
def test_bounds_hold_their_ends_and_rounding(value: float, held: bool) -> None:
    assert Bounds(0.5, 6.0).hold(value) is held
