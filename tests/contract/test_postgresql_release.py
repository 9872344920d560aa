"""A series is complete as soon as the association that brought it is released: a real listener on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from pynetdicom import AE
from pynetdicom.association import Association

from app.bootstrap import serving
from app.identifiers import UID
from app.jobs.presence import LISTENERS, Presence
from app.jobs.records import Records, Transfer
from app.listener.spool import Spool
from app.listener.transfers import Transfers
from app.routing.completion import CompletionScanner
from app.routing.rules import RuleSet
from app.routing.waiting import Patience, judge_series
from tests import peers
from tests.database_fixture import fresh_database
from tests.job_harness import Bench, bench, instance
from tests.listening import CT, Listening, RecordedAudit, listening, make_ct, write_ct

PATIENCE = Patience(quiet_seconds=60, study_quiet_seconds=60, incomplete_seconds=600, on_release=True)
SERIES = "1.2.826.0.1.3680043.8.498"
STUDY = f"{SERIES}.1"


@pytest.fixture
def url(postgres: str) -> Iterator[str]:
    with fresh_database(postgres) as made:
        yield made


@pytest.fixture
def records(url: str) -> Iterator[Records]:
    with Records(url) as made:
        yield made


def completion_scanner(made: Bench) -> CompletionScanner:
    patient = made.settings.routing.model_copy(update={"series_quiet_seconds": 3600.0 * 24})
    return CompletionScanner(
        settings=made.settings.model_copy(update={"routing": patient}),
        records=made.records,
        audit=made.audit,
        rules=RuleSet(made.settings.rule),
        spool_path_of=lambda digest: made.spool / f"{digest}.dcm",
        create_job=made.workflow.create_job,
        create_study_job=made.workflow.create_study_job,
    )


@contextmanager
def receiving(folder: Path, records: Records, *titles: str) -> Iterator[Listening]:
    transfers = Transfers(records, listener="here", calling_ae_titles=titles or ("MODALITY",))
    transfers.start()
    with listening(folder, record=records.record_instance, transfers=transfers) as made:
        yield made


def associate(port: int, calling: str = "MODALITY") -> Association:
    entity = AE(calling)
    entity.add_requested_context(CT)
    association = entity.associate("127.0.0.1", port, ae_title="LIMNER")
    assert association.is_established
    return association


def store(association: Association, number: int, *, series: int = 2) -> None:
    sent = make_ct(number, study=STUDY, series=f"{SERIES}.{series}")
    assert association.send_c_store(sent).Status == 0


def waits(records: Records) -> dict[int, str]:
    """What each undecided series waits for, by the last number of its UID."""
    return {
        int(one.series_instance_uid.rpartition(".")[2]): judge_series(one, PATIENCE).code
        for one in records.undecided_series()
    }


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def transfers(records: Records) -> list[tuple[str, ...]]:
    with psycopg.connect(records.url) as connection:
        return connection.execute("SELECT state FROM transfers ORDER BY state").fetchall()


def test_release_completes_a_series_at_once(tmp_path: Path, records: Records) -> None:
    with receiving(tmp_path / "spool", records) as made:
        association = associate(made.port)
        store(association, 1)
        store(association, 2)
        assert waits(records) == {2: "association"}
        association.release()
        until(lambda: waits(records) == {2: ""})
        assert transfers(records) == []
        late = associate(made.port)
        store(late, 3)
        assert waits(records) == {2: "association"}
        late.release()
        until(lambda: waits(records) == {2: ""})


def test_dcmtk_releases(tmp_path: Path, records: Records) -> None:
    peers.require("dcmsend")
    files = [write_ct(tmp_path / f"{number}.dcm", number) for number in (1, 2, 3)]
    with receiving(tmp_path / "spool", records) as made:
        peers.dcmsend(files, "127.0.0.1", made.port, called="LIMNER")
        until(lambda: waits(records) == {2: ""})


@pytest.mark.parametrize("how", ["abort", "close"])
def test_an_association_that_breaks_completes_nothing_but_one_that_sends_again_does(
    tmp_path: Path, records: Records, how: str
) -> None:
    with receiving(tmp_path / "spool", records) as made:
        broken = associate(made.port)
        store(broken, 1)
        if how == "abort":
            broken.abort()
        else:
            broken.dul.socket.socket.close()
        until(lambda: transfers(records) == [("broken",)])
        assert waits(records) == {2: "quiet"}
        other = associate(made.port)
        store(other, 1, series=3)
        other.release()
        until(lambda: waits(records) == {2: "quiet", 3: ""})  # what broke off is not made whole by another series
        again = associate(made.port)
        store(again, 1)
        store(again, 2)
        again.release()
        until(lambda: waits(records) == {2: "", 3: ""})


def test_all_associations_of_the_source_must_be_done_with_the_study(tmp_path: Path, records: Records) -> None:
    with receiving(tmp_path / "spool", records, "MODALITY", "OTHER") as made:
        one, two = associate(made.port), associate(made.port)
        elsewhere = associate(made.port, calling="OTHER")
        store(one, 1)
        store(two, 2)  # half of the series each
        store(two, 1, series=3)
        store(elsewhere, 1, series=4)
        one.release()
        until(lambda: ("released",) in transfers(records))
        assert waits(records) == {2: "association", 3: "association", 4: "association"}
        two.release()
        until(lambda: waits(records) == {2: "", 3: "", 4: "association"})
        elsewhere.release()
        until(lambda: waits(records) == {2: "", 3: "", 4: ""})


def test_half_a_series_by_an_association_that_broke_is_not_whole_by_the_other_half(
    tmp_path: Path, records: Records
) -> None:
    with receiving(tmp_path / "spool", records) as made:
        one, two = associate(made.port), associate(made.port)
        store(one, 1)
        store(two, 2)
        one.abort()
        until(lambda: ("broken",) in transfers(records))
        two.release()
        until(lambda: transfers(records) == [("broken",)])
        assert waits(records) == {2: "quiet"}


def test_other_sources_cost_nothing(tmp_path: Path, records: Records) -> None:
    with receiving(tmp_path / "spool", records, "OTHER") as made:
        association = associate(made.port)
        store(association, 1)
        assert transfers(records) == []
        association.release()


def test_what_a_killed_listener_left_open_holds_nothing_up(tmp_path: Path, records: Records) -> None:
    with receiving(tmp_path / "spool", records) as made:
        association = associate(made.port)
        store(association, 1)
        Transfers(records, listener="elsewhere", calling_ae_titles=["MODALITY"]).start()
        assert transfers(records) == [("open",)]
        Transfers(records, listener="here", calling_ae_titles=["MODALITY"]).start()
        assert transfers(records) == [("broken",)]
        assert waits(records) == {2: "quiet"}
        association.abort()


def _left_open_elsewhere(records: Records, minutes: int, *, quiet_minutes: int) -> None:
    """An association of a listener that is no more, that brought something last so long ago."""
    records.begin_transfer(Transfer(uuid.uuid4(), UID(STUDY), UID(f"{SERIES}.2"), "MODALITY", "a host that is gone"))
    with psycopg.connect(records.url) as connection:
        connection.execute("UPDATE transfers SET began_at = now() - make_interval(mins => %s)", (minutes,))
        connection.execute("UPDATE series SET last_received_at = now() - make_interval(mins => %s)", (quiet_minutes,))


def test_what_another_listener_left_open_that_vanished_is_ended_by_who_decides(tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url) as made:
        made.receive(replace(instance(1), study_instance_uid=UID(STUDY), series_instance_uid=UID(f"{SERIES}.2")))
        _left_open_elsewhere(made.records, 600, quiet_minutes=10)
        scanner = completion_scanner(made)
        scanner.scan()
        assert transfers(made.records) == [("open",)], "it brought something a while ago"
        with psycopg.connect(url) as connection:
            connection.execute("UPDATE series SET last_received_at = now() - interval '2 hours'")
        scanner.scan()
        assert transfers(made.records) == [("open",)], "this is looked at once a minute"
        completion_scanner(made).scan()
        assert transfers(made.records) == [("broken",)]


def test_the_first_listener_to_start_ends_what_all_others_left_open(tmp_path: Path, records: Records) -> None:
    spool = Spool(tmp_path / "spool", 0)
    ground: Any = SimpleNamespace(spool=spool, records=records, audit=RecordedAudit())

    async def start() -> None:
        presence = Presence(records.url, LISTENERS)
        await serving._take_stock(ground, presence)
        await presence.leave()

    async def start_beside_another() -> None:
        other = Presence(records.url, LISTENERS)
        await other.enter(lambda: asyncio.sleep(0))
        await start()
        await other.leave()

    _left_open_elsewhere(records, 0, quiet_minutes=0)
    asyncio.run(start_beside_another())
    assert transfers(records) == [("open",)]
    asyncio.run(start())
    assert transfers(records) == [("broken",)]


def test_a_series_that_was_whole_is_released_as_what_was_left_open_beside_it_is_ended(
    tmp_path: Path, records: Records
) -> None:
    with receiving(tmp_path / "spool", records) as made:
        association = associate(made.port)
        store(association, 1, series=3)
        _left_open_elsewhere(records, 0, quiet_minutes=0)
        association.release()
        until(lambda: ("released",) in transfers(records))
        assert waits(records) == {3: "association"}
        assert records.end_left_open(None) == 1
        assert waits(records) == {3: ""}
