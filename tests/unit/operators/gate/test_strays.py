from dataclasses import replace

import pytest
from pydicom.dataset import Dataset

from operators.gate.strays import localizers, secondary_captures
from tests.gate_fixture import headers_of, localizer, renamed, secondary_capture
from tests.phantom import CORONAL, ORIENTATIONS, Phantom, at, setting, without

PHANTOM = Phantom(slices=7)


@pytest.mark.parametrize("orientation", sorted(ORIENTATIONS))
@pytest.mark.parametrize("named", [True, False])
def test_a_localizer_is_found_whether_it_says_so_or_not(orientation: str, named: bool) -> None:
    phantom = replace(PHANTOM, orientation=ORIENTATIONS[orientation])
    headers = headers_of(phantom)
    headers.insert(3, localizer(phantom, named=named))
    assert localizers(headers) == [3]


def test_several_images_of_another_type_are_localizers_up_to_three() -> None:
    outside = [localizer(PHANTOM, number, named=False) for number in range(4)]
    for number, one in enumerate(outside):
        one.ImageType = ["DERIVED", "SECONDARY", "SURVEY"]
        one.ImagePositionPatient[0] += number
    headers = headers_of(PHANTOM)
    assert localizers([*outside[:3], *headers]) == [0, 1, 2]
    assert localizers([*outside, *headers]) == []


def test_a_small_stack_of_the_same_type_is_a_reconstruction_and_no_localizer() -> None:
    outside = [localizer(PHANTOM, number, named=False) for number in range(2)]
    assert localizers([*headers_of(PHANTOM), *outside]) == []


def test_a_slice_with_a_wrong_orientation_is_no_localizer() -> None:
    for index in (0, 3, 6):  # at an end nothing is missing without it: it lies in the row of the slices
        assert localizers(headers_of(PHANTOM, at(index, ImageOrientationPatient=list(CORONAL)))) == []


def test_nothing_is_left_out_of_what_is_no_whole_stack_without_it() -> None:
    assert localizers([*headers_of(PHANTOM, without(2)), localizer(PHANTOM, named=False)]) == []
    assert localizers([*headers_of(PHANTOM, without(2)), localizer(PHANTOM)]) == [6]  # it says so itself


def test_of_localizers_alone_all_are_found() -> None:
    headers = headers_of(PHANTOM, setting(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]))
    assert localizers(headers) == list(range(7))


@pytest.mark.parametrize(
    "edit", [None, setting(ImageType=None), setting(ImageOrientationPatient=None), setting(Rows=None)]
)
def test_a_clean_series_has_none_whatever_it_lacks(edit: object) -> None:
    assert localizers(headers_of(PHANTOM, edit)) == []  # type: ignore[arg-type]
    assert secondary_captures(headers_of(PHANTOM, edit)) == []  # type: ignore[arg-type]


def test_secondary_captures_are_found_among_images_alone() -> None:
    capture = secondary_capture(PHANTOM)
    assert secondary_captures([capture, *headers_of(PHANTOM)]) == [0]
    assert secondary_captures([capture]) == []
    assert secondary_captures([_multi_frame(), *headers_of(PHANTOM)]) == [0]


def _multi_frame() -> Dataset:
    capture = renamed(secondary_capture(PHANTOM), "multi-frame")
    capture.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7.4"
    return capture
