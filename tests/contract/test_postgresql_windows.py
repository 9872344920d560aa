"""One attempt a window to a destination that is down, whatever waits for it, and what its coming back sets going."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from app.delivery.destination import Send
from app.errors import DeliveryError, DeliveryRefused
from app.jobs import steering
from app.jobs.probing import DestinationProbing
from app.jobs.queue import TaskQueue
from app.jobs.records import Job, Records
from app.jobs.turn_keeping import Overtaken, kept
from tests.database_fixture import fresh_database
from tests.job_harness import Bench, PlantedDestination, bench, instance
from tests.stepped_bench import SteppedBench, stepped_bench

ONE = {"destinations": ("archive",)}
SLOW = {"retry_first_seconds": 1.5, "retry_longest_seconds": 1.5}


@pytest.fixture
def url(postgres: str) -> Iterator[str]:
    with fresh_database(postgres) as made:
        yield made


class Counted(PlantedDestination):
    """Counts connections and what goes over each; `refusal` says what is wrong with a file, if anything is."""

    connections = 0
    sent: list[int]
    refusal: Callable[[Path], Exception | None] = staticmethod(lambda path: None)

    @contextmanager
    def opened(self, paths: Sequence[Path]) -> Iterator[Send]:
        self.connections += 1
        if (self.folder / f"{self.name}.down").exists():
            raise DeliveryError("nobody there", code="unreachable")
        self.sent.append(0)
        yield self._take

    def _take(self, path: Path) -> None:
        self.sent[-1] += 1
        wrong = self.refusal(path)
        if wrong is not None:
            raise wrong
        self.deliver(path)


def _counted(made: Bench) -> Counted:
    counted = Counted("archive", made.settings.data_folder)
    counted.sent = []
    made.destinations["archive"] = counted
    return counted


def _queue(made: Bench, jobs: int, first: int = 0) -> None:
    for series in range(first, first + jobs):
        made.receive(instance(1, series=series))
    made.create_jobs()


def _events(made: Bench, name: str) -> list[dict[str, object]]:
    lines = [line for path in made.settings.audit_folder.glob("*.jsonl") for line in path.read_text().splitlines()]
    return [one for one in map(json.loads, lines) if one["event"] == name]


def _waiting(made: Bench) -> int:
    jobs = made.records.jobs(1000)
    return sum(one.state == "waiting" for job in jobs for one in job.deliveries)


def test_a_dead_destination_is_tried_once_a_window(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url, rule=ONE, destination=SLOW) as made:
        counted = _counted(made)
        down = tmp_path / "archive.down"
        down.touch()
        _queue(made, 30)
        made.work(lambda: _waiting(made) == 30 and counted.connections >= 3, seconds=60)
        window = made.records.windows()["archive"]
        assert window.failures == counted.connections
        assert (window.code, window.reason) == ("unreachable", "nobody there")
        assert window.down_since is not None
        assert window.next_attempt_at is not None
        assert (window.next_attempt_at - window.down_since).total_seconds() > 1.4 * window.failures
        assert {one.attempts for job in made.records.jobs() for one in job.deliveries} == {0}
        assert len(_events(made, "DESTINATION_DOWN")) == 1

        down.unlink()
        made.work(made.all_ended)
        assert len(counted.got()) == 30
        assert counted.connections <= window.failures + 5  # several objects over one
        assert max(counted.sent) == 25
        assert made.records.windows()["archive"].down_since is None
        assert len(_events(made, "DESTINATION_BACK")) == 1


def test_two_workers_share_the_window(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url, rule=ONE, destination=SLOW) as made, Records(url) as records:
        counted = _counted(made)
        (tmp_path / "archive.down").touch()
        _queue(made, 5)
        with bench(tmp_path, url, rule=ONE, destination=SLOW, name="other") as other:  # one spool, two audit chains
            other.destinations["archive"] = counted
            both = [
                threading.Thread(target=one.work, args=(lambda: counted.connections >= 3,)) for one in (made, other)
            ]
            for one in both:
                one.start()
            for one in both:
                one.join()
        assert records.windows()["archive"].failures == counted.connections


def test_what_a_destination_dislikes_closes_no_window(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url, rule=ONE) as made:
        counted = _counted(made)
        disliked: list[Path] = []

        def dislike(path: Path) -> Exception | None:
            if not disliked:
                disliked.append(path)
            return DeliveryRefused("cannot understand", code="status-c000") if path == disliked[0] else None

        counted.refusal = dislike
        _queue(made, 5)
        made.work(made.all_ended)
        assert len(counted.got()) == 4
        assert made.records.windows()["archive"].failures == 0
        assert sorted(job.state for job in made.records.jobs()) == ["closed"] * 4 + ["failed"]
        assert _events(made, "DESTINATION_DOWN") == []


@pytest.mark.parametrize("code", ["status-a700", "no-answer"])
def test_a_receiver_that_chokes_on_one_object_gets_the_others_first(tmp_path: Path, url: str, code: str) -> None:
    with bench(tmp_path, url, rule=ONE) as made:
        counted = _counted(made)
        heavy: list[Path] = []

        def choke(path: Path) -> Exception | None:
            if not heavy:
                heavy.append(path)
            return DeliveryError("later", code=code) if path == heavy[0] and len(counted.got()) < 5 else None

        counted.refusal = choke
        _queue(made, 6)
        made.work(made.all_ended)
        assert len(set(counted.got())) == 6
        assert {job.state for job in made.records.jobs()} == {"closed"}


def _make_urgent(made: Bench, job: Job) -> None:
    with psycopg.connect(made.records.url) as connection:
        connection.execute("UPDATE jobs SET priority = 10 WHERE id = %s", (job.id,))


def _have_wait(made: Bench, jobs: int) -> None:
    """Have so many jobs' objects wait before the first of them is sent."""
    with made.records.transaction() as connection:
        made.records.pause(connection, "destination", "archive", "somebody")
    _queue(made, jobs)
    made.work(lambda: _waiting(made) == jobs)


def _have_sent(made: Bench) -> None:
    with made.records.transaction() as connection:
        made.records.resume(connection, "destination", "archive")
        TaskQueue().defer_turn(connection, "archive")


@pytest.mark.parametrize("code", ["http-500", "status-a700", "no-answer"])
def test_an_urgent_object_that_never_passes_does_not_hold_up_the_others(tmp_path: Path, url: str, code: str) -> None:
    with bench(tmp_path, url, rule=ONE, destination=SLOW) as made:
        counted = _counted(made)
        (tmp_path / "archive.down").touch()
        _queue(made, 6)
        made.work(lambda: _waiting(made) == 6)
        (tmp_path / "archive.down").unlink()
        heavy = made.records.jobs()[0]
        _make_urgent(made, heavy)
        choked: list[int] = []

        def choke(path: Path) -> Exception | None:
            if hashlib.sha256(path.read_bytes()).hexdigest() != heavy.results[0].digest:
                return None
            choked.append(len(counted.got()))
            return DeliveryError("later", code=code)

        counted.refusal = choke
        made.work(lambda: len(counted.got()) == 5, seconds=10)
        assert choked[0] == 0, "it was not the first, though urgent"
        assert choked[1] == 1, "more than one object went before it was tried again"
        assert len(_events(made, "DESTINATION_DOWN")) <= 2  # the planted outage, and its own first attempt


def test_a_failure_right_after_another_object_was_taken_closes_no_window(tmp_path: Path, url: str) -> None:
    forever = {"retry_first_seconds": 600, "retry_longest_seconds": 600}
    with bench(tmp_path, url, rule=ONE, destination=forever) as made:
        counted = _counted(made)
        _have_wait(made, 6)
        heavy = sorted(made.records.jobs(), key=lambda job: job.deliveries[0].created_at)[2]

        def choke(path: Path) -> Exception | None:
            is_heavy = hashlib.sha256(path.read_bytes()).hexdigest() == heavy.results[0].digest
            return DeliveryError("later", code="http-500") if is_heavy else None

        counted.refusal = choke
        _have_sent(made)
        made.work(lambda: len(counted.got()) == 5, seconds=10)
        assert made.records.windows()["archive"].failures == 0
        (waiting,) = [one for job in made.records.jobs() for one in job.deliveries if one.state == "waiting"]
        assert waiting.next_attempt_at is not None
        assert (waiting.next_attempt_at - waiting.created_at).total_seconds() > 500


def test_an_object_that_failed_often_closes_no_window_by_itself(tmp_path: Path, url: str) -> None:
    """It comes up alone where little is sent, and who comes next must not wait for it."""
    quick = {"retry_first_seconds": 0.5, "retry_longest_seconds": 0.5}
    with bench(tmp_path, url, rule=ONE, destination=quick) as made:
        counted = _counted(made)
        heavy: list[Path] = []
        tried: list[int] = []

        def choke(path: Path) -> Exception | None:
            if not heavy:
                heavy.append(path)
            if path == heavy[0]:
                tried.append(made.records.windows()["archive"].failures)
                return DeliveryError("later", code="http-500")
            return None

        counted.refusal = choke
        _queue(made, 1)
        made.work(lambda: len(tried) >= 4, seconds=20)
        assert made.records.windows()["archive"].failures >= 3, "nothing told it from a destination that is down"
        _queue(made, 1, first=1)
        made.work(lambda: len(counted.got()) == 1, seconds=20)
        before = len(tried)
        made.work(lambda: len(tried) >= before + 4, seconds=20)
        assert tried[before + 1 :] == [0] * (len(tried) - before - 1)
        assert len(_events(made, "DESTINATION_DOWN")) == 1


def test_two_failures_in_a_row_close_the_window(tmp_path: Path, url: str) -> None:
    forever = {"retry_first_seconds": 600, "retry_longest_seconds": 600}
    with bench(tmp_path, url, rule=ONE, destination=forever) as made:
        counted = _counted(made)
        counted.refusal = lambda path: DeliveryError("full", code="status-a700") if len(counted.got()) >= 2 else None
        _have_wait(made, 8)
        _have_sent(made)
        made.work(lambda: any(one.failures for one in made.records.windows().values()), seconds=10)
        assert len(counted.got()) == 2
        assert made.records.windows()["archive"].failures == 1
        assert sorted(one.tries for job in made.records.jobs() for one in job.deliveries) == [0] * 4 + [1] * 4


def test_a_destination_that_is_down_is_not_asked_what_it_takes(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url, rule=ONE, destination=SLOW) as made:
        address = made.settings.destination_named("archive").address
        probing = DestinationProbing(settings=made.settings, records=made.records, destinations=made.destinations)
        turn = made.records.take_turn("archive", address, "task 1", 60)
        assert turn is not None
        assert probing._ask(made.destinations["archive"])
        with made.records.transaction() as connection:
            made.records.close_window(connection, turn, "unreachable", "", 60)
        assert not probing._ask(made.destinations["archive"])
        assert not made.records.is_closed("archive", "OTHER@example:104")


def test_nor_from_a_windows_end_until_whoever_has_the_turn_has_tried(tmp_path: Path, url: str) -> None:
    """Its attempt may wait for the whole time-out: a question beside it would be another connection."""
    with bench(tmp_path, url, rule=ONE, destination=SLOW) as made:
        address = made.settings.destination_named("archive").address
        probing = DestinationProbing(settings=made.settings, records=made.records, destinations=made.destinations)
        turn = made.records.take_turn("archive", address, "task 1", 60)
        assert turn is not None
        with made.records.transaction() as connection:
            made.records.close_window(connection, turn, "unreachable", "", 0)
        assert probing._ask(made.destinations["archive"]), "nothing waits for it, so that nobody else would find it up"
        turn = made.records.take_turn("archive", address, "task 1", 60)
        assert turn is not None
        assert not probing._ask(made.destinations["archive"])
        assert made.records.open_window(turn)
        assert probing._ask(made.destinations["archive"])


def test_nor_while_something_waits_for_it_whose_turn_comes(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url, rule=ONE, destination=SLOW) as made:
        _counted(made)
        (tmp_path / "archive.down").touch()
        _queue(made, 1)
        made.work(lambda: any(one.down_since for one in made.records.windows().values()) and _waiting(made) == 1)
        probing = DestinationProbing(settings=made.settings, records=made.records, destinations=made.destinations)
        with psycopg.connect(url) as connection:
            connection.execute("UPDATE destination_windows SET next_attempt_at = now()")
        assert not probing._ask(made.destinations["archive"])
        with made.records.transaction() as connection:
            made.records.pause(connection, "destination", "archive", "somebody")
        assert probing._ask(made.destinations["archive"]), "nobody else would find it up"
        with made.records.transaction() as connection:
            made.records.resume(connection, "destination", "archive")
        assert not probing._ask(made.destinations["archive"])
        with psycopg.connect(url) as connection:
            connection.execute("UPDATE deliveries SET state = 'cancelled'")
        assert probing._ask(made.destinations["archive"])


def test_an_urgent_job_goes_first(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url, rule=ONE, destination=SLOW) as made:
        counted = _counted(made)
        (tmp_path / "archive.down").touch()
        _queue(made, 4)
        made.work(lambda: _waiting(made) == 4)
        urgent = made.records.jobs()[0]
        with psycopg.connect(url) as connection:
            connection.execute("UPDATE jobs SET priority = 10 WHERE id = %s", (urgent.id,))
        (tmp_path / "archive.down").unlink()
        made.work(made.all_ended)
        assert counted.got()[0] == urgent.results[0].digest
        ages = {job.results[0].digest: job.deliveries[0].created_at for job in made.records.jobs()}
        assert counted.got()[1:] == sorted(counted.got()[1:], key=lambda digest: ages[digest])


def test_a_destination_that_moved_is_tried_at_once(tmp_path: Path, url: str) -> None:
    forever = {"retry_first_seconds": 600, "retry_longest_seconds": 600}
    with bench(tmp_path, url, rule=ONE, destination=forever) as made:
        _counted(made)
        (tmp_path / "archive.down").touch()
        _queue(made, 2)
        made.work(lambda: made.records.windows().get("archive") is not None and _waiting(made) == 2)
        (tmp_path / "archive.down").unlink()
    with bench(tmp_path, url, rule=ONE, destination={**forever, "port": 2}) as made:
        counted = _counted(made)
        made.receive(instance(1, series=7))
        made.create_jobs()
        made.work(made.all_ended)
        assert len(counted.got()) == 3


def test_a_turn_is_taken_over_by_the_same_task_and_after_its_lease(tmp_path: Path, url: str) -> None:
    with Records(url) as records:
        first = records.take_turn("archive", "A@h:1", "task 1", 60)
        assert first is not None
        assert records.take_turn("archive", "A@h:1", "task 2", 60) is None
        again = records.take_turn("archive", "A@h:1", "task 1", 0.0)  # its worker died, and the task is repeated
        assert again is not None
        with records.transaction() as connection:
            assert not records.keep_turn(connection, first)
        other = records.take_turn("archive", "A@h:1", "task 2", 60)
        assert other is not None
        with records.transaction() as connection:
            assert not records.keep_turn(connection, again)
            assert records.close_window(connection, again, "unreachable", "", 60) is None
            assert records.close_window(connection, other, "unreachable", "", 60) is not None
        assert records.take_turn("archive", "A@h:1", "task 3", 60) is None


def test_a_send_that_takes_longer_than_the_lease_keeps_the_turn(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.jobs.delivering._LEASE_LEAST_SECONDS", 1.0)
    monkeypatch.setattr("app.jobs.delivering.SLOWEST_BYTES_PER_SECOND", 10)  # the planted object has 72 bytes
    quick = {"timeout_seconds": 0.1}
    with (
        bench(tmp_path, url, rule=ONE, destination=quick) as made,
        bench(tmp_path, url, rule=ONE, destination=quick, name="other") as other,
    ):
        counted = _counted(made)
        counted.seconds = 4.0
        other.destinations["archive"] = counted
        _queue(made, 1)
        sending = threading.Thread(target=made.work, args=(made.all_ended,))
        sending.start()
        while not counted.sent:
            time.sleep(0.05)
        for task in range(6):  # others look all the time
            time.sleep(0.5)
            other.workflow._delivering.run("archive", f"task of another {task}")
        sending.join()
        assert counted.connections == 1
        assert made.job().deliveries[0].attempts == 1


def test_a_turn_is_kept_no_longer_than_what_is_sent_may_take(tmp_path: Path, url: str) -> None:
    with Records(url) as records:
        turn = records.take_turn("archive", "A@h:1", "task 1", 0.4)
        assert turn is not None
        with kept(records, turn) as keep:
            keep(1.0)
            time.sleep(0.8)
            assert records.take_turn("archive", "A@h:1", "task 2", 60) is None
            time.sleep(1.2)  # as if the sender hung for ever
            assert records.take_turn("archive", "A@h:1", "task 2", 60) is not None
            with pytest.raises(Overtaken):
                keep(1.0)


def test_what_nobody_attends_to_is_found(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url, rule=ONE) as made:
        _counted(made)
        (tmp_path / "archive.down").touch()
        _queue(made, 1)
        made.work(lambda: _waiting(made) == 1)
        (tmp_path / "archive.down").unlink()
        with psycopg.connect(url) as connection:  # as if the task were lost
            connection.execute("DELETE FROM procrastinate_jobs")
            connection.execute("UPDATE destination_windows SET next_attempt_at = now() - interval '1 minute'")
        made.workflow._delivering.attend()
        assert [task for task, _ in made.queued_tasks()] == ["turn"]
        made.work(made.all_ended)
        assert made.job().state == "closed"


@pytest.mark.parametrize(("scheduled", "tasks"), [(None, 1), (0, 1), (3600, 2)])
def test_a_task_for_later_attends_to_nothing_that_is_due(
    tmp_path: Path, url: str, scheduled: int | None, tasks: int
) -> None:
    """`scheduled` is seconds from now, or None where a task is to be done at once."""
    with bench(tmp_path, url, rule=ONE) as made:
        _counted(made)
        (tmp_path / "archive.down").touch()
        _queue(made, 1)
        made.work(lambda: _waiting(made) == 1)
        with psycopg.connect(url) as connection:
            connection.execute("UPDATE destination_windows SET next_attempt_at = now() - interval '1 minute'")
            connection.execute("UPDATE deliveries SET next_attempt_at = NULL")
            connection.execute("DELETE FROM procrastinate_jobs")
        with made.records.transaction() as connection:
            TaskQueue().defer_turn(connection, "archive")
        with psycopg.connect(url) as connection:
            later = "UPDATE procrastinate_jobs SET scheduled_at = now() + make_interval(secs => %s)"
            connection.execute(later, (scheduled,))
        made.workflow._delivering.attend()
        assert len(made.queued_tasks()) == tasks


def test_a_destination_may_have_the_longest_name_that_the_settings_take(tmp_path: Path, url: str) -> None:
    name = "d" * 63
    with bench(tmp_path, url, rule={"destinations": ("archive",)}) as made:
        with made.records.transaction() as connection:
            TaskQueue().defer_turn(connection, name)
        with psycopg.connect(url) as connection:
            (found,) = connection.execute("SELECT args ->> 'destination' FROM procrastinate_jobs").fetchall()
        assert found == (name,)


class _Killed(BaseException):
    """The worker's process ends here, and records nothing."""


class _Kills(PlantedDestination):
    """Kills who sends to it, or asks it, until it is mended."""

    is_mended = False
    can_be_asked = False
    kills_who_asks = False
    has_it = False
    attempts = 0

    def deliver(self, path: Path) -> None:
        self.attempts += 1
        if not self.is_mended:
            raise _Killed
        super().deliver(path)

    def holds(self, *_: str) -> bool:
        if self.kills_who_asks:
            raise _Killed
        return self.has_it


def _killing(made: SteppedBench) -> _Kills:
    """One object that waits for a destination that kills."""
    made.destinations["archive"] = kills = _Kills("archive", made.settings.data_folder)
    made.receive(instance(1))
    made.create_jobs()
    made.step()
    return kills


def _take_turns(made: SteppedBench, most: int = 10) -> int:
    """Have a worker take the turn, and another after each that is killed; how many were."""
    for killed in range(most):
        try:
            made.workflow._delivering.run("archive", "task 1")
        except _Killed:
            continue
        return killed
    return most


def test_a_delivery_that_kills_its_worker_is_given_up_and_can_be_replayed(tmp_path: Path, url: str) -> None:
    with stepped_bench(tmp_path, url, rule=ONE, destination={"maximum_attempts": 3}) as made:
        kills = _killing(made)
        assert _take_turns(made) == kills.attempts == 3
        (delivery,) = made.job().deliveries
        assert (delivery.state, delivery.code, delivery.is_unknown) == ("failed", "attempts-exhausted", True)
        made.finish()
        assert (made.job().state, made.job().code) == ("failed", "not-delivered")
        assert [one["outcome"] for one in _events(made, "DELIVERY_FAILED")] == [8]
        assert made.account().agrees
        kills.is_mended = True
        steering.ask(made.records, "replay", made.job(), "erika")
        made.finish()
        assert (made.job().state, len(kills.got())) == ("closed", 1)


@pytest.mark.parametrize(
    ("has_it", "kills_who_asks", "ends"),
    [(True, False, "delivered"), (False, False, "failed"), (False, True, "failed")],
)
def test_what_killed_its_worker_is_asked_for_before_it_is_given_up(
    has_it: bool, kills_who_asks: bool, ends: str, tmp_path: Path, url: str
) -> None:
    with stepped_bench(tmp_path, url, rule=ONE, destination={"maximum_attempts": 1}) as made:
        kills = _killing(made)
        kills.can_be_asked, kills.has_it, kills.kills_who_asks = True, has_it, kills_who_asks
        assert _take_turns(made) == (2 if kills_who_asks else 1)
        assert (made.job().deliveries[0].state, kills.attempts) == (ends, 1)
