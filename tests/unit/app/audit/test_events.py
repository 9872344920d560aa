"""The closed lists of events and details."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.audit.chain import compose
from app.audit.events import DETAIL_KEYS, OWN_SCHEME, AuditEvent, Outcome
from app.errors import AuditError


def test_codes_are_those_of_ps3_15() -> None:
    # CID 400 and 401
    meanings = {
        "110100": "Application Activity",
        "110101": "Audit Log Used",
        "110102": "Begin Transferring DICOM Instances",
        "110103": "DICOM Instances Accessed",
        "110104": "DICOM Instances Transferred",
        "110105": "DICOM Study Deleted",
        "110112": "Query",
        "110113": "Security Alert",
        "110120": "Application Start",
        "110121": "Application Stop",
        "110126": "Node Authentication",
    }
    for event in AuditEvent:
        assert event.event_id.scheme == "DCM"
        for code in filter(None, [event.event_id, event.event_type]):
            if code.scheme == "DCM":
                assert meanings[code.code] == code.meaning
            else:
                assert code.scheme == OWN_SCHEME
                assert code.code == event.name.lower().replace("_", "-")


def test_outcomes_are_those_of_the_standard() -> None:
    assert [int(outcome) for outcome in Outcome] == [0, 4, 8, 12]


def test_events_that_share_both_codes_differ_in_direction_only() -> None:
    shared: dict[object, list[str]] = {}
    for event in AuditEvent:
        shared.setdefault((event.event_id, event.event_type), []).append(event.name)
    assert sorted(names for names in shared.values() if len(names) > 1) == [
        ["INSTANCES_RECEIVED", "DELIVERY_SUCCEEDED"],
        ["RECEIVING_BEGAN", "DELIVERY_BEGAN"],
    ]


def test_no_key_is_for_a_patients_data() -> None:
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", key) for key in DETAIL_KEYS)
    assert not [key for key in DETAIL_KEYS if re.search(r"patient|birth|name$|date|accession|physician", key)]


@given(st.text().filter(lambda key: key not in DETAIL_KEYS))
def test_unknown_keys_are_refused(key: str) -> None:
    with pytest.raises(AuditError, match="not among the keys"):
        compose(AuditEvent.JOB_CREATED, Outcome.SUCCESS, {key: "Müller^Hans"})


@pytest.mark.parametrize("value", [None, {"a": 1}, ["a", 1], object(), b"bytes", ("a",), float("nan"), float("inf")])
def test_values_of_other_kinds_are_refused(value: object) -> None:
    with pytest.raises(AuditError) as caught:
        compose(AuditEvent.JOB_CREATED, Outcome.SUCCESS, {"reason": value})  # type: ignore[dict-item]
    assert caught.value.code == "audit-detail"


def test_records_that_are_too_long_are_refused() -> None:
    with pytest.raises(AuditError, match="bytes"):
        compose(AuditEvent.JOB_CREATED, Outcome.SUCCESS, {"reason": "x" * 70_000})
