from dataclasses import replace

import pytest
from pydicom.dataset import Dataset

from operators.gate.phases import describe_phases, doubled_places, repeated_slices, taken
from tests.gate_fixture import headers_of, later_phase, renamed
from tests.phantom import ORIENTATIONS, Phantom, setting

PHANTOM = Phantom(slices=4)


def _phases(*numbers: int) -> list[Dataset]:
    return [later_phase(PHANTOM, index, number) for number in numbers for index in range(PHANTOM.slices)]


@pytest.mark.parametrize("orientation", sorted(ORIENTATIONS))
@pytest.mark.parametrize("against_normal", [False, True])
def test_places_that_are_taken_twice(orientation: str, against_normal: bool) -> None:
    phantom = replace(PHANTOM, orientation=ORIENTATIONS[orientation], against_normal=against_normal)
    headers = headers_of(phantom)
    assert doubled_places(headers) == []
    again = later_phase(phantom, 2)
    assert doubled_places([again, *headers]) == [[0, 3]]


@pytest.mark.parametrize(
    "broken",
    [
        setting(ImagePositionPatient=None),
        setting(ImageOrientationPatient=None),
        setting(ImageOrientationPatient=[0, 0, 0, 0, 0, 0]),
        setting(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]),
    ],
)
def test_without_geometry_no_place_is_taken_twice(broken: object) -> None:
    assert doubled_places(headers_of(PHANTOM, broken)) == []  # type: ignore[arg-type]
    assert doubled_places([]) == []


def test_the_lowest_uid_of_what_is_the_same_stays_whatever_the_order() -> None:
    headers = headers_of(PHANTOM)
    again = [renamed(one, "again", index) for index, one in enumerate(headers_of(PHANTOM))]
    for everything in ([*headers, *again], [*again, *headers], [*reversed(headers), *again]):
        dropped = repeated_slices(everything, lambda index: "same")
        kept = {one.SOPInstanceUID for index, one in enumerate(everything) if index not in dropped}
        expected = {min(one.SOPInstanceUID, other.SOPInstanceUID) for one, other in zip(headers, again, strict=True)}
        assert kept == expected


def test_other_pixels_at_the_same_place_are_no_repeated_slice_and_end_the_reading() -> None:
    headers = _phases(1, 2)
    asked: list[int] = []

    def digest_of(index: int) -> str:
        asked.append(index)
        return str(index)

    assert repeated_slices(headers, digest_of) == []
    assert len(asked) == 2


def test_the_same_pixels_beside_each_other_are_two_slices() -> None:
    headers = headers_of(PHANTOM)
    beside = renamed(PHANTOM.dataset(1), "beside")
    beside.ImagePositionPatient = [float(beside.ImagePositionPatient[0]) + 5, *beside.ImagePositionPatient[1:]]
    assert repeated_slices([*headers, beside], lambda index: "same") == []


def test_what_tells_phases_apart_is_named_with_values_but_no_times_of_the_day() -> None:
    headers = _phases(1, 2, 10)
    assert describe_phases(headers, doubled_places(headers)) == "AcquisitionNumber (1, 2, 10), AcquisitionTime"
    for header in headers:
        header.AcquisitionNumber = 1
        del header.AcquisitionTime
    assert describe_phases(headers, doubled_places(headers)) == ""


def test_an_attribute_that_not_all_have_tells_nothing() -> None:
    headers = _phases(1, 2)
    for header in headers:
        del header.AcquisitionTime
    del headers[0].AcquisitionNumber
    assert describe_phases(headers, doubled_places(headers)) == ""


@pytest.mark.parametrize(
    ("take", "indices"),
    [
        ({}, [0, 1, 2]),
        ({"EchoTime": 4.6}, [1]),
        ({"EchoTime": 4}, []),
        ({"AcquisitionNumber": 2}, [1, 2]),
        ({"AcquisitionNumber": 2.0, "EchoTime": 9.2}, [2]),
        ({"ImageType": "IN_PHASE"}, [2]),
        ({"ImageType": "in_phase"}, []),
        ({"InversionTime": 1}, []),
    ],
)
def test_what_is_taken_has_all_the_values(take: dict[str, str | float], indices: list[int]) -> None:
    headers = headers_of(Phantom(slices=3))
    for header, (number, echo) in zip(headers, [(1, "2.3"), (2, "4.60"), (2, "9.2")], strict=True):
        header.AcquisitionNumber, header.EchoTime = number, echo
    headers[2].ImageType = ["ORIGINAL", "PRIMARY", "M", "IN_PHASE"]
    assert taken(headers, take) == indices
