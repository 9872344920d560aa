"""Late arrivals on a real PostgreSQL: the job of the whole takes the place of whatever was made before."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from app.graph import CompletionRecord, GraphRequest
from app.jobs.records import Job
from app.settings_pipeline import URGENT_PRIORITY, RuleSettings
from tests.contract.test_postgresql_completion import audited
from tests.database_fixture import fresh_database
from tests.job_harness import DESTINATIONS, Bench, PlantedGraph, bench, instance


@pytest.fixture
def url(postgres: str) -> Iterator[str]:
    with fresh_database(postgres) as made:
        yield made


class AskedGraph(PlantedGraph):
    """Keeps what it was asked for, and says how far it is until it may end."""

    asked: list[GraphRequest]
    may_end: threading.Event

    def run(self, request: GraphRequest, application: str, **options: object) -> CompletionRecord:
        self.asked = [*getattr(self, "asked", []), request]
        ends = time.monotonic() + 20
        while hasattr(self, "may_end") and not self.may_end.wait(0.05) and time.monotonic() < ends:
            options["progress"]("infer", int(time.monotonic() * 20) % 1000, 1000)  # type: ignore[operator]
        return super().run(request, application, **options)  # type: ignore[arg-type]


def jobs(made: Bench) -> list[Job]:
    """The jobs, the oldest first."""
    return made.records.jobs()[::-1]


def receive(made: Bench, number: int) -> None:
    made.receive(instance(number))
    made.create_jobs()


def other_rule(made: Bench) -> RuleSettings:
    return made.settings.rule[0].model_copy(update={"name": "another"})


def decide(made: Bench, rule: RuleSettings) -> None:
    """Make the job that a rule asks for of the series that is undecided."""
    [series] = made.records.undecided_series()
    assert made.workflow.create_job(series, rule)


def states(made: Bench) -> list[str]:
    return [one.state for one in jobs(made)]


def is_done(made: Bench) -> Callable[[], bool]:
    return lambda: jobs(made)[-1].ended


def check_marks(made: Bench) -> None:
    """Each but the last is superseded by the next, and the audit log says so."""
    found = jobs(made)
    assert [one.superseded_by for one in found] == [*(one.id for one in found[1:]), None]
    assert all((one.superseded_at is None) == (one is found[-1]) for one in found)
    told = [one["detail"] for one in audited(made, "job-superseded")]
    assert [one["superseded_by"] for one in told] == [str(one.id) for one in found[1:]]


def test_a_queued_job_never_runs(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        receive(made, 1)
        receive(made, 2)
        assert states(made) == ["superseded", "queued"]
        made.work(made.all_ended)
        assert states(made) == ["superseded", "closed"]
        assert made.graph.runs == 1
        old = jobs(made)[0]
        assert (old.code, old.finished_at is None) == ("superseded", False)
        assert str(jobs(made)[1].id) in old.reason
        check_marks(made)


def _put_first(made: Bench) -> None:
    with made.records.transaction() as connection:
        made.records.prioritise(connection, jobs(made)[-1].id, URGENT_PRIORITY)


def _graph_priorities(url: str) -> list[int]:
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT priority FROM procrastinate_jobs WHERE task_name = 'segment' ORDER BY id")
        return [one for (one,) in rows]


def test_what_a_person_put_first_stays_first_when_more_comes(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        receive(made, 1)
        _put_first(made)
        for number in (2, 3):
            receive(made, number)
        assert [one.priority for one in jobs(made)] == [URGENT_PRIORITY] * 3
        assert _graph_priorities(url)[-1] == URGENT_PRIORITY
        made.work(made.all_ended)
        assert states(made) == ["superseded", "superseded", "closed"]


def test_what_was_routine_is_as_urgent_as_its_rule_says_now(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url, rule={"priority": 7}) as made:
        receive(made, 1)
        made.settings.__dict__["rule"] = (made.settings.rule[0].model_copy(update={"priority": 3}),)
        receive(made, 2)
        assert [one.priority for one in jobs(made)] == [7, 3]


def test_a_running_graph_is_ended_and_writes_nothing(tmp_path: Path, url: str) -> None:
    graph = AskedGraph()
    graph.may_end = threading.Event()
    with bench(tmp_path, url, graph=graph) as made:
        receive(made, 1)

        def late() -> bool:
            if states(made) == ["running"] and jobs(made)[0].progress_total:
                receive(made, 2)
            if states(made)[1:] == ["running"]:
                graph.may_end.set()  # the first run ended without this
            return len(states(made)) == 2 and made.all_ended()

        made.work(late)
        assert states(made) == ["superseded", "closed"]
        old, new = jobs(made)
        assert (old.results, old.deliveries) == ((), ())
        assert list((made.settings.results_folder / str(old.id)).iterdir()) == []
        assert len(new.results) == 1
        assert made.destinations["archive"].got() == [new.results[0].digest]
        assert not [one for one in audited(made, "job-failed") if one["detail"]["job_id"] == str(old.id)]
        check_marks(made)


def test_a_graph_that_says_nothing_till_its_end_writes_nothing_either(tmp_path: Path, url: str) -> None:
    made_late = threading.Event()
    with bench(tmp_path, url) as made:

        def late(run: int) -> None:
            if run == 1 and not made_late.is_set():
                made_late.set()
                receive(made, 2)

        made.graph.plan = late
        receive(made, 1)
        made.work(lambda: len(states(made)) == 2 and made.all_ended())
        assert states(made) == ["superseded", "closed"]
        assert jobs(made)[0].results == ()
        check_marks(made)


def test_a_held_job_is_held_no_more(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        receive(made, 1)
        with psycopg.connect(url) as connection:
            connection.execute("UPDATE jobs SET state = 'held'")
        receive(made, 2)
        assert states(made) == ["superseded", "queued"]
        made.work(is_done(made))
        check_marks(made)


def test_what_waits_to_be_sent_is_not_sent(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        for name in made.destinations:
            (tmp_path / f"{name}.down").touch()
        receive(made, 1)
        made.work(lambda: all(one.attempts and one.state == "waiting" for one in jobs(made)[0].deliveries or [NEVER]))
        receive(made, 2)
        old = jobs(made)[0]
        assert {(one.state, one.code) for one in old.deliveries} == {("replaced", "superseded")}
        assert states(made) == ["superseded", "queued"]
        for name in made.destinations:
            (tmp_path / f"{name}.down").unlink()
        made.work(made.all_ended)
        assert states(made) == ["superseded", "closed"]
        new = jobs(made)[1]
        assert made.destinations["archive"].got() == made.destinations["viewer"].got() == [new.results[0].digest]
        check_marks(made)


def test_what_was_sent_to_one_destination_is_not_sent_to_the_other(tmp_path: Path, url: str) -> None:
    graph = AskedGraph()
    with bench(tmp_path, url, graph=graph) as made:
        (tmp_path / "viewer.down").touch()
        receive(made, 1)
        made.work(lambda: delivered(made) == ["archive"] and any(one.attempts for one in jobs(made)[0].deliveries))
        receive(made, 2)
        (tmp_path / "viewer.down").unlink()
        made.work(made.all_ended)
        assert states(made) == ["closed", "closed"]  # of the first, something was sent: that is its end
        old, new = jobs(made)
        assert {one.destination: one.state for one in old.deliveries} == {"archive": "delivered", "viewer": "replaced"}
        assert made.destinations["viewer"].got() == [new.results[0].digest]
        assert replaced(graph.asked[1]) == [str(old.results[0].sop_instance_uid)]
        check_marks(made)
        [left] = made.records.objects_to_withdraw()
        assert (left.destination, left.job_id, left.by_job) == ("archive", old.id, new.id)
        assert (left.digest, left.is_uncertain) == (old.results[0].digest, False)


def test_what_is_being_sent_then_is_not_tried_again(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        receive(made, 1)
        made.work(lambda: bool(jobs(made)[0].results))
        receive(made, 2)
        with psycopg.connect(url) as connection:  # as if a sending had failed just after
            connection.execute("UPDATE deliveries SET state = 'waiting', finished_at = NULL, is_unknown = true")
            connection.execute("UPDATE jobs SET state = 'delivering' WHERE superseded_by IS NOT NULL")
        old = jobs(made)[0]
        sent_before = made.destinations["archive"].got()
        for destination in DESTINATIONS:
            made.workflow._delivering.run(destination, "the test")
        assert {one.state for one in jobs(made)[0].deliveries} == {"replaced"}
        assert made.destinations["archive"].got() == sent_before
        sent = made.records.replaced_objects([jobs(made)[1].id])
        assert [(one.is_uncertain, one.job_id) for one in sent] == [(True, old.id)] * 2
        made.work(made.all_ended)
        assert states(made)[0] == "superseded"  # nothing of it arrived, as far as anybody knows


def test_a_closed_job_is_marked_and_the_new_objects_say_what_they_replace(tmp_path: Path, url: str) -> None:
    graph = AskedGraph()
    with bench(tmp_path, url, graph=graph) as made:
        for number in (1, 2, 3):
            receive(made, number)
            made.work(is_done(made))
        assert states(made) == ["closed", "closed", "closed"]
        check_marks(made)
        first, second, third = jobs(made)
        assert [replaced(one) for one in graph.asked] == [
            [],
            [str(first.results[0].sop_instance_uid)],
            [str(second.results[0].sop_instance_uid)],  # which replaced the first itself
        ]
        left = made.records.objects_to_withdraw()
        assert {(one.job_id, one.destination) for one in left} == {
            (job.id, name) for job in (first, second) for name in made.destinations
        }
        assert all(one.by_job in (second.id, third.id) for one in left)


def test_a_chain_reaches_what_was_sent_before_it(tmp_path: Path, url: str) -> None:
    graph = AskedGraph()
    with bench(tmp_path, url, graph=graph) as made:
        receive(made, 1)
        made.work(is_done(made))
        receive(made, 2)  # never runs
        receive(made, 3)
        made.work(is_done(made))
        assert states(made) == ["closed", "superseded", "closed"]
        check_marks(made)
        assert replaced(graph.asked[-1]) == [str(jobs(made)[0].results[0].sop_instance_uid)]


def test_a_later_revision_that_another_rule_decides_supersedes_what_the_first_made(tmp_path: Path, url: str) -> None:
    """The old result is of a revision that is over, whichever rule made it."""
    with bench(tmp_path, url) as made:
        receive(made, 1)
        made.receive(instance(2))
        decide(made, other_rule(made))
        assert states(made) == ["superseded", "queued"]
        assert [one.rule for one in jobs(made)] == ["every", "another"]
        made.work(made.all_ended)
        assert states(made) == ["superseded", "closed"]
        assert made.destinations["archive"].got() == [jobs(made)[1].results[0].digest]
        check_marks(made)


def test_what_another_rule_delivered_is_named_as_replaced(tmp_path: Path, url: str) -> None:
    graph = AskedGraph()
    with bench(tmp_path, url, graph=graph) as made:
        receive(made, 1)
        made.work(is_done(made))
        made.receive(instance(2))
        decide(made, other_rule(made))
        made.work(is_done(made))
        assert states(made) == ["closed", "closed"]
        assert replaced(graph.asked[-1]) == [str(jobs(made)[0].results[0].sop_instance_uid)]
        check_marks(made)


def test_other_series_and_studies_are_left_alone(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        made.receive(instance(1, series=2), instance(1, study=2))
        made.create_jobs()
        receive(made, 1)
        for decided_by in (made.settings.rule[0], other_rule(made)):
            made.receive(instance(2 + len(jobs(made))))
            decide(made, decided_by)
        assert states(made) == ["queued", "queued", "superseded", "superseded", "queued"]
        assert [one.superseded_by for one in jobs(made)[:2]] == [None] * 2


def test_what_another_rule_made_of_the_same_revision_is_left_alone(tmp_path: Path, url: str) -> None:
    """Nothing came since: the series was only decided again, as after a change of the settings."""
    with bench(tmp_path, url) as made:
        receive(made, 1)
        with psycopg.connect(url) as connection:
            connection.execute("UPDATE series SET state = 'receiving'")
        made.models["liver"] = replace(made.models["liver"], weights_digest="1" * 64)
        decide(made, other_rule(made))
        assert states(made) == ["queued"] * 2
        assert [one.superseded_by for one in jobs(made)] == [None] * 2


@pytest.mark.parametrize(
    "made_of_more",
    [
        "UPDATE jobs SET rule = 'interactive', pipeline = 'interactive'",  # what a person drew
        "UPDATE job_inputs SET channel = 'prompt'",
        "UPDATE job_inputs SET channel = 't1'",  # of several series of the study
    ],
)
def test_what_was_not_made_of_the_series_alone_is_left_alone_by_other_rules(
    tmp_path: Path, url: str, made_of_more: str
) -> None:
    with bench(tmp_path, url) as made:
        receive(made, 1)
        with psycopg.connect(url) as connection:
            connection.execute(made_of_more)
        made.receive(instance(2))
        decide(made, other_rule(made))
        assert states(made) == ["queued"] * 2
        assert [one.superseded_by for one in jobs(made)] == [None] * 2


def test_a_study_that_was_refused_for_a_channel_is_left_alone_by_other_rules(tmp_path: Path, url: str) -> None:
    """Its job has the carrier's instances without a channel, and is of the study all the same."""
    with bench(tmp_path, url) as made:
        receive(made, 1)
        with psycopg.connect(url) as connection:
            connection.execute("UPDATE jobs SET state = 'refused', code = 'channel-missing'")
        of_study = made.settings.rule[0].model_copy(update={"after": "study", "channels": {"t1": {}}})
        object.__setattr__(made.settings, "rule", (of_study, other_rule(made)))  # the workflow has these settings
        made.receive(instance(2))
        decide(made, other_rule(made).model_copy(update={"pipeline": "liver"}))
        assert states(made) == ["refused", "queued"]
        assert [one.superseded_by for one in jobs(made)] == [None] * 2


def test_the_same_again_takes_no_place(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        receive(made, 1)
        with psycopg.connect(url) as connection:
            connection.execute("UPDATE series SET state = 'receiving'")
        made.create_jobs()
        [only] = jobs(made)
        assert (only.state, only.superseded_by) == ("queued", None)


def delivered(made: Bench) -> Sequence[str]:
    return [one.destination for one in jobs(made)[0].deliveries if one.state == "delivered"]


def replaced(request: GraphRequest) -> list[str]:
    return [one.sop_instance_uid for objects in request.replaces.values() for one in objects]


class _Never:
    attempts = 0
    state = ""
    id = uuid.UUID(int=0)


NEVER = _Never()


def test_where_queued_jobs_stand(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        for number in (1, 2, 3):
            made.receive(instance(1, series=number))
            made.create_jobs()
        first, second, third = jobs(made)
        with psycopg.connect(url) as connection:
            connection.execute("UPDATE jobs SET priority = 5 WHERE id = %s", (third.id,))
            connection.execute("UPDATE jobs SET state = 'running' WHERE id = %s", (first.id,))
        places = made.records.queue_places([one.id for one in jobs(made)])
        assert {job_id: place.before for job_id, place in places.items()} == {second.id: 2, third.id: 1}
        with psycopg.connect(url) as connection:
            connection.execute(
                "UPDATE procrastinate_jobs SET scheduled_at = now() + interval '1 minute' WHERE args ->> 'job_id' = %s",
                (str(second.id),),
            )
        places = made.records.queue_places([second.id, third.id])
        assert [places[one.id].not_before is None for one in (second, third)] == [False, True]
