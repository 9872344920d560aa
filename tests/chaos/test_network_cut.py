"""Promise 10: the link to the archive is cut at random moments: nothing lost, nothing doubled."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests import peers
from tests.chaos.delivering import (
    arrived,
    held_by,
    jobs_of,
    queue_jobs,
    show_held,
    show_received,
    show_results,
    wait_until,
    working,
)
from tests.chaos.figures import Figures
from tests.database_fixture import fresh_database
from tests.dicom_results import ARCHIVE, connect, delivering_bench

PROMISE = "10. Network cut at random"
EACH = 4
"""Jobs that come before each cut, so that something is always on its way."""

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]
"""The toolkit drops the sockets of what did not connect, and its thread can stumble over an abort of what was cut."""


@pytest.mark.timeout(3600)
def test_nothing_is_lost_or_doubled(
    tmp_path: Path, postgres: str, network: peers.PeerNetwork, figures: Figures
) -> None:
    cuts = figures.of(short=8, full=200)
    options = {"timeout_seconds": 1.0, "retry_first_seconds": 0.2, "retry_longest_seconds": 0.4}
    busy = 0
    with (
        fresh_database(postgres) as url,
        peers.running_orthanc(network, tmp_path / "orthanc", notes_what_comes=True) as orthanc,
        delivering_bench(tmp_path, url, orthanc.host, orthanc.port, "PACS", **options) as made,
    ):
        connect(made)
        with working(made, ARCHIVE):
            for number in range(cuts):
                queue_jobs(made, number * EACH, EACH)
                wait_until(lambda least=number * EACH: arrived(made, ARCHIVE) > least, 60)  # type: ignore[misc]
                time.sleep(random.uniform(0, 0.05))
                network.cut()
                busy += arrived(made, ARCHIVE) < (number + 1) * EACH
                time.sleep(random.choice((0.05, 0.3, random.uniform(0.5, 2.5))))
                network.join()
            drained = wait_until(made.all_ended, 60)
        jobs, received = jobs_of(made), orthanc.received()
        held = held_by(orthanc, tmp_path / "held")
    unknown = sum(one.attempts > 1 for job in jobs for one in job.deliveries)
    figures.show(PROMISE, "cuts", seen=cuts, least=cuts)
    figures.show(PROMISE, "cuts with something on its way", seen=busy, least=figures.of(short=1, full=100))
    figures.show(PROMISE, "results tried more than once", seen=unknown, least=figures.of(short=0, full=20))
    results = show_results(figures, PROMISE, jobs)
    show_held(figures, PROMISE, results, held)
    figures.show(PROMISE, "objects in Orthanc more than results", seen=len(held) - len(results), exactly=0)
    show_received(figures, PROMISE, received, unanswered=cuts // 50 + 1)  # a cut may meet the question too
    figures.show(
        PROMISE,
        "seconds until all had gone after the last cut, windows of 0.2 s and 0.4 s (by default 5 s to 600 s)",
        seen=drained,
        most=figures.of(short=120, full=30),
    )
