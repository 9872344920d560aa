"""What a job waits for is said by its records."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest

from app.jobs.arrival_entries import QueuePlace
from app.jobs.entries import Delivery, Job, JobState
from app.jobs.explaining import job_waits_for
from app.jobs.records.pausing import Pause
from app.jobs.return_entries import DestinationWindow
from tests.unit.app.jobs.test_records import a_job

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LOCAL = NOON.astimezone().strftime("%Y-%m-%d %H:%M:%S")
ID = uuid.UUID(int=1)


def delivery(**facts: Any) -> Delivery:
    known: dict[str, Any] = {
        "job_id": ID, "digest": "d", "destination": "archive", "state": "waiting", "attempts": 0, "code": "",
        "reason": "", "created_at": NOON, "last_attempt_at": None, "next_attempt_at": None, "finished_at": None,
    }  # fmt: skip
    return Delivery(**{**known, **facts})


@pytest.mark.parametrize(
    ("job", "place", "words"),
    [
        (a_job(state="queued"), QueuePlace(ID, 3, None), "waits for its turn: 3 before it"),
        (a_job(state="queued"), None, "waits for its turn"),
        (
            a_job(state="queued", code="triton-unreachable"),
            QueuePlace(ID, 0, NOON),
            f"the next attempt begins at {LOCAL}, after triton-unreachable",
        ),
        (a_job(progress_step="infer", progress_done=3, progress_total=9), None, "runs: infer 3 of 9, attempt 2"),
        (a_job(), None, "runs: starts, attempt 2"),
        (a_job(state="held"), None, "held for a person's decision: `limner jobs release` or `limner jobs discard`"),
        (a_job(state="delivering", deliveries=(delivery(),)), None, "waits for its turn for archive"),
        (
            a_job(
                state="delivering",
                deliveries=(
                    delivery(attempts=2, code="unreachable", next_attempt_at=NOON),
                    delivery(destination="viewer", state="sending", attempts=1),
                    delivery(destination="third", state="delivered", finished_at=NOON + timedelta(seconds=1)),
                ),
            ),
            None,
            f"the next attempt for archive begins at {LOCAL}, after 2 (unreachable); being sent to viewer, attempt 1",
        ),
        (a_job(state="delivering"), None, "its deliveries have ended: it is about to be closed"),
    ],
)
def test_what_a_job_waits_for(job: Job, place: QueuePlace | None, words: str) -> None:
    assert job_waits_for(job, place) == words


_PAUSED = [Pause("pipeline", "p", "erika", NOON), Pause("destination", "archive", "erika", NOON)]
_OTHERS = [Pause("pipeline", "q", "erika", NOON), Pause("destination", "viewer", "erika", NOON)]
_EVERYTHING = [Pause("everything", "", "erika", NOON)]


@pytest.mark.parametrize(
    ("job", "pauses", "words"),
    [
        (a_job(state="queued"), _PAUSED, f"pipeline p was paused at {LOCAL} by erika; 3 before it"),
        (a_job(state="queued"), _EVERYTHING, f"everything was paused at {LOCAL} by erika; 3 before it"),
        (a_job(state="queued"), _OTHERS, "waits for its turn: 3 before it"),
        (a_job(), _PAUSED, "runs: starts, attempt 2"),  # what runs ends
        (
            a_job(state="delivering", deliveries=(delivery(),)),
            _PAUSED,
            f"waits for archive: destination archive was paused at {LOCAL} by erika",
        ),
        (
            a_job(state="delivering", deliveries=(delivery(attempts=1, code="no-answer", next_attempt_at=NOON),)),
            _EVERYTHING,
            f"waits for archive: everything was paused at {LOCAL} by erika",
        ),
        (a_job(state="delivering", deliveries=(delivery(),)), _OTHERS, "waits for its turn for archive"),
        (a_job(state="delivering", deliveries=(delivery(state="committing"),)), _PAUSED, "archive: committing"),
    ],
)
def test_what_is_paused_is_said(job: Job, pauses: list[Pause], words: str) -> None:
    assert job_waits_for(job, QueuePlace(ID, 3, None), pauses=pauses) == words


def test_what_waits_for_a_destination_that_is_down_says_so() -> None:
    tried = delivery(attempts=2, code="no-answer", next_attempt_at=NOON)
    later = NOON + timedelta(minutes=5)
    window = DestinationWindow("archive", "ARCHIVE@host:104", 3, NOON, later, "no-connection", "refused")
    at = later.astimezone().strftime("%Y-%m-%d %H:%M:%S")

    def said(one: Delivery, closed: DestinationWindow) -> str:
        job = a_job(state="delivering", deliveries=(one,))
        return job_waits_for(job, windows={closed.destination: closed})

    down = f"waits for archive, which has been down since {LOCAL} (no-connection)"
    assert said(delivery(), window) == f"{down}: it is tried next at {at}"
    assert said(delivery(), replace(window, next_attempt_at=None)) == f"{down}: it is about to be tried"
    assert said(delivery(), replace(window, down_since=None)) == "waits for its turn for archive"
    assert said(delivery(), replace(window, destination="viewer")) == "waits for its turn for archive"
    assert said(tried, window) == f"the next attempt for archive begins at {LOCAL}, after 2 (no-answer)"


@pytest.mark.parametrize("state", get_args(JobState))
def test_only_what_has_ended_waits_for_nothing(state: JobState) -> None:
    job = a_job(state=state)
    assert bool(job_waits_for(job)) == (not job.ended)
