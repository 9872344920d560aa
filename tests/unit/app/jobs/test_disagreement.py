"""What is sent, flagged and held for each way that two models can agree, by what the rule and the pipeline say."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from app.graph import AgreementRecord, CompletionRecord, FailureRecord
from app.jobs.disagreement import consequence_of
from app.jobs.entries import OnDisagreement, Role
from operators.gate.notes import GateNote
from tests.job_harness import AGREEING, DISAGREEING, planted_finding

_SPECIALIST = CompletionRecord("identity", (planted_finding("specialist"),))
_BOTH = replace(_SPECIALIST, findings=(*_SPECIALIST.findings, planted_finding("generalist")))
_AGREE = replace(_BOTH, agreement=(AGREEING,))
_DISAGREE = replace(_BOTH, agreement=(AGREEING, DISAGREEING))
_FAILED = replace(_SPECIALIST, generalist_failure=FailureRecord("model-missing", "it is not served"))
_RULES: tuple[OnDisagreement, ...] = ("warn", "hold", "both")


@pytest.mark.parametrize(("rule", "deliver"), list(product(_RULES, (False, True))))
def test_every_case(rule: OnDisagreement, deliver: bool) -> None:
    specialist: tuple[Role, ...] = ("specialist",)
    both: tuple[Role, ...] = ("specialist", "generalist")
    expected = {
        "alone": (_SPECIALIST, "", specialist),
        "agree": (_AGREE, "", both if deliver else specialist),
        "disagree": (_DISAGREE, "disagreement", both if deliver or rule == "both" else specialist),
        "failed": (_FAILED, "generalist-failed", specialist),
    }
    for record, flag, sent in expected.values():
        found = consequence_of(record, on_disagreement=rule, deliver_generalist=deliver)
        assert (found.flag, found.sent, found.is_held) == (flag, sent, bool(flag) and rule == "hold")


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (DISAGREEING, "Liver: Dice 0.410"),
        (
            replace(DISAGREEING, beyond=("distance", "volume")),
            "Liver: distance of the surfaces 25.0 mm, volume -50.0 %",
        ),
        (AgreementRecord(2, "Spleen", 0, None, 12.0, None, ("one-empty",)), "Spleen: found by the generalist alone"),
        (AgreementRecord(2, "Spleen", 0, None, -9.0, -100, ("one-empty",)), "Spleen: found by the specialist alone"),
    ],
)
def test_the_reason_says_which_figure_lies_beyond(one: AgreementRecord, reason: str) -> None:
    record = replace(_BOTH, agreement=(AGREEING, one))
    assert consequence_of(record, on_disagreement="warn", deliver_generalist=False).flag_reason == reason


def test_notes_on_the_input_go_on_and_change_nothing() -> None:
    notes = (GateNote("localizer", "repair", "1 of 21 images are localizers"),)
    found = consequence_of(replace(_AGREE, notes=notes), on_disagreement="hold", deliver_generalist=False)
    assert (found.notes, found.flag, found.is_held) == (notes, "", False)


def test_a_long_reason_is_cut() -> None:
    record = replace(_BOTH, agreement=tuple(replace(DISAGREEING, number=number) for number in range(1, 200)))
    assert len(consequence_of(record, on_disagreement="warn", deliver_generalist=False).flag_reason) == 500
