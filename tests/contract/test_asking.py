"""Before a re-send after an unknown outcome the archive is asked whether it has the object."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.errors import DeliveryError
from tests.database_fixture import fresh_database
from tests.dicom_results import ARCHIVE, connect, delivering_bench
from tests.job_harness import Bench, instance
from tests.planted_archive import HOST, planted


@pytest.fixture
def url(postgres: str) -> Iterator[str]:
    with fresh_database(postgres) as made:
        yield made


def _deliver(made: Bench) -> None:
    connect(made)
    made.receive(instance(1))
    made.create_jobs()
    made.work(made.all_ended, seconds=60)
    assert made.job().state == "closed"


def _said(made: Bench) -> str:
    return "".join(path.read_text() for path in made.settings.audit_folder.glob("*.jsonl"))


def test_what_arrived_is_not_sent_again(tmp_path: Path, url: str) -> None:
    with planted() as (archive, port), delivering_bench(tmp_path, url, HOST, port, "PACS") as made:
        archive.breaks_after = 1
        _deliver(made)
        assert (archive.stores, archive.questions, len(archive.held)) == (1, 1, 1)
        (delivery,) = made.job().deliveries
        assert "arrived already" in delivery.reason
        assert "DESTINATION_ASKED" in _said(made)


def test_what_did_not_arrive_is_sent_again(tmp_path: Path, url: str) -> None:
    with planted() as (archive, port), delivering_bench(tmp_path, url, HOST, port, "PACS") as made:
        archive.breaks_before = 1
        _deliver(made)
        assert (archive.stores, archive.questions, len(archive.held)) == (2, 1, 1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the toolkit drops what did not connect
@pytest.mark.parametrize("options", [{"ask": "never"}, {"ask": "QUERY@127.0.0.1:1"}, {}])
def test_who_can_not_be_asked_gets_it_again(tmp_path: Path, url: str, options: dict[str, Any]) -> None:
    with (
        planted(answers_questions=bool(options)) as (archive, port),
        delivering_bench(tmp_path, url, HOST, port, "PACS", **options) as made,
    ):
        archive.breaks_after = 1
        _deliver(made)
        assert (archive.stores, archive.questions) == (2, 0)
        assert len(set(archive.held)) == 1  # the same UID: an archive knows it again
        assert ("DESTINATION_ASKED" in _said(made)) is (options.get("ask") != "never")


def test_what_was_being_sent_when_the_server_died_is_asked_for(tmp_path: Path, url: str) -> None:
    with planted() as (archive, port), delivering_bench(tmp_path, url, HOST, port, "PACS") as made:
        connect(made)
        made.receive(instance(1))
        made.create_jobs()
        (tmp_path / "nowhere").mkdir()
        made.work(lambda: bool(made.job().results))
        if not made.job().ended:  # as if it had died with the answer on its way
            made.records.begin_delivery(made.job().id, made.job().results[0].digest, ARCHIVE)
        made.work(made.all_ended)
        assert len(set(archive.held)) == 1


def _silent(made: Bench, code: str, times: int) -> list[str]:
    """Have so many questions fail with `code` before the archive hears one; a list of those."""
    connect(made)
    failed: list[str] = []
    target = made.destinations[ARCHIVE]
    holds = target.holds

    def fail_or_ask(*uids: str) -> bool:
        if len(failed) < times:
            failed.append(code)
            raise DeliveryError("not now", code=code)
        return bool(holds(*uids))

    target.holds = fail_or_ask
    return failed


def _deliver_asked(made: Bench) -> None:
    made.receive(instance(1))
    made.create_jobs()
    made.work(made.all_ended, seconds=60)
    assert made.job().state == "closed"


QUICK = {"retry_first_seconds": 0.2, "retry_longest_seconds": 0.2}


@pytest.mark.parametrize(("code", "times"), [("unreachable", 4), ("tls-failed", 3), ("association-rejected", 1)])
def test_one_that_is_away_when_it_is_asked_is_asked_again(tmp_path: Path, url: str, code: str, times: int) -> None:
    """It has the object, and can say so when it is back: nothing is sent without a question meanwhile."""
    with planted() as (archive, port), delivering_bench(tmp_path, url, HOST, port, "PACS", **QUICK) as made:
        archive.breaks_after = 1
        failed = _silent(made, code, times)
        _deliver_asked(made)
        assert (archive.stores, archive.questions, len(failed)) == (1, 1, times)
        (delivery,) = made.job().deliveries
        assert "arrived already" in delivery.reason


@pytest.mark.parametrize("code", ["association-rejected", "association-aborted"])
def test_one_that_lets_nobody_in_to_ask_gets_it_again(tmp_path: Path, url: str, code: str) -> None:
    """As DCMTK's dcmrecv, which rejects what proposes no storage: it must not wait for an answer for ever."""
    with planted() as (archive, port), delivering_bench(tmp_path, url, HOST, port, "PACS", **QUICK) as made:
        archive.breaks_before = 1
        failed = _silent(made, code, times=1000)
        _deliver_asked(made)
        assert (archive.stores, len(archive.held), failed) == (2, 1, [code] * 2)


def test_a_receiver_that_says_nothing_is_not_asked_twice_a_window(tmp_path: Path, url: str) -> None:
    """It breaks each association: the question is a window's one attempt, and the next sends without asking."""
    with planted() as (archive, port), delivering_bench(tmp_path, url, HOST, port, "PACS") as made:
        archive.breaks_before = 2
        _deliver(made)
        assert archive.stores == 3
        window = made.records.windows()[ARCHIVE]
        assert (window.failures, window.down_since) == (0, None)
