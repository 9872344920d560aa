"""Associations are remembered from their first instance of a series to their end, whatever the records do meanwhile."""

from __future__ import annotations

import threading
import uuid
from pathlib import Path

import psycopg
import pytest

from app.errors import OutOfResources
from app.identifiers import UID
from app.jobs.records import Transfer
from app.listener import janitor
from app.listener.janitor import Janitor
from app.listener.sessions import Session
from app.listener.spool import Spool
from app.listener.transfers import Transfers
from tests.listening import wait_until

STUDY, SERIES = UID("1.2"), UID("1.2.3")


class PlantedRecords:
    def __init__(self) -> None:
        self.begun: list[Transfer] = []
        self.ended: list[tuple[uuid.UUID, bool]] = []
        self.is_down = False
        self.asked = threading.Event()
        self.may_answer = threading.Event()
        self.may_answer.set()

    def begin_transfer(self, transfer: Transfer) -> None:
        if self.is_down:
            raise OutOfResources("the records can't be written: OperationalError")
        self.begun.append(transfer)

    def end_transfers(self, association: uuid.UUID, *, released: bool) -> None:
        self.asked.set()
        assert self.may_answer.wait(20)
        if self.is_down:
            raise psycopg.OperationalError
        self.ended.append((association, released))

    def break_left_open(self, listener: str) -> None:
        raise AssertionError("nothing was left open")


def session(calling_ae_title: str = "MODALITY") -> Session:
    return Session(calling_ae_title=calling_ae_title, called_ae_title="LIMNER", source_host="127.0.0.1")


def bringing(transfers: Transfers) -> Session:
    """A session that brought an instance."""
    made = session()
    transfers.begin(made, STUDY, SERIES)
    return made


@pytest.fixture
def records() -> PlantedRecords:
    return PlantedRecords()


@pytest.fixture
def transfers(records: PlantedRecords) -> Transfers:
    return Transfers(records, listener="here", calling_ae_titles=["MODALITY"])


def test_each_series_of_an_association_is_told_once(records: PlantedRecords, transfers: Transfers) -> None:
    one = session()
    for series in (SERIES, SERIES, UID("1.2.4"), SERIES):
        transfers.begin(one, STUDY, series)
    assert records.begun == [
        Transfer(one.number, STUDY, series, "MODALITY", "here") for series in (SERIES, UID("1.2.4"))
    ]
    transfers.end(one, released=True)
    transfers.end(one, released=False)  # its connection is closed after its release
    assert records.ended == [(one.number, True)]


def test_a_series_that_could_not_be_told_is_told_with_its_next_instance(
    records: PlantedRecords, transfers: Transfers
) -> None:
    one = session()
    records.is_down = True
    with pytest.raises(OutOfResources):
        transfers.begin(one, STUDY, SERIES)
    records.is_down = False
    transfers.begin(one, STUDY, SERIES)
    assert len(records.begun) == 1


def test_an_end_that_could_not_be_told_is_told_with_the_next(records: PlantedRecords, transfers: Transfers) -> None:
    one, two = bringing(transfers), bringing(transfers)
    records.is_down = True
    transfers.end(one, released=True)
    records.is_down = False
    transfers.end(two, released=False)
    assert records.ended == [(one.number, True), (two.number, False)]


def test_an_end_that_could_not_be_told_is_told_without_another(
    records: PlantedRecords, transfers: Transfers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = bringing(transfers)
    records.is_down = True
    transfers.end(one, released=True)
    records.is_down = False
    monkeypatch.setattr(janitor, "_LOOK_SECONDS", 0.01)
    patient = Janitor(Spool(tmp_path, 0), transfers)
    patient.start()
    try:
        wait_until(lambda: records.ended == [(one.number, True)])
    finally:
        patient.stop()


def test_no_association_waits_for_the_end_of_another(records: PlantedRecords, transfers: Transfers) -> None:
    one, two, three = (bringing(transfers) for _ in range(3))
    records.may_answer.clear()
    first = threading.Thread(target=transfers.end, args=(one,), kwargs={"released": True})
    first.start()
    assert records.asked.wait(20)
    transfers.end(two, released=False)
    transfers.end(three, released=True)
    assert records.ended == []
    records.may_answer.set()
    first.join(20)
    assert records.ended == [(one.number, True), (two.number, False), (three.number, True)]


def test_the_end_of_an_association_that_brought_nothing_is_not_told(
    records: PlantedRecords, transfers: Transfers
) -> None:
    transfers.end(session(), released=True)
    assert not records.asked.is_set()


def test_a_series_that_may_have_been_told_is_ended(records: PlantedRecords, transfers: Transfers) -> None:
    """A database that goes away as it answers may have written it."""
    one = session()
    records.is_down = True
    with pytest.raises(OutOfResources):
        transfers.begin(one, STUDY, SERIES)
    records.is_down = False
    transfers.end(one, released=False)
    assert records.ended == [(one.number, False)]


def test_other_sources_and_what_comes_after_the_end_are_not_told(records: PlantedRecords, transfers: Transfers) -> None:
    other, ended = session("OTHER"), session()
    transfers.begin(other, STUDY, SERIES)
    transfers.end(other, released=True)
    transfers.end(ended, released=False)
    transfers.begin(ended, STUDY, SERIES)  # it was queued when the connection broke
    assert records.begun == []
    assert records.ended == []
