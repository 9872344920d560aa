"""Appending: what is on the disk when append returns, who may write, and what a crash or a full disk leaves."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.audit.chain import GENESIS, HEAD_NAME, LOG_NAME, chain, compose, read_records
from app.audit.events import AuditEvent, Outcome
from app.audit.log import AuditLog, verify
from app.errors import AuditError

REPOSITORY = Path(__file__).resolve().parents[4]


def lines_of(folder: Path) -> list[bytes]:
    return (folder / LOG_NAME).read_bytes().split(b"\n")[:-1]


def filled(folder: Path, count: int) -> Path:
    with AuditLog(folder) as log:
        for number in range(count):
            log.append(AuditEvent.JOB_CREATED, instances=number)
    return folder


def reopen(folder: Path) -> None:
    with AuditLog(folder):
        pass


def test_a_record_says_what_the_documentation_says(tmp_path: Path) -> None:
    with AuditLog(tmp_path) as log:
        log.append(
            AuditEvent.INSTANCE_REFUSED,
            Outcome.MINOR_FAILURE,
            source_host="127.0.0.1",
            sop_class_uids=["1.2.840.10008.5.1.4.1.1.2"],
            instances=3,
        )
    record = json.loads(lines_of(tmp_path)[0])
    assert record.pop("hash") == (tmp_path / HEAD_NAME).read_text().split()[1]
    assert record.pop("time").endswith("+00:00")
    assert record == {
        "sequence": 1,
        "previous": "0" * 64,
        "event": "INSTANCE_REFUSED",
        "event_id": {"code": "110104", "scheme": "DCM", "meaning": "DICOM Instances Transferred"},
        "event_type": {"code": "instance-refused", "scheme": "99LIMNER", "meaning": "Instance refused"},
        "outcome": 4,
        "detail": {"source_host": "127.0.0.1", "sop_class_uids": ["1.2.840.10008.5.1.4.1.1.2"], "instances": 3},
    }


def test_the_log_goes_on_where_it_ended(tmp_path: Path) -> None:
    for expected in range(1, 4):
        with AuditLog(tmp_path) as log:
            log.append(AuditEvent.APPLICATION_STARTED, version="0.1.0", host="hôte \ud800\n")
            assert log.newest == expected
    assert verify(tmp_path).records == 3
    assert verify(tmp_path).ok
    assert [record["sequence"] for record in read_records(tmp_path)] == [1, 2, 3]


def test_threads_append_at_once_without_losing_any(tmp_path: Path) -> None:
    with AuditLog(tmp_path) as log:

        def append_many(name: int) -> None:
            for number in range(40):
                log.append(AuditEvent.GRAPH_STARTED, job_id=str(name), attempt=number)

        threads = [threading.Thread(target=append_many, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    report = verify(tmp_path)
    assert (report.ok, report.records) == (True, 320)
    records = list(read_records(tmp_path))
    for name in range(8):  # each thread's records are in its order
        mine = [record["detail"]["attempt"] for record in records if record["detail"]["job_id"] == str(name)]
        assert mine == list(range(40))
    times = [record["time"] for record in records]
    assert times == sorted(times)


def test_a_second_writer_is_told_what_to_do(tmp_path: Path) -> None:
    with AuditLog(tmp_path) as log:
        with pytest.raises(AuditError, match="stop that one, or give this one a --name"):
            AuditLog(tmp_path).open()
        with pytest.raises(AuditError, match="open already"):
            log.open()
        log.append(AuditEvent.JOB_CREATED)
        assert verify(tmp_path).ok  # readers are free
    reopen(tmp_path)


def test_a_closed_log_takes_nothing(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    with pytest.raises(AuditError, match="not open"):
        log.append(AuditEvent.JOB_CREATED)
    log.open()
    log.close()
    log.close()
    with pytest.raises(AuditError, match="not open"):
        log.append(AuditEvent.JOB_CREATED)


def test_a_folder_that_cannot_be_used_is_an_audit_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AuditError, match="can't be opened"):
        AuditLog(tmp_path / "file" / "audit").open()


def test_a_torn_last_line_is_cut_and_that_is_recorded(tmp_path: Path) -> None:
    filled(tmp_path, 3)
    line, _ = chain(compose(AuditEvent.JOB_CLOSED, Outcome.SUCCESS, {"reason": "x" * 900}), GENESIS)
    with (tmp_path / LOG_NAME).open("ab") as log:
        log.write(line[:700])
    assert "the line after record 3 is incomplete (700 bytes)" in verify(tmp_path).problems[0]
    reopen(tmp_path)
    assert verify(tmp_path).ok
    repaired = list(read_records(tmp_path))[3]
    assert repaired["event"] == "AUDIT_LOG_REPAIRED"
    assert repaired["detail"]["cut_bytes"] == 700
    assert "was cut" in repaired["detail"]["reason"]


def test_records_that_ran_ahead_of_the_head_are_kept_and_that_is_recorded(tmp_path: Path) -> None:
    filled(tmp_path, 3)
    head = (tmp_path / HEAD_NAME).read_bytes()
    filled(tmp_path, 2)
    (tmp_path / HEAD_NAME).write_bytes(head)
    assert "records after 3, up to 5" in verify(tmp_path).problems[0]
    reopen(tmp_path)
    assert verify(tmp_path).ok
    assert list(read_records(tmp_path))[5]["detail"]["reason"].startswith("the newest records (2) were not yet named")


@pytest.mark.parametrize("count", [1, 700])  # 700 records are more than is read at first
def test_a_log_that_was_cut_off_is_not_opened(tmp_path: Path, count: int) -> None:
    filled(tmp_path, count)
    (tmp_path / LOG_NAME).write_bytes(b"".join(line + b"\n" for line in lines_of(tmp_path)[:-1]))
    with pytest.raises(AuditError, match=f"names record {count}, and it ends at record {count - 1}"):
        AuditLog(tmp_path).open()


def test_a_log_whose_end_was_changed_is_not_opened(tmp_path: Path) -> None:
    filled(tmp_path, 3)
    content = (tmp_path / LOG_NAME).read_bytes()
    (tmp_path / LOG_NAME).write_bytes(content.replace(b'"instances":2', b'"instances":7'))
    with pytest.raises(AuditError, match="tampered"):
        AuditLog(tmp_path).open()
    (tmp_path / LOG_NAME).write_bytes(content + lines_of(tmp_path)[0] + b"\n")
    with pytest.raises(AuditError, match="does not follow"):
        AuditLog(tmp_path).open()


@pytest.mark.parametrize("content", [None, b"", b"3 abc\n"])
def test_a_log_without_a_sound_head_is_not_opened(tmp_path: Path, content: bytes | None) -> None:
    filled(tmp_path, 3)
    (tmp_path / HEAD_NAME).unlink()
    if content is not None:
        (tmp_path / HEAD_NAME).write_bytes(content)
    with pytest.raises(AuditError, match="head file"):
        AuditLog(tmp_path).open()
    assert not verify(tmp_path).ok
    assert "head file" in verify(tmp_path).problems[0]


def test_a_missing_log_is_not_begun_anew(tmp_path: Path) -> None:
    filled(tmp_path, 3)
    (tmp_path / LOG_NAME).unlink()
    assert "is missing" in verify(tmp_path).problems[0]
    with pytest.raises(AuditError, match="cut off"):
        AuditLog(tmp_path).open()


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from app.audit.events import AuditEvent
from app.audit.log import AuditLog, verify
from app.errors import AuditError
folder, limit = Path(sys.argv[1]), int(sys.argv[2])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = AuditLog(folder)
log.open()
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
kept = 0
try:
    while True:
        log.append(AuditEvent.JOB_CREATED, reason="x" * 300)
        kept += 1
except AuditError as error:
    assert "can't be written" in str(error), error
assert verify(folder).ok and verify(folder).records == kept, verify(folder)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.append(AuditEvent.JOB_CLOSED)  # once there is room, it goes on
log.close()
assert verify(folder).ok and verify(folder).records == kept + 1, verify(folder)
print(kept)
"""


def test_a_write_that_fails_leaves_the_log_as_it_was(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path), "5000"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3


def test_a_sync_that_fails_ends_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    filled(tmp_path, 2)
    with AuditLog(tmp_path) as log:
        with monkeypatch.context() as broken:
            broken.setattr(os, "fdatasync", fail)  # no real disk here can be made to fail its sync
            with pytest.raises(AuditError, match="Input/output error"):
                log.append(AuditEvent.JOB_CREATED)
        with pytest.raises(AuditError, match="could not be synced"):
            log.append(AuditEvent.JOB_CREATED)
    assert verify(tmp_path).ok
    assert verify(tmp_path).records == 2


WRITER = """
import sys, threading
from pathlib import Path
from app.audit.events import AuditEvent
from app.audit.log import AuditLog
log = AuditLog(Path(sys.argv[1]))
log.open()
lock = threading.Lock()
def work(name):
    number = 0
    while True:
        log.append(AuditEvent.JOB_CREATED, job_id=name, attempt=number, reason="x" * (number * 37 % 3000))
        with lock:
            sys.stdout.write(f"{name} {number}\\n")
            sys.stdout.flush()
        number += 1
for name in "abc":
    threading.Thread(target=work, args=(name + sys.argv[2],)).start()
"""


def test_kill_loses_no_record_whose_append_returned(tmp_path: Path) -> None:
    acknowledged: set[tuple[str, int]] = set()
    for seed in range(8):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(seed)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        said = [writer.stdout.readline()]
        time.sleep(0.01 + 0.037 * seed)
        writer.send_signal(signal.SIGKILL)
        said += writer.stdout.read().splitlines(keepends=True)
        writer.wait()
        writer.stdout.close()
        acknowledged |= {(line.split()[0], int(line.split()[1])) for line in said if line.endswith("\n")}
        reopen(tmp_path)
        report = verify(tmp_path)
        assert report.ok, report.problems
        run = [record["detail"] for record in read_records(tmp_path)]
        assert acknowledged <= {(detail["job_id"], detail["attempt"]) for detail in run if "job_id" in detail}
    assert len(acknowledged) > 50


@settings(max_examples=30)
@given(
    details=st.lists(
        st.dictionaries(
            st.sampled_from(["reason", "code", "instances", "state", "sop_class_uids"]),
            st.one_of(
                st.text(), st.integers(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False),
                st.lists(st.text(max_size=5), max_size=3),
            ),
        ),
        max_size=12,
    ),
    event=st.sampled_from(AuditEvent),
    outcome=st.sampled_from(Outcome),
)  # fmt: skip
def test_what_was_appended_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, details: list[dict[str, str]], event: AuditEvent, outcome: Outcome
) -> None:
    folder = tmp_path_factory.mktemp("audit")
    with AuditLog(folder) as log:
        for detail in details:
            log.append(event, outcome, **detail)
    assert verify(folder).ok
    read = list(read_records(folder))
    assert [record["detail"] for record in read] == details
    assert {record["event"] for record in read} <= {event.name}
