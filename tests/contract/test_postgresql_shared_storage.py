"""Two hosts on one real PostgreSQL and one bucket: results, removals and copies, and storage that is away."""

from __future__ import annotations

import hashlib
import os
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

from app.audit.log import read_records
from app.errors import AuditError, OutOfResources, StorageError
from app.jobs.local_copies import LocalCopies
from app.jobs.records import Instance
from app.jobs.result_files import SharedResultFiles, share_patiently
from app.listener.adoption import adopt_unrecorded
from app.listener.shared_spool import SharedSpool
from app.settings import Settings
from app.storage.object_store import ObjectStore
from tests.contract.test_s3_storage import store_of
from tests.database_fixture import fresh_database
from tests.job_harness import DESTINATIONS, PlantedGraph, instance, settings_for
from tests.peers import ObjectStorage, running_object_storage
from tests.phantom import write_phantom_series
from tests.stepped_bench import SteppedBench, stepped_bench

_DAY = 86_400.0


@dataclass
class _Receiver:
    """A destination that remembers the digests of what it got."""

    name: str
    got: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Stand in for an echo."""

    def deliver(self, path: Path) -> None:
        self.got.append(hashlib.sha256(path.read_bytes()).hexdigest())


@dataclass(frozen=True)
class Hosts:
    first: SteppedBench
    second: SteppedBench
    storage: ObjectStorage
    store: ObjectStore

    def names(self, folder: str) -> list[str]:
        return [name for name in self.storage.names() if f"/{folder}/" in name]


@pytest.fixture
def hosts(postgres: str, tmp_path: Path) -> Iterator[Hosts]:
    with ExitStack() as stack:
        storage = stack.enter_context(running_object_storage(tmp_path / "storage"))
        store = store_of(storage)
        stack.callback(store.close)
        url = stack.enter_context(fresh_database(postgres))
        made = []
        for name in ("first", "second"):
            settings = settings_for(tmp_path / name)
            spool = SharedSpool(settings.spool_folder, 0, store)
            files = SharedResultFiles(settings.results_folder, store)
            receivers: Mapping[str, _Receiver] = {one: _Receiver(one) for one in DESTINATIONS}
            bench = stepped_bench(
                tmp_path / name, url, graph=PlantedGraph(), destinations=receivers, spool=spool, files=files
            )
            made.append(stack.enter_context(bench))
        first, second = made
        yield Hosts(first, second, storage, store)


def _copies(bench: SteppedBench, *, settings: Settings | None = None) -> LocalCopies:
    assert isinstance(bench.kept, SharedSpool)
    assert isinstance(bench.files, SharedResultFiles)
    return LocalCopies(
        settings=settings or bench.settings,
        records=bench.records,
        spool=bench.kept,
        results=bench.files,
        retention=bench.retention,
    )


def _unused_for(bench: SteppedBench, seconds: float) -> None:
    """Let a host's copies have been used long ago."""
    then = time.time() - seconds
    for path in (bench.settings.spool_folder / "instances").rglob("*.dcm"):
        os.utime(path, (then, then))


def _age(bench: SteppedBench, days: int) -> None:
    for table, column in (("series", "last_received_at"), ("series", "decided_at"), ("jobs", "created_at"),
                          ("jobs", "started_at"), ("jobs", "finished_at"), ("deliveries", "finished_at"),
                          ("deliveries", "last_attempt_at"), ("deliveries", "created_at")):  # fmt: skip
        bench.change(" ".join(("UPDATE", table, "SET", column, "=", column, f"- interval '{days} days'")))


def _leave_to_the_storage(hosts: Hosts) -> None:
    """Take away the only result's file, which the other host of a real pair would not see."""
    (result,) = hosts.first.job().results
    Path(result.path).unlink()


def _agree(hosts: Hosts) -> None:
    """Hold records, storage and both audit logs to each other."""
    from app.jobs.accounting import account
    from tests.stepped_bench import EVER

    logs = [one.settings.audit_folder for one in (hosts.first, hosts.second)]
    found = account(hosts.first.records, hosts.first.kept, hosts.first.files, logs, EVER, reads_files=True)
    assert found.agrees, found.discrepancies


def test_a_result_of_one_host_is_delivered_by_the_other_as_it_was_recorded(hosts: Hosts) -> None:
    hosts.first.receive_study(1)
    hosts.first.create_jobs()
    assert hosts.second.step()  # the graph, with inputs that it fetches
    (result,) = hosts.first.job().results
    assert Path(result.path).is_relative_to(hosts.second.settings.results_folder)
    assert hosts.names("results") == [f"one/two/results/{hosts.first.job().id}/{result.digest}.dcm"]
    Path(result.path).write_bytes(b"of another attempt")  # a path means nothing, the digest all
    hosts.first.finish()
    assert hosts.first.job().state == "closed"
    assert [one.got for one in hosts.first.sent_to.values()] == [[result.digest]] * 2  # type: ignore[attr-defined]
    _agree(hosts)


def test_a_result_that_is_not_what_was_recorded_never_goes_out(hosts: Hosts) -> None:
    hosts.first.receive_study(1)
    hosts.first.create_jobs()
    assert hosts.second.step()
    _leave_to_the_storage(hosts)
    (name,) = hosts.names("results")
    (hosts.storage.folder / name).write_bytes(b"wrong")
    hosts.first.finish()
    assert {one.code for one in hosts.first.job().deliveries} == {"result-changed"}
    assert [one.got for one in hosts.first.sent_to.values()] == [[], []]  # type: ignore[attr-defined]


def test_a_delivery_that_waits_for_the_storage_is_no_failed_attempt(hosts: Hosts) -> None:
    hosts.first.receive_study(1)
    hosts.first.create_jobs()
    assert hosts.second.step()
    _leave_to_the_storage(hosts)
    hosts.storage.stop()
    with pytest.raises(StorageError):  # the queue repeats it
        hosts.first.step()
    assert [(one.state, one.attempts) for one in hosts.first.job().deliveries] == [("waiting", 0)] * 2
    assert not [one for one in read_records(hosts.first.settings.audit_folder) if one["event"] == "DESTINATION_DOWN"]
    hosts.storage.start()
    hosts.first.change("UPDATE procrastinate_jobs SET status = 'todo'")
    hosts.first.finish()
    assert hosts.first.job().state == "closed"


def test_a_graph_whose_inputs_can_not_be_told_is_repeated_and_counts_nothing(hosts: Hosts) -> None:
    hosts.first.receive_study(1)
    hosts.first.create_jobs()
    hosts.storage.stop()
    with pytest.raises(StorageError):
        hosts.second.step()
    assert (hosts.first.job().state, hosts.second.graph.runs) == ("queued", 0)
    hosts.storage.start()
    hosts.first.change("UPDATE procrastinate_jobs SET status = 'todo'")
    hosts.second.finish()
    assert (hosts.first.job().state, hosts.second.graph.runs) == ("closed", 1)


def test_results_wait_for_the_storage_unless_something_hurries(hosts: Hosts, tmp_path: Path) -> None:
    path = tmp_path / "result.dcm"
    path.write_bytes(b"result")
    digest, hurry = hashlib.sha256(b"result").hexdigest(), threading.Event()
    hosts.storage.stop()
    back = threading.Timer(0.5, hosts.storage.start)
    back.start()
    job_id = uuid.uuid4()
    share_patiently(hosts.first.files, job_id, [(digest, path)], [hurry])
    back.join()
    hosts.storage.stop()
    hurry.set()
    with pytest.raises(StorageError):
        share_patiently(hosts.first.files, job_id, [("0" * 64, path)], [hurry])


def test_retention_removes_from_the_storage_and_every_host_drops_its_copies(hosts: Hosts) -> None:
    hosts.first.receive_study(1)
    hosts.first.create_jobs()
    hosts.second.finish()
    _age(hosts.first, 100)
    hosts.first.receive_study(2)
    assert len(hosts.names("instances")) == 4
    assert not hosts.second.retention.run()
    assert (len(hosts.names("instances")), hosts.names("results")) == (2, [])
    assert len(list(hosts.first.kept.local_files())) == 4  # that host has not looked
    _agree(hosts)
    assert (
        adopt_unrecorded(hosts.first.kept, hosts.first.records, hosts.first.audit) == 0
    )  # a copy is no study that came again
    _copies(hosts.first).tidy()
    assert len(list(hosts.first.kept.local_files())) == 4  # somebody may read them
    _unused_for(hosts.first, _DAY)
    _copies(hosts.first).tidy()
    assert len(list(hosts.first.kept.local_files())) == 2
    _agree(hosts)
    hosts.first.receive_study(1)
    assert len(hosts.names("instances")) == 4
    _agree(hosts)


def test_an_instance_that_goes_while_it_comes_again_is_not_acknowledged(hosts: Hosts) -> None:
    kept = hosts.first.kept.keep(b"bytes")
    hosts.second.kept.remove_all([kept.digest])  # between the file and its record
    assert kept.path.exists()
    assert not hosts.first.kept.holds(kept)


def test_for_want_of_room_copies_go_that_were_not_used_for_longest_and_only_what_is_stored(hosts: Hosts) -> None:
    spool = hosts.first.kept
    kept = [spool.keep(bytes([number])) for number in range(4)]
    for number, one in enumerate(kept[:3]):
        then = time.time() - _DAY + number
        os.utime(one.path, (then, then))
    hosts.store.remove([name.removeprefix("one/two/") for name in hosts.names("instances") if kept[0].digest in name])
    wanted = hosts.first.settings.retention.model_copy(update={"least_free_bytes": 1 << 60})
    _copies(hosts.first, settings=hosts.first.settings.model_copy(update={"retention": wanted})).look()
    assert [one.path.exists() for one in kept] == [True, False, False, True]  # not stored; dropped, dropped; in use
    assert spool.file_of(kept[1].digest).read_bytes() == bytes([1])


def test_results_that_nothing_needs_are_dropped_here_and_stay_in_the_storage(hosts: Hosts) -> None:
    hosts.first.receive_study(1)
    hosts.first.create_jobs()
    hosts.second.finish()
    (result,) = hosts.first.job().results
    _copies(hosts.second).tidy()
    assert Path(result.path).exists()
    _age(hosts.first, 1)
    _copies(hosts.second).tidy()
    assert not Path(result.path).exists()
    assert len(hosts.names("results")) == 1
    _agree(hosts)


def test_what_is_too_old_in_a_hosts_own_quarantine_goes_with_an_audit_line(hosts: Hosts) -> None:
    hosts.first.kept.quarantine(b"refused", code="unreadable")
    _copies(hosts.first).tidy()
    assert sum(hosts.first.kept.quarantined().values()) == 1
    for path in (hosts.first.settings.spool_folder / "quarantine").iterdir():
        os.utime(path, (time.time() - 100 * _DAY,) * 2)
    _copies(hosts.first).tidy()
    assert not hosts.first.kept.quarantined()
    assert read_records_of(hosts.first, "REFUSED_REMOVED") == 1


def _refuse(hosts: Hosts, *, days: int) -> Path:
    """Put an object into the first host's quarantine, refused so long ago."""
    path = hosts.first.kept.quarantine_path_of(hosts.first.kept.quarantine(bytes([days]), code="unreadable"))
    then = time.time() - days * _DAY
    os.utime(path, (then, then))
    return path


def test_for_want_of_room_the_oldest_of_the_quarantine_go_before_any_copy(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = hosts.first.kept
    kept = spool.keep(b"kept")
    _unused_for(hosts.first, _DAY)
    refused = [_refuse(hosts, days=days) for days in (1, 3, 0, 2)]
    least = hosts.first.settings.least_free_bytes
    copies = _copies(hosts.first)
    monkeypatch.setattr(spool, "disk_free_bytes", lambda: least + 2 - sum(one.exists() for one in refused))
    copies.make_room()
    assert [one.exists() for one in refused] == [True, False, True, False]
    assert kept.path.exists()
    assert read_records_of(hosts.first, "REFUSED_REMOVED") == 2
    monkeypatch.setattr(spool, "disk_free_bytes", lambda: 0)
    copies.make_room()
    assert [one.exists() for one in refused] == [False, False, True, False]  # the last came just now
    assert not kept.path.exists()


def test_copies_go_also_while_the_audit_log_can_not_be_written(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise AuditError("no room", code="audit-write")

    kept = hosts.first.kept.keep(b"kept")
    _unused_for(hosts.first, _DAY)
    refused = _refuse(hosts, days=1)
    monkeypatch.setattr(hosts.first.audit, "append", full)
    monkeypatch.setattr(hosts.first.kept, "disk_free_bytes", lambda: 0)
    _copies(hosts.first).make_room()
    assert refused.exists()
    assert not kept.path.exists()


def read_records_of(bench: SteppedBench, event: str) -> int:
    return sum(one["event"] == event for one in read_records(bench.settings.audit_folder))


def test_what_a_crash_left_here_is_shared_before_it_is_recorded(hosts: Hosts, tmp_path: Path) -> None:
    write_phantom_series(tmp_path / "series", seed=1)
    spool = hosts.first.kept
    kept = [spool.keep(path.read_bytes()) for path in sorted((tmp_path / "series").iterdir())]
    spool_folder = hosts.storage.folder / "one" / "two" / "instances"
    for path in spool_folder.rglob("*.dcm"):
        path.unlink()
    hosts.storage.stop()
    assert adopt_unrecorded(spool, hosts.first.records, hosts.first.audit) == 0
    hosts.storage.start()
    assert adopt_unrecorded(spool, hosts.first.records, hosts.first.audit) == len(kept)
    assert all(spool.holds(one) for one in kept)
    _agree(hosts)


def test_a_sender_is_told_to_try_again_while_the_storage_is_away(hosts: Hosts) -> None:
    hosts.storage.stop()
    with pytest.raises(OutOfResources) as told:
        hosts.first.receive(Instance(**asdict(instance(1))))
    assert told.value.dimse_status == 0xA700
    assert not hosts.first.records.undecided_series()
