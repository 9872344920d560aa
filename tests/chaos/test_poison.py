"""Jobs that kill their worker end as dead letters after exactly their attempts, and do their neighbours no harm."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from app.jobs import steering
from tests.chaos.figures import Figures
from tests.chaos.planted_worker import runs, workers
from tests.database_fixture import fresh_database
from tests.job_harness import Bench, bench, instance

PROMISE = "5. Jobs that kill their worker among others"
_SECONDS = 600.0


def _wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _SECONDS
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _ended(made: Bench) -> bool:
    return all(job.ended for job in made.records.jobs(1000))


@pytest.mark.timeout(1300)
def test_poison_is_a_dead_letter_after_its_attempts(tmp_path: Path, postgres: str, figures: Figures) -> None:
    jobs, poisonous = figures.of(short=6, full=100), figures.of(short=1, full=12)
    with fresh_database(postgres) as url, bench(tmp_path, url) as made:
        for series in range(jobs):
            made.receive(instance(1, series=series))
        made.create_jobs()
        made.audit.close()
        listed = made.records.jobs(1000)
        poison = {job.key for job in listed[:: jobs // poisonous][:poisonous]}
        (tmp_path / "poison").write_text("\n".join(poison))
        with workers(tmp_path, url, 1) as deaths:
            _wait(lambda: _ended(made))
            counted = Counter(run.key for run in runs(tmp_path))
            states = {job.key: job.state for job in made.records.jobs(1000)}
            figures.show(PROMISE, "jobs that kill their worker", seen=len(poison), exactly=poisonous)
            most = max(counted[key] for key in poison)
            least = min(counted[key] for key in poison)
            figures.show(PROMISE, "runs of each at most, of 3 attempts", seen=most, exactly=3)
            figures.show(PROMISE, "runs of each at least, of 3 attempts", seen=least, exactly=3)
            figures.show(PROMISE, "workers killed", seen=len(deaths), exactly=3 * poisonous)
            dead = sum(states[key] == "dead-letter" for key in poison)
            figures.show(PROMISE, "of them dead letters", seen=dead, exactly=poisonous)
            closed = sum(state == "closed" for key, state in states.items() if key not in poison)
            figures.show(PROMISE, "neighbours closed", seen=closed, exactly=jobs - poisonous)
            again = sum(count - 1 for key, count in counted.items() if key not in poison)
            figures.show(PROMISE, "runs of neighbours that were repeated", seen=again, exactly=0)

            (tmp_path / "poison").write_text("")  # the defect is mended
            for job in filter(None, map(made.records.job, made.records.replayable_jobs())):
                steering.ask(made.records, "replay", job, "erika")
            _wait(lambda: {job.state for job in made.records.jobs(1000)} == {"closed"})
        digests = {result.digest for job in made.records.jobs(1000) for result in job.results}
        figures.show(PROMISE, "results after a replay, one a job", seen=len(digests), exactly=jobs)
