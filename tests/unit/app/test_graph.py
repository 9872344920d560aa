"""The completion record as JSON, which crosses from the graph's process to the server."""

from dataclasses import replace

import pytest

from app.graph import CompletionRecord
from operators.gate.notes import GateNote
from tests.job_harness import AGREEING, planted_finding

NOTES = (GateNote("lossy-compression", "warn", "6 of 6"), GateNote("localizer", "repair", "1 of 7"))
RECORD = CompletionRecord(
    "identity",
    (planted_finding("specialist"),),
    (AGREEING,),
    steps={"read": 0.5},
    left_out=("3: prompt-outside",),
    prompted_by={"1.2": "1.3"},
    notes=NOTES,
    dropped={"1.2.3": (), "1.2.4": (2, 5)},
)


def test_it_is_read_as_it_was_written() -> None:
    assert CompletionRecord.from_json(RECORD.to_json()) == RECORD
    bare = replace(RECORD, notes=(), dropped={})
    assert CompletionRecord.from_json(bare.to_json()) == bare


@pytest.mark.parametrize("text", [b"{}", b"[]", b"no JSON", RECORD.to_json().replace(b'"policy"', b'"rule"')])
def test_other_text_is_no_record(text: bytes) -> None:
    with pytest.raises(ValueError, match="not a completion record|Expecting value"):
        CompletionRecord.from_json(text)
