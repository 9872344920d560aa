"""An archive is asked once a study at a time, off the scan, and one in trouble holds nobody up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app.audit.log import AuditLog
from app.errors import AuditError, DeliveryError
from app.routing.asking import TROUBLE_SECONDS, ArchiveQuestions

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class PlantedArchive:
    def __init__(self) -> None:
        self.error: Exception | None = None
        self.asked: list[str] = []
        self.may_end = threading.Event()

    def count_series_instances(self, study_instance_uid: str, series_instance_uid: str = "") -> dict[str, int]:
        self.asked.append(study_instance_uid)
        self.may_end.wait(10)
        if self.error is not None:
            raise self.error
        return {"1.2.3": 20}


class PlantedRecords:
    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.ended: list[Any] = []
        self.is_down = False

    def begin_question(self, study_instance_uid: str, archive: str) -> datetime:
        self.told.append((study_instance_uid, archive))
        return NOON

    def answer_question(self, study_instance_uid: str, asked_at: datetime, instances: Mapping[str, int]) -> None:
        self._end(dict(instances))

    def fail_question(self, study_instance_uid: str, asked_at: datetime, code: str) -> None:
        self._end(code)

    def _end(self, what: Any) -> None:
        self.ended.append(what)
        if self.is_down:
            raise psycopg.OperationalError


@pytest.fixture
def audit(tmp_path: Path) -> Iterator[AuditLog]:
    with AuditLog(tmp_path / "audit") as log:
        yield log


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _made(audit: AuditLog, clock: Callable[[], float] = time.monotonic) -> Any:
    archive, records = PlantedArchive(), PlantedRecords()
    questions = ArchiveQuestions({"pacs": archive}, records, audit, clock=clock)  # type: ignore[arg-type]
    return archive, records, questions


def test_a_study_is_asked_about_once_at_a_time(audit: AuditLog) -> None:
    archive, records, questions = _made(audit)
    questions.ask("pacs", "1.2")
    questions.ask("pacs", "1.2")  # it is being asked
    _until(lambda: archive.asked == ["1.2"])
    archive.may_end.set()
    _until(lambda: records.ended == [{"1.2.3": 20}])
    assert records.told == [("1.2", "pacs")]
    _until(lambda: questions.ask("pacs", "1.2") or len(records.told) == 2)


def test_an_archive_in_trouble_is_left_alone_for_a_while(audit: AuditLog) -> None:
    now = [1000.0]
    archive, records, questions = _made(audit, lambda: now[0])
    archive.may_end.set()
    archive.error = DeliveryError("it can't be reached", code="unreachable")
    questions.ask("pacs", "1.2")
    _until(lambda: records.ended == ["unreachable"])
    questions.ask("pacs", "1.3")  # told at once what is known of it
    assert records.ended == ["unreachable", "unreachable"]
    assert archive.asked == ["1.2"]
    now[0] += TROUBLE_SECONDS
    archive.error = None
    questions.ask("pacs", "1.4")
    _until(lambda: records.ended[2:] == [{"1.2.3": 20}])


def test_a_defect_is_told_by_its_name_alone(audit: AuditLog) -> None:
    archive, records, questions = _made(audit)
    archive.may_end.set()
    archive.error = ValueError("of a patient")
    questions.ask("pacs", "1.2")
    _until(lambda: records.ended == ["ValueError"])


def test_records_that_are_away_end_no_thread_in_an_error(audit: AuditLog) -> None:
    archive, records, questions = _made(audit)
    archive.may_end.set()
    records.is_down = True
    questions.ask("pacs", "1.2")
    _until(lambda: records.ended == [{"1.2.3": 20}])
    _until(lambda: questions.ask("pacs", "1.2") or len(records.told) == 2)


def test_without_its_audit_line_nothing_is_asked(audit: AuditLog) -> None:
    archive, records, questions = _made(audit)
    audit.close()
    for study in ("1.2", "1.2"):  # and it is not counted as being asked
        with pytest.raises((AuditError, ValueError)):
            questions.ask("pacs", study)
    assert archive.asked == []
    assert len(records.told) == 2
