from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import pytest

from app.identifiers import UID
from app.jobs import records
from app.jobs.connections import read_statements
from app.jobs.discrepancies import CODES
from app.jobs.records import Delivery, Job, JobState, Step, accounting, describe_way

_NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
_ID = uuid.UUID(int=1)
STEPS = (
    "receiving", "completing", "deciding", "superseding", "working", "steering", "pausing", "returning",
    "turns", "committing",
    "withdrawing", "watching", "retaining",
)  # fmt: skip


def _at(seconds: float) -> datetime:
    return _NOON + timedelta(seconds=seconds)


def a_job(**changed: object) -> Job:
    facts: dict[str, object] = {
        "id": _ID, "key": "k", "study_instance_uid": UID("1.2"), "series_instance_uid": UID("1.3"),
        "series_revision": 1, "rule": "r", "pipeline": "p", "model_name": "m", "model_version": "1",
        "weights_digest": "w", "destinations": ("archive",), "priority": 0, "state": "running", "attempt": 2,
        "tries": 2, "code": "", "reason": "", "progress_step": "", "progress_done": 0, "progress_total": 0,
        "instances": 20, "first_received_at": _at(0), "last_received_at": _at(2), "created_at": _at(12),
        "started_at": _at(13), "finished_at": None,
    }  # fmt: skip
    return Job(**(facts | changed))  # type: ignore[arg-type]


def test_the_way_of_a_job_that_runs() -> None:
    assert describe_way(a_job()) == (("receive", 2.0), ("wait", 10.0), ("queue", 1.0))


def test_the_way_names_the_steps_of_the_last_attempt_and_each_delivery() -> None:
    steps = (Step(_ID, 1, "infer", 9.0), Step(_ID, 2, "infer", 5.0))
    sent = Delivery(_ID, "d", "archive", "delivered", 1, "", "", _at(20), _at(20), None, _at(21))
    waiting = Delivery(_ID, "d", "viewer", "waiting", 0, "", "", _at(20), None, None, None)
    way = describe_way(a_job(steps=steps, deliveries=(sent, waiting)))
    assert way[3:] == (("infer", 5.0), ("deliver:archive", 1.0))


def test_only_these_states_are_final() -> None:
    final = ["closed", "failed", "refused", "discarded", "cancelled", "dead-letter", "superseded"]
    assert [state for state in get_args(JobState) if a_job(state=state).ended] == final


@pytest.mark.parametrize("step", STEPS)
def test_every_statement_is_there_and_used(step: str) -> None:
    module = Path(records.__file__).with_name(f"{step}.py")
    used = set(re.findall(r'_SQL\["(\w+)"\]', module.read_text()))
    assert used == set(read_statements(f"{step}.sql"))


def test_every_module_of_the_records_is_a_step() -> None:
    modules = {path.stem for path in Path(records.__file__).parent.glob("*.py")}
    assert modules == {"__init__", "accounting", *STEPS}


def test_every_statement_of_the_account_is_a_rule_a_sum_or_used() -> None:
    names = set(read_statements("accounting.sql"))
    asked = {f"rule_{rule}" for rule in accounting.RULES} | {f"{kind}_by_state" for kind in accounting.TOTALS}
    used = set(re.findall(r'_SQL\["(\w+)"\]', Path(accounting.__file__).read_text()))
    assert names == asked | used
    assert {rule.replace("_", "-") for rule in accounting.RULES} <= set(CODES)
