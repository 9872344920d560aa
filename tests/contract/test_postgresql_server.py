"""The embedded PostgreSQL: starts, ends with its parent, is never shared, and listens on nothing but its socket."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from app.bootstrap import RunningServer, open_records
from app.bootstrap.parts import announced
from app.errors import ServingError
from app.serving.postgres import EmbeddedPostgres
from app.settings import Settings
from operators.shared_memory import process_mark

_HOLDER = """
import sys, time
from pathlib import Path
from app.serving.postgres import EmbeddedPostgres
folder = Path(sys.argv[1])
server = EmbeddedPostgres(folder / "database", Path(sys.argv[2]))
print(server.start(), flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    # a short path: the socket lies in it; 0700 above it, as pytest's own folders are
    with tempfile.TemporaryDirectory(prefix="limner-pg-") as made:
        yield Path(made)


def _server(folder: Path) -> EmbeddedPostgres:
    return EmbeddedPostgres(folder / "database", folder / "run")


def _postmaster(folder: Path) -> psutil.Process:
    return psutil.Process(int((folder / "database" / "postmaster.pid").read_text().splitlines()[0]))


def test_it_starts_answers_and_ends_leaving_nothing(folder: Path) -> None:
    server = _server(folder)
    url = server.start()
    try:
        assert server.start() == url  # a second start is the same server
        with psycopg.connect(url) as connection:
            names = ("fsync", "full_page_writes", "synchronous_commit", "listen_addresses", "data_checksums")
            found = [connection.execute(f"SHOW {name}").fetchone() for name in names]
        assert found == [("on",), ("on",), ("on",), ("",), ("on",)]
        assert not [one for one in _postmaster(folder).net_connections("inet") if one.status == "LISTEN"]
        assert _postmaster(folder).uids().real != 0
        assert (folder / "run" / "postgresql").stat().st_mode & 0o777 == 0o700
    finally:
        server.stop()
    assert not server.is_alive()
    assert not (folder / "run" / "postgresql").exists()
    server.stop()  # once more does no harm


@pytest.mark.parametrize("path", ["run", "long-" * 20], ids=["short", "too long for a socket"])
def test_it_ends_with_a_killed_parent_and_keeps_what_was_committed(folder: Path, path: str) -> None:
    run_folder = folder / path
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(folder), str(run_folder)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    url = holder.stdout.readline().strip()
    with psycopg.connect(url) as connection:
        (socket_folder,) = connection.execute("SHOW unix_socket_directories").fetchone() or ("",)
        assert Path(socket_folder).is_relative_to(folder) == (path == "run")
        connection.execute("DROP TABLE IF EXISTS kept")
        connection.execute("CREATE TABLE kept (number integer)")
        connection.execute("INSERT INTO kept VALUES (1)")
    postmaster = _postmaster(folder)
    holder.kill()
    holder.wait()
    holder.stdout.close()
    postmaster.wait(timeout=20)
    with EmbeddedPostgres(folder / "database", run_folder) as again, psycopg.connect(again) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (1,)
    assert not Path(socket_folder).exists()
    assert [left.name for left in run_folder.iterdir()] == ["postgresql.log"]


def test_a_killed_postgresql_comes_back_on_the_same_socket(folder: Path) -> None:
    server = _server(folder)
    try:
        url = server.start()
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE recovered (number integer)")
        killed = _postmaster(folder)
        killed.kill()
        deadline = time.monotonic() + 30
        while True:
            try:
                with psycopg.connect(url) as connection:
                    connection.execute("SELECT * FROM recovered")
                break
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, "it did not come back"
                time.sleep(0.05)
        assert _postmaster(folder) != killed
    finally:
        server.stop()


def test_an_orphan_is_ended_before_the_next_start(folder: Path) -> None:
    server = _server(folder)
    server.start()
    orphan = _postmaster(folder)
    # as a Limner that was killed where the kernel could not tell the server: the lock is free, the server runs
    server._stopping.set()
    assert server._lock is not None
    os.close(server._lock)
    server._lock = None
    with _server(folder) as url:
        assert _postmaster(folder).pid != orphan.pid
        with psycopg.connect(url):
            pass
    server._process.wait(timeout=10)  # type: ignore[union-attr]


def test_a_folder_in_use_is_refused(folder: Path) -> None:
    with _server(folder), pytest.raises(ServingError, match="another Limner") as refused:
        EmbeddedPostgres(folder / "database", folder / "run", lock_seconds=0.2).start()
    assert refused.value.code == "database-in-use"


def test_a_start_waits_for_who_is_about_to_leave_the_folder(folder: Path) -> None:
    command = _server(folder)
    command.start()
    leaving = threading.Timer(1.0, command.stop)
    leaving.start()
    with _server(folder) as url, psycopg.connect(url):
        assert not command.is_alive()
    leaving.join()


def test_a_command_waits_for_a_server_that_has_not_yet_said_where_it_is(folder: Path) -> None:
    settings = Settings(data_folder=folder)
    with _server(folder) as url, contextlib.ExitStack() as stack:
        server = RunningServer(process_mark(), url, "", 0)
        saying = threading.Timer(1.0, lambda: stack.enter_context(announced(settings.run_folder, server)))
        saying.start()
        with open_records(settings) as records:
            assert records.url == url
        saying.join()


def test_a_command_waits_for_another_command(folder: Path) -> None:
    settings = Settings(data_folder=folder)
    first = contextlib.ExitStack()
    first.enter_context(open_records(settings))
    leaving = threading.Timer(1.0, first.close)
    leaving.start()
    with open_records(settings) as records:
        assert records.jobs() == []
    leaving.join()


def test_a_path_too_long_for_a_socket_gets_a_short_private_folder(folder: Path) -> None:
    deep = folder / ("d" * 60) / ("e" * 60)
    server = EmbeddedPostgres(folder / "database", deep)
    with server as url, psycopg.connect(url) as connection:
        (socket_folder,) = connection.execute("SHOW unix_socket_directories").fetchone() or ("",)
        assert len(socket_folder) < 60
        assert Path(socket_folder).stat().st_mode & 0o777 == 0o700
    assert not Path(socket_folder).exists()


def test_files_of_another_version_are_refused(tmp_path: Path) -> None:
    (tmp_path / "database").mkdir(mode=0o700)
    (tmp_path / "database" / "PG_VERSION").write_text("12\n")
    with pytest.raises(ServingError, match="made by PostgreSQL 12") as refused:
        EmbeddedPostgres(tmp_path / "database", tmp_path / "run").start()
    assert refused.value.code == "database-version"
