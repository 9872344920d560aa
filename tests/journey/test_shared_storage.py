"""A listener and workers with a data folder each and one bucket: what one receives, others segment and deliver."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE

from app.listener.inspection import split_part_10
from archive import DemonstrationArchive
from tests.database_fixture import fresh_database
from tests.journey.limner_server import LimnerServer, settings_for
from tests.peers import ObjectStorage, running_object_storage
from tests.phantom import write_phantom_series

_SUCCESS, _OUT_OF_RESOURCES = 0x0000, 0xA700
_IMPATIENT_SECONDS = 3.0
"""The storage's time-out where a test has it hang. Shipped is more, which a busy machine may need."""
_LONGEST_SECONDS = 2 * _IMPATIENT_SECONDS + 2.0
_REPEATS = 5
_STORAGE = """
[shared_storage]
url = "s3://{storage.BUCKET}/site"
endpoint = "{storage.endpoint}"
access_key = "{storage.ACCESS_KEY}"
secret_key_file = "{storage.secret_key_file}"
plain_http = true
"""


@dataclass(frozen=True)
class Hosts:
    """Hosts that share a database and a bucket, and no folder."""

    listener: LimnerServer
    worker: LimnerServer
    worker_instead: LimnerServer
    archive: DemonstrationArchive
    storage: ObjectStorage

    def instances(self) -> list[str]:
        """The digests of the instances in the storage."""
        return [Path(name).stem for name in self.storage.names() if "/instances/" in name]

    def results(self) -> list[Path]:
        """The files of results in the storage."""
        return [self.storage.folder / name for name in self.storage.names() if "/results/" in name]

    def agree(self) -> None:
        """Hold records, storage and all audit logs to each other, by the bytes."""
        logs = [one.data / "audit" for one in (self.worker, self.worker_instead) if (one.data / "audit").is_dir()]
        others = [part for log in logs for part in ("--audit", str(log))]
        result = self.listener.limner("account", "--files", "--json", *others)
        assert result.returncode == 0, result.stdout + result.stderr


@contextmanager
def _hosts(
    folder: Path, database: str, triton: str, *, quiet_seconds: float = 1.0, storage_settings: str = ""
) -> Iterator[Hosts]:
    """The hosts, not started."""
    archive = DemonstrationArchive(folder / "archive")
    archive.start()
    with ExitStack() as stack:
        stack.callback(archive.stop)
        url = stack.enter_context(fresh_database(database))
        storage = stack.enter_context(running_object_storage(folder / "storage"))
        settings = settings_for(archive.port) + f'[database]\nurl = "{url}"\n[triton]\naddress = "{triton}"\n'
        settings += _STORAGE.format(storage=storage) + storage_settings
        made = []
        for role, name in (("listener", "in-1"), ("worker", "work-1"), ("worker", "work-2")):
            (folder / name).mkdir()
            arguments = ("--role", role, "--name", name)
            made.append(LimnerServer(folder / name, settings, quiet_seconds=quiet_seconds, arguments=arguments))
            stack.callback(made[-1].kill_if_running)
        listener, worker, worker_instead = made
        hosts = Hosts(listener, worker, worker_instead, archive, storage)
        yield hosts
        for one in made:
            if one.running:
                assert one.stop() == 0, one.log()


def _sent(hosts: Hosts, files: Sequence[Path]) -> list[int]:
    """Send files over one association, while the storage hangs at one and is away at another; the last statuses."""
    entity = AE("MODALITY")
    entity.add_requested_context(CTImageStorage, [ExplicitVRLittleEndian])
    association = entity.associate("127.0.0.1", hosts.listener.port, ae_title="LIMNER")
    assert association.is_established

    def send(path: Path) -> int:
        return int(association.send_c_store(pydicom.dcmread(path)).Status)

    def send_until_kept(path: Path) -> int:
        statuses = (send(path) for _ in range(_REPEATS))  # an impatient listener on a busy machine may need some
        return next((one for one in statuses if one != _OUT_OF_RESOURCES), _OUT_OF_RESOURCES)

    statuses = [send_until_kept(files[0])]
    for break_off, mend in ((hosts.storage.hang, hosts.storage.go_on), (hosts.storage.stop, hosts.storage.start)):
        break_off()
        began = time.monotonic()
        assert send(files[1]) == send(files[0]) == _OUT_OF_RESOURCES  # also one that was acknowledged before
        assert time.monotonic() - began < 2 * _LONGEST_SECONDS
        mend()
    statuses += [send_until_kept(path) for path in files[1:]]
    association.release()
    return statuses


def _data_set(path: Path) -> bytes:
    content = memoryview(path.read_bytes())
    return bytes(content[split_part_10(content)[1] :])


@pytest.mark.timeout(300)
def test_what_one_host_receives_another_segments_and_delivers(tmp_path: Path, postgres: Any, triton: Any) -> None:
    with _hosts(tmp_path, postgres, triton.target) as hosts:
        hosts.listener.start()
        hosts.worker.start()
        write_phantom_series(tmp_path / "series", seed=1)
        sent = hosts.listener.submit(tmp_path / "series")
        assert sent.returncode == 0, sent.stderr + hosts.listener.log()
        (job,) = hosts.listener.wait_for_jobs(1)
        assert job["state"] == "closed", hosts.worker.log()
        kept = sorted(path.stem for path in (hosts.listener.data / "spool" / "instances").rglob("*.dcm"))
        assert hosts.instances() == kept
        copies = sorted(path.stem for path in (hosts.worker.data / "spool" / "instances").rglob("*.dcm"))
        assert copies == kept
        (result,) = hosts.results()
        assert hashlib.sha256(result.read_bytes()).hexdigest() == result.stem
        (stored,) = hosts.archive.folder.glob("*.dcm")
        assert _data_set(result) == _data_set(stored)  # the archive writes a head of its own
        hosts.agree()
        checked = hosts.worker.limner("check").stdout
        assert "takes an object, gives it back and removes it" in checked, checked
        spoilt = hosts.storage.folder / next(name for name in hosts.storage.names() if "/instances/" in name)
        spoilt.write_bytes(spoilt.read_bytes()[:-1] + b"?")
        told = json.loads(hosts.listener.limner("account", "--files", "--json").stdout)
        assert "file-changed" in {one["code"] for one in told["discrepancies"]}
        for one in (hosts.listener, hosts.worker):
            assert hosts.storage.SECRET_KEY not in one.log_path.read_text()


@pytest.mark.timeout(300)
def test_storage_that_goes_away_costs_a_repeat_and_a_lost_copy_costs_nothing(
    tmp_path: Path, postgres: Any, triton: Any
) -> None:
    impatient = f"timeout_seconds = {_IMPATIENT_SECONDS}\n"
    with _hosts(tmp_path, postgres, triton.target, quiet_seconds=15.0, storage_settings=impatient) as hosts:
        hosts.listener.start()
        write_phantom_series(tmp_path / "series", seed=2)
        assert set(_sent(hosts, sorted((tmp_path / "series").glob("*.dcm")))) == {_SUCCESS}
        (told,) = [one for one in hosts.listener.audit_events() if one["event"] == "INSTANCE_REFUSED"]
        assert told["detail"]["code"] == "shared-storage-away"
        hosts.listener.wait_for(lambda: len(hosts.listener.job_states()) == 1, expected="a job")
        shutil.rmtree(hosts.listener.data / "spool" / "instances")  # the storage has them
        assert "no worker runs" in hosts.listener.limner("pause", "--destination", "archive").stdout
        hosts.storage.hang()
        hosts.worker.start()
        hosts.worker.wait_for(
            lambda: "job.not_recorded" in hosts.worker.log_path.read_text(), 60, expected="a graph that is given back"
        )
        hosts.storage.go_on()
        hosts.listener.wait_for_jobs(1, states=("delivering",))
        assert hosts.worker.stop() == 0
        shutil.rmtree(hosts.worker.data / "results")  # another host sends them
        hosts.worker_instead.start()
        assert hosts.worker_instead.limner("resume", "--destination", "archive").returncode == 0
        (job,) = hosts.listener.wait_for_jobs(1)
        assert job["state"] == "closed", hosts.worker_instead.log()
        (result,), (sent,) = hosts.results(), hosts.archive.folder.glob("*.dcm")
        assert _data_set(result) == _data_set(sent)
        hosts.listener.kill()
        hosts.listener.start()  # it makes its folders anew, and has nothing to adopt
        repeats = (hosts.listener.submit(tmp_path / "series").returncode for _ in range(_REPEATS))
        assert 0 in repeats, hosts.listener.log()
        assert len(hosts.listener.jobs()) == 1
        hosts.agree()
