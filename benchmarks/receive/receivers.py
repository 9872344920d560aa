"""The receivers that are measured, each as processes of its own that the senders reach over a loopback interface."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.database_fixture import fresh_database, running_postgres
from tests.peers import ENVIRONMENT, Orthanc, PeerNetwork, peer_network, program, require, running_process
from tests.storing import LONGEST_PDU, Receiver


@dataclass(frozen=True)
class Measured:
    """A receiver that runs."""

    name: str
    port: int
    called: str
    processes: tuple[psutil.Process, ...]
    """Its processes; what they start counts too."""
    beside: tuple[psutil.Process, ...] = ()
    """Processes that work for it, counted apart: a database."""
    sender_prefix: tuple[str, ...] = ()
    """Brings a sender to where its loopback interface is."""


@contextmanager
def receivers(scratch: Path) -> Iterator[list[Measured]]:
    """All of them, idle, with what they keep in folders of `scratch`."""
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(peer_network())
        yield [
            stack.enter_context(_limner(scratch / "limner")),
            stack.enter_context(_orthanc(network, scratch / "orthanc")),
            stack.enter_context(_storescp(network, scratch / "storescp")),
            stack.enter_context(_plain(scratch / "plain")),
        ]


@contextmanager
def _limner(folder: Path) -> Iterator[Measured]:
    with running_postgres() as server, fresh_database(server) as url, Receiver(folder, url) as receiver:
        database = tuple(one for one in psutil.Process().children() if _serves(one, server))
        yield Measured("Limner", receiver.port, "LIMNER", (receiver.process(),), beside=database)


def _serves(process: psutil.Process, url: str) -> bool:
    """Whether a process is the first of the PostgreSQL whose sockets lie in the URL's folder."""
    # the listener has the URL among its arguments, and with it the folder's name
    folder = url.partition("limner-test-")[2].partition("%2F")[0].partition("/")[0]
    words = _words(process)
    return bool(words) and words[0].endswith("/postgres") and any(f"limner-test-{folder}" in word for word in words)


@contextmanager
def _orthanc(network: PeerNetwork, folder: Path) -> Iterator[Measured]:
    """Bare: a storage and its index, no plug-ins, no HTTP, each object's file synced, the longest PDUs it takes."""
    require("Orthanc")
    folder.mkdir()
    port, title = Orthanc.DICOM_PORT, Orthanc.AE_TITLE
    configuration = {
        "Name": title,
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "SyncStorageArea": True,
        "Plugins": [],
        "HttpServerEnabled": False,
        "DicomAet": title,
        "DicomPort": port,
        "MaximumPduLength": LONGEST_PDU,
    }
    settings, log = folder / "orthanc.json", folder / "orthanc.log"
    settings.write_text(json.dumps(configuration))
    command = network.command(program("Orthanc"), str(settings))
    with running_process(command, log, network.peer_address, port) as process:
        own = psutil.Process(process.pid)
        yield Measured("Orthanc", port, title, (own,), sender_prefix=tuple(network.command()))


def _words(process: psutil.Process) -> Sequence[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return ()


@contextmanager
def _storescp(network: PeerNetwork, folder: Path) -> Iterator[Measured]:
    """DCMTK's, with a process for each association: it serves one after the other else."""
    folder.mkdir()
    options = ["--fork", "--accept-all", "-pdu", "131072", "-aet", "ARCHIVE", "-od", str(folder), "11113"]
    with _running(network.command(program("storescp"), *options)) as process:
        yield Measured("storescp", 11113, "ARCHIVE", (process,), sender_prefix=tuple(network.command()))


@contextmanager
def _plain(folder: Path) -> Iterator[Measured]:
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with _running([sys.executable, "-m", "benchmarks.receive.plain", str(folder), str(port)]) as process:
        yield Measured("pynetdicom", port, "PLAIN", (process,))


@contextmanager
def _running(command: Sequence[str]) -> Iterator[psutil.Process]:
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(command, stdout=log, stderr=log, env=ENVIRONMENT) as process,
    ):
        time.sleep(2)
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()


def cpu_seconds(processes: Sequence[psutil.Process]) -> float:
    """Return the processor time of processes, of what they started, and of what of it has ended."""
    total = 0.0
    for root in processes:
        for one in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = one.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
    return total
