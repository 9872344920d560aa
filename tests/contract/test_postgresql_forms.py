"""Which objects each destination gets, on a real PostgreSQL and its queue: by its profile, and by what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.audit.log import verify as verify_audit
from app.errors import DeliveryError
from app.jobs.probing import keep_accepted
from operators.object_kinds import Kind
from tests.database_fixture import fresh_database
from tests.job_harness import Bench, PlantedDestination, bench, instance

LABELMAP_FIRST = {"segmentation_as": ("labelmap", "segmentation", "structure-set")}


@pytest.fixture
def url(postgres: str) -> Iterator[str]:
    with fresh_database(postgres) as made:
        yield made


def _run(made: Bench) -> None:
    made.receive(instance(1), instance(2))
    made.create_jobs()
    made.work(made.all_ended)


def _sent(made: Bench) -> dict[str, list[Kind]]:
    """The kinds of objects that each destination got."""
    kinds = {one.digest: one.kind for one in made.job().results}
    return {name: [kinds[digest] for digest in one.got()] for name, one in made.destinations.items()}


def _told(made: Bench, destination: str) -> list[tuple[str, Kind]]:
    kinds = {one.digest: one.kind for one in made.job().results}
    return sorted((one.state, kinds[one.digest]) for one in made.job().deliveries if one.destination == destination)


def test_each_destination_gets_the_best_form_that_it_said_it_takes(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url, destination=LABELMAP_FIRST) as made:
        made.destinations["archive"].accepted = ("segmentation", "structure-set")
        for one in made.destinations.values():
            assert keep_accepted(made.records, made.settings, one)
        _run(made)
        assert made.job().state == "closed"
        assert _sent(made) == {"archive": ["segmentation"], "viewer": ["labelmap"]}
        assert _told(made, "archive") == [("delivered", "segmentation")]


def test_what_a_destination_refuses_is_replaced_by_the_next_form(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url, destination=LABELMAP_FIRST) as made:  # nobody has asked them yet
        made.destinations["archive"].accepted = ("structure-set", "report")
        _run(made)
        assert made.job().state == "closed"
        assert _sent(made) == {"archive": ["structure-set"], "viewer": ["labelmap"]}
        assert _told(made, "archive") == [("delivered", "structure-set"), ("replaced", "labelmap")]
        assert made.records.profiles()["archive"].accepted == ("structure-set", "report")
        (replaced,) = (one for one in made.job().deliveries if one.state == "replaced")
        assert replaced.reason == "archive does not take it; it gets the structure-set instead"
    assert verify_audit(made.settings.audit_folder).ok
    assert "delivery-replaced" in "".join(path.read_text() for path in made.settings.audit_folder.glob("*.jsonl"))


def test_a_report_refers_to_the_form_that_its_receiver_gets(tmp_path: Path, url: str) -> None:
    results = {"results": ("segmentation", "report")}
    with bench(tmp_path, url, rule=results, destination=LABELMAP_FIRST) as made:
        made.destinations["archive"].accepted = ("segmentation", "report", "report-on-labelmap", "report-alone")
        _run(made)
        assert made.job().state == "closed"
        assert _sent(made) == {"archive": ["segmentation", "report"], "viewer": ["labelmap", "report-on-labelmap"]}
        assert _told(made, "archive") == [
            ("delivered", "report"),
            ("delivered", "segmentation"),
            ("replaced", "labelmap"),
            ("replaced", "report-on-labelmap"),
        ]


def test_what_nobody_takes_fails_where_everybody_sees_it(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url, destination=LABELMAP_FIRST) as made:
        made.destinations["archive"].accepted = ("report",)
        _run(made)
        assert (made.job().state, made.job().code) == ("failed", "not-delivered")
        assert made.job().reason == "not delivered to archive"
        assert _sent(made) == {"archive": [], "viewer": ["labelmap"]}
        assert _told(made, "archive") == [("failed", "labelmap")]


@pytest.mark.parametrize("error", [DeliveryError("down", code="unreachable"), RuntimeError("a defect")])
def test_what_a_destination_said_stays_where_it_can_not_be_asked(error: Exception, tmp_path: Path, url: str) -> None:
    class Silent(PlantedDestination):
        def accepted_kinds(self) -> tuple[Kind, ...]:
            raise error

    with bench(tmp_path, url) as made:
        address = made.settings.destination_named("archive").address
        made.records.keep_profile("archive", address, ["report"])
        assert not keep_accepted(made.records, made.settings, Silent("archive", tmp_path))
        assert made.records.profiles()["archive"].accepted == ("report",)


def test_a_profile_of_another_peer_says_nothing(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url, destination=LABELMAP_FIRST) as made:
        made.records.keep_profile("archive", "OTHER@example:104", ("structure-set",))
        _run(made)
        assert _sent(made)["archive"] == ["labelmap"]


def test_a_rule_sends_what_it_says_and_a_destination_has_the_last_word(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url, rule={"results": ("segmentation", "report", "capture")}) as made:
        _run(made)
        assert {name: sorted(kinds) for name, kinds in _sent(made).items()} == {
            "archive": ["capture", "report", "segmentation"],
            "viewer": ["capture", "report", "segmentation"],
        }
    own = {"results": ("report",)}
    with bench(tmp_path / "own", url, rule={"results": ("segmentation",)}, destination=own) as made:
        made.receive(instance(1, study=2))
        made.create_jobs()
        made.work(made.all_ended)
        sent = {one.destination: one.digest for one in made.records.jobs()[0].deliveries}
        kinds = {one.digest: one.kind for one in made.records.jobs()[0].results}
        assert {name: kinds[digest] for name, digest in sent.items()} == {
            "archive": "report-alone",
            "viewer": "report-alone",
        }
