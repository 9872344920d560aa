"""Promise 8: an archive stored the object, and Limner did not get its answer: asked, it is not sent the object again.

Each object that comes is seen here: an archive that overwrites under one UID has one whatever it was sent.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pydicom
import pytest

from app.delivery.dicomweb import DicomWebDestination
from app.settings import DestinationSettings
from tests import peers
from tests.chaos.delivering import (
    held_by,
    jobs_of,
    queue_jobs,
    show_held,
    show_received,
    show_results,
    wait_until,
    working,
)
from tests.chaos.figures import Figures
from tests.chaos.losing_proxy import LosingProxy
from tests.database_fixture import fresh_database
from tests.dicom_results import ARCHIVE, connect, delivering_bench
from tests.job_harness import Bench

PROMISE = "8. A PACS that stored the object, and whose answer is lost"
HOST = "127.0.0.1"
SECONDS = 3.0
"""Until Limner gives up; a busy machine must not make it give up a question."""
OPTIONS = {"timeout_seconds": SECONDS, "retry_first_seconds": 0.1, "retry_longest_seconds": 4.0}

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]
"""The toolkit's thread can stumble over an abort of what was cut."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("way", ["C-FIND", "QIDO-RS"])
def test_an_archive_that_can_be_asked(
    tmp_path: Path, postgres: str, network: peers.PeerNetwork, figures: Figures, way: Literal["C-FIND", "QIDO-RS"]
) -> None:
    where, most = f"Orthanc, asked by {way}: ", figures.of(short=3, full=30)
    with (
        fresh_database(postgres) as url,
        peers.running_orthanc(network, tmp_path / "orthanc", notes_what_comes=True) as orthanc,
    ):
        proxy = LosingProxy((orthanc.host, orthanc.port if way == "C-FIND" else orthanc.HTTP_PORT), most)
        with (
            proxy.running() as port,
            delivering_bench(tmp_path, url, HOST, port, orthanc.AE_TITLE, **OPTIONS) as made,
        ):
            connect(made)
            if way == "QIDO-RS":
                made.destinations[ARCHIVE] = _web(port)
            _deliver(made, 2 * most)
            jobs = jobs_of(made)
        held, received = held_by(orthanc, tmp_path / "held"), orthanc.received()
    figures.show(PROMISE, f"{where}answers lost", seen=proxy.lost, least=most)
    results = show_results(figures, PROMISE, jobs, where)
    show_held(figures, PROMISE, results, held, where)
    show_received(figures, PROMISE, received, where)


@pytest.mark.timeout(600)
def test_a_peer_that_can_not_be_asked(
    tmp_path: Path, postgres: str, network: peers.PeerNetwork, figures: Figures
) -> None:
    """DCMTK's storescp keeps each object that comes, under a name of its own."""
    where, most = "storescp, which can't be asked: ", figures.of(short=3, full=30)
    options = ("--unique-filenames",)
    with (
        fresh_database(postgres) as url,
        peers.running_storescp(network, tmp_path / "storescp", options=options) as storescp,
    ):
        proxy = LosingProxy((storescp.host, storescp.port), most)
        with (
            proxy.running() as port,
            delivering_bench(tmp_path, url, HOST, port, storescp.ae_title, ask="never", **OPTIONS) as made,
        ):
            connect(made)
            _deliver(made, 2 * most)
            jobs = jobs_of(made)
        held = [(_uid(path), path) for path in storescp.files()]
    figures.show(PROMISE, f"{where}answers lost", seen=proxy.lost, least=most)
    results = show_results(figures, PROMISE, jobs, where)
    show_held(figures, PROMISE, results, held, where)
    again = len(held) - len(results)
    figures.show(PROMISE, f"{where}the same bytes sent again, one for each answer lost", seen=again, exactly=proxy.lost)


def _web(port: int) -> DicomWebDestination:
    url = f"http://{HOST}:{port}/dicom-web"
    settings = DestinationSettings(name=ARCHIVE, url=url, plain_http=True, timeout_seconds=SECONDS)
    return DicomWebDestination(settings)


def _deliver(made: Bench, count: int) -> None:
    """Half of them wait when the sending begins, so that answers are lost both first and in the midst."""
    with working(made, ARCHIVE):
        for first in (0, count // 2):
            queue_jobs(made, first, count // 2)
            wait_until(made.all_ended, 240)


def _uid(path: Path) -> str:
    return str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)
