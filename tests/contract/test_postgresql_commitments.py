"""Commitments on a real PostgreSQL: who is asked when the last delivery ends unsent, and what counts as a question."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.errors import DeliveryError
from app.jobs import steering
from app.jobs.queue import TaskQueue
from tests.contract.test_postgresql_withdrawn import BOTH, HonouringArchive
from tests.database_fixture import fresh_database
from tests.job_harness import instance
from tests.stepped_bench import SteppedBench, stepped_bench

PATIENT = {"retry_first_seconds": 600, "retry_longest_seconds": 600, "commitment": "query"}
ONE = {"destinations": ("archive",)}


@pytest.fixture
def url(postgres: str) -> Iterator[str]:
    with fresh_database(postgres) as made:
        yield made


def _archive(made: SteppedBench) -> HonouringArchive:
    archive = HonouringArchive("archive", made.settings.data_folder)
    made.destinations["archive"] = archive
    return archive


def _half_delivered(made: SteppedBench) -> None:
    """The archive has the segmentation, and the report waits."""
    _archive(made).refusing["report"] = DeliveryError("not now", code="status-c001")
    made.receive(instance(1))
    made.create_jobs()
    made.finish()
    assert _states(made) == ["delivered", "waiting"]


def _states(made: SteppedBench) -> list[str]:
    return sorted(one.state for one in made.records.jobs()[-1].deliveries)


def test_what_a_cancelled_job_delivered_is_asked_for(tmp_path: Path, url: str) -> None:
    with stepped_bench(tmp_path, url, rule={**BOTH, **ONE}, destination=PATIENT) as made:
        _half_delivered(made)
        steering.ask(made.records, "cancel", made.job(), "erika")
        made.finish()
        assert _states(made) == ["cancelled", "committed"]
        assert made.job().state == "cancelled"


@pytest.mark.parametrize("is_asked", [False, True])
def test_what_a_cancelled_job_delivered_is_asked_for_though_a_worker_died_sending_the_rest(
    tmp_path: Path, url: str, is_asked: bool
) -> None:
    with stepped_bench(tmp_path, url, rule={**BOTH, **ONE}, destination=PATIENT) as made:
        _half_delivered(made)
        (left,) = [one for one in made.job().deliveries if one.state == "waiting"]
        assert made.records.begin_delivery(left.job_id, left.digest, left.destination) is not None
        made.change("UPDATE deliveries SET is_unknown = %s WHERE state = 'sending'", is_asked)
        steering.ask(made.records, "cancel", made.job(), "erika")
        made.finish()
        assert _states(made) == ["delivered", "sending"]
        made.workflow._delivering.attend()
        made.finish()
        assert _states(made) == ["cancelled", "committed"]
        assert made.account().agrees


def test_what_a_superseded_job_delivered_is_asked_for(tmp_path: Path, url: str) -> None:
    with stepped_bench(tmp_path, url, rule={**BOTH, **ONE}, destination=PATIENT) as made:
        _half_delivered(made)
        made.receive(instance(2))
        made.create_jobs()
        made.destinations["archive"].refusing.clear()
        made.finish()
        newer, older = made.records.jobs()
        assert _states(made) == ["committed", "replaced"]
        assert (newer.state, older.state) == ("closed", "closed")
        assert made.account().agrees


@pytest.mark.parametrize("code", ["query-unreachable", "query-association-rejected", "query-association-aborted"])
def test_a_question_that_reached_nobody_is_no_round(tmp_path: Path, url: str, code: str) -> None:
    with stepped_bench(tmp_path, url, rule=ONE, destination={**PATIENT, "commitment_rounds": 2}) as made:
        archive = _archive(made)
        archive.silent = code
        made.receive(instance(1))
        made.create_jobs()
        made.finish()
        for _ in range(4):
            _ask_now(made)
        (delivery,) = made.job().deliveries
        assert (delivery.state, delivery.code, delivery.commitment_rounds) == ("committing", code, 0)
        archive.silent = ""
        _ask_now(made)
        assert _states(made) == ["committed"]


def test_a_question_without_an_answer_is_a_round(tmp_path: Path, url: str) -> None:
    with stepped_bench(tmp_path, url, rule=ONE, destination={**PATIENT, "commitment_rounds": 2}) as made:
        _archive(made).silent = "query-no-answer"
        made.receive(instance(1))
        made.create_jobs()
        made.finish()
        for _ in range(2):
            _ask_now(made)
        (delivery,) = made.job().deliveries
        assert (delivery.state, delivery.code) == ("failed", "commitment-missing")


def _ask_now(made: SteppedBench) -> None:
    made.change("UPDATE deliveries SET next_attempt_at = NULL")
    with made.records.transaction() as connection:
        TaskQueue().defer_turn(connection, "archive")
    made.finish()
