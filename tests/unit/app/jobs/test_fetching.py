"""A series is fetched once at a time, and how that ended is told once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.audit.log import AuditLog
from app.errors import DeliveryError
from app.jobs.fetching import ImageFetching

SERIES = ("2.25.1", "2.25.2")


class PlantedArchive:
    """Answers as it is told, when it is let."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.asked: list[tuple[str, str]] = []
        self.may_end = threading.Event()

    def fetch(self, study_instance_uid: str, series_instance_uid: str) -> None:
        self.asked.append((study_instance_uid, series_instance_uid))
        self.may_end.wait(10)
        if self.error is not None:
            raise self.error


@pytest.fixture
def audit(tmp_path: Path) -> Iterator[AuditLog]:
    with AuditLog(tmp_path / "audit") as log:
        yield log


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (None, "were sent, and none came"),
        (DeliveryError("PACS at 192.0.2.1:104 can't be reached", code="unreachable"), "192.0.2.1:104 can't be reached"),
        (ValueError("of a patient"), "could not be fetched$"),
    ],
    ids=["sent elsewhere", "unreachable", "defect"],
)
def test_why_images_did_not_come(audit: AuditLog, tmp_path: Path, error: Exception | None, message: str) -> None:
    archive = PlantedArchive(error)
    fetching = ImageFetching({"pacs": archive}, audit)
    assert fetching.fetch("pacs", *SERIES) is None
    assert fetching.fetch("pacs", *SERIES) is None
    assert not fetching.is_settled(*SERIES)
    archive.may_end.set()
    _until(lambda: fetching.is_settled(*SERIES, keep=True))
    problem = fetching.fetch("pacs", *SERIES)
    assert problem is not None
    assert problem.code == "images-not-found"
    with pytest.raises(type(problem), match=message):
        raise problem
    assert archive.asked == [SERIES]
    assert (tmp_path / "audit" / "audit.jsonl").read_text().count("IMAGES_REQUESTED") == 1
    assert fetching.fetch("pacs", *SERIES) is None  # anew
    _until(lambda: len(archive.asked) == 2)


def test_what_came_is_forgotten(audit: AuditLog) -> None:
    archive = PlantedArchive(None)
    archive.may_end.set()
    fetching = ImageFetching({"pacs": archive}, audit)
    assert fetching.fetch("pacs", *SERIES) is None
    _until(lambda: fetching.is_settled(*SERIES))
    assert fetching.fetch("pacs", *SERIES) is None
    assert fetching.is_settled("2.25.1", "2.25.3")
