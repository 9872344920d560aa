"""An archive killed while a result goes to it by STOW-RS, and started again: it has the result once, byte by byte."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from app.delivery.dicomweb import DicomWebDestination
from app.graph import FindingRecord, GraphRequest, Role
from app.settings import DestinationSettings
from tests import peers
from tests.database_fixture import fresh_database
from tests.job_harness import PlantedGraph, bench, instance, planted_finding
from tests.listening import write_ct
from tests.web_peers import CuttingProxy

SIZE = 1024
"""Rows and columns: 2 MB."""


@pytest.fixture
def url(postgres: str) -> Iterator[str]:
    with fresh_database(postgres) as made:
        yield made


class _WritesImages(PlantedGraph):
    def _found(self, request: GraphRequest, role: Role) -> FindingRecord:
        for number, kind in enumerate(request.kinds, start=1):
            write_ct(request.output_folder / f"{role}-{kind}.dcm", number, size=SIZE)
        return planted_finding(role, request.kinds)


def _kill_orthanc(network: peers.PeerNetwork) -> None:
    for pid in peers.run_program("ip", "netns", "pids", network.namespace).split():
        os.kill(int(pid), signal.SIGKILL)
    with contextlib.suppress(OSError):  # it dies when the kernel has the time
        while True:
            socket.create_connection((network.peer_address, peers.Orthanc.HTTP_PORT), 5).close()
            time.sleep(0.05)


@pytest.mark.parametrize(
    "cut_after", [1, SIZE * SIZE, None], ids=["at the begin", "in the middle", "before its answer"]
)
def test_killed_in_mid_request_it_has_the_result_once(
    cut_after: int | None, tmp_path: Path, url: str, network: peers.PeerNetwork
) -> None:
    peers.require("Orthanc")
    with ExitStack() as stack, bench(tmp_path, url, graph=_WritesImages()) as made:
        folder = tmp_path / "orthanc"
        running = [stack.enter_context(peers.running_orthanc(network, folder))]

        def kill_and_start_again() -> None:
            _kill_orthanc(network)
            running.append(stack.enter_context(peers.running_orthanc(network, folder)))

        proxy = CuttingProxy((running[0].host, running[0].HTTP_PORT), cut_after, kill_and_start_again)
        port = stack.enter_context(proxy.running())
        settings = DestinationSettings(
            name="archive", url=f"http://127.0.0.1:{port}/dicom-web", plain_http=True, timeout_seconds=5
        )
        made.destinations["archive"] = DicomWebDestination(settings)
        made.receive(instance(1))
        made.create_jobs()
        made.work(made.all_ended, seconds=120)
        job = made.job()
        (delivery,) = (one for one in job.deliveries if one.destination == "archive")
        assert (job.state, delivery.state) == ("closed", "delivered")
        assert (proxy.cuts, len(running)) == (1, 2)
        assert proxy.posts >= 2
        assert delivery.attempts >= 2
        (found,) = running[-1].find("Instance")
        (result,) = job.results
        stored = running[-1].download(found["ID"], tmp_path / "back.dcm").read_bytes()
        assert stored == Path(result.path).read_bytes()
