"""Completion with Orthanc as the source and as the archive that is asked: slices that pause are one job, or two."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.delivery.query import DimseQuery
from app.jobs.records import Job
from app.listener.association import Listener
from app.listener.spool import Spool
from app.listener.transfers import Transfers
from app.routing.asking import ArchiveQuestions
from app.routing.completion import CompletionScanner
from app.routing.rules import RuleSet
from app.settings import ArchiveSettings
from app.settings_listener import ListenerSettings, SourceSettings
from app.settings_routing import RoutingSettings
from tests import peers
from tests.contract.test_postgresql_completion import audited
from tests.database_fixture import fresh_database
from tests.job_harness import Bench, bench

QUIET_SECONDS = 1.0
GAP_SECONDS = 2.5
FIRST = 12


@dataclass
class Way:
    made: Bench
    scanner: CompletionScanner
    orthanc: peers.Orthanc

    def send(self, instances: list[str]) -> None:
        """Have Orthanc send some of its instances, in one association."""
        body = json.dumps({"Resources": instances, "Synchronous": True}).encode()
        self.orthanc.request("POST", "/modalities/LIMNER/store", body)

    def scan_for(self, seconds: float, *, until_jobs: int = 1000) -> list[Job]:
        """Scan for some time, or until there are so many jobs; the oldest first."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends and len(self.made.records.jobs()) < until_jobs:
            self.scanner.scan()
            time.sleep(0.05)
        return self.made.records.jobs()[::-1]


@contextmanager
def way(
    folder: Path, url: str, network: peers.PeerNetwork, *, ask: str | None, on_release: bool = False
) -> Iterator[Way]:
    """Orthanc, a listener, the records and a scanner that asks `ask`."""
    source = SourceSettings(ae_title="PACS", complete_on_release=on_release)
    spool = Spool(folder / "spool", 0)
    spool.prepare()
    with bench(folder, url, spool_path_of=spool.path_of) as made:
        transfers = Transfers(made.records, listener="here", calling_ae_titles=["PACS"] if on_release else [])
        own = ListenerSettings(host=network.host_address, port=0, source=(source,))
        listener = Listener(own, spool, made.records.record_instance, made.audit, transfers=transfers)
        listener.start()
        try:
            with peers.running_orthanc(
                network, folder / "orthanc", route_to=("LIMNER", listener.port), routed=()
            ) as orthanc:
                archive = ArchiveSettings(name="pacs", ae_title="PACS", host=orthanc.host, port=orthanc.port)
                routing = RoutingSettings(
                    series_quiet_seconds=3600 if on_release else QUIET_SECONDS, study_quiet_seconds=3600, ask=ask,
                    ask_again_seconds=0.3,
                )  # fmt: skip
                settings = made.settings.model_copy(update={"routing": routing, "archive": (archive,), "listener": own})
                scanner = CompletionScanner(
                    settings=settings,
                    records=made.records,
                    audit=made.audit,
                    rules=RuleSet(settings.rule),
                    spool_path_of=spool.path_of,
                    create_job=made.workflow.create_job,
                    create_study_job=made.workflow.create_study_job,
                    questions=ArchiveQuestions(
                        {"pacs": DimseQuery.of_archive(archive, "LIMNER")}, made.records, made.audit
                    ),
                )
                yield Way(made, scanner, orthanc)
        finally:
            listener.stop()


@pytest.fixture
def url(postgres: str) -> Iterator[str]:
    with fresh_database(postgres) as fresh:
        yield fresh


def test_asked_it_is_one_job_with_all_slices(
    tmp_path: Path, url: str, network: peers.PeerNetwork, abdominal_ct: list[Path]
) -> None:
    with way(tmp_path, url, network, ask="pacs") as going:
        instances = [going.orthanc.upload(path) for path in abdominal_ct]
        going.send(instances[:FIRST])
        assert going.scan_for(GAP_SECONDS) == []
        [waiting] = going.made.records.waiting_series()
        assert waiting.shortfall == f"{FIRST} of {len(instances)} instances came"
        going.send(instances[FIRST:])
        [job] = going.scan_for(20, until_jobs=1)
        assert (job.instances, job.series_revision) == (len(instances), 1)
        going.made.work(going.made.all_ended)
        assert going.scan_for(GAP_SECONDS)[0].superseded_by is None


def test_not_asked_it_is_two_revisions_and_the_first_is_superseded(
    tmp_path: Path, url: str, network: peers.PeerNetwork, abdominal_ct: list[Path]
) -> None:
    with way(tmp_path, url, network, ask=None) as going:
        instances = [going.orthanc.upload(path) for path in abdominal_ct]
        going.send(instances[:FIRST])
        going.scan_for(GAP_SECONDS)
        going.send(instances[FIRST:])
        first, second = going.scan_for(20, until_jobs=2)
        assert (first.instances, first.series_revision, first.state) == (FIRST, 1, "superseded")
        assert (second.instances, second.series_revision) == (len(instances), 2)
        assert first.superseded_by == second.id
        assert audited(going.made, "archive-asked") == []


def test_an_archive_that_does_not_know_the_study_leaves_it_to_the_quiet_time(
    tmp_path: Path, url: str, network: peers.PeerNetwork, abdominal_ct: list[Path]
) -> None:
    with way(tmp_path, url, network, ask="pacs") as going:
        instances = [going.orthanc.upload(path) for path in abdominal_ct[:3]]
        going.send(instances)
        going.orthanc.delete_everything()  # as if a modality had sent straight to Limner
        [job] = going.scan_for(20, until_jobs=1)
        assert job.instances == 3
        [decided] = going.made.records.series()
        assert decided.reason == "the archive pacs does not know the series: the quiet time decided"


def test_orthancs_release_completes_a_series_at_once(
    tmp_path: Path, url: str, network: peers.PeerNetwork, abdominal_ct: list[Path]
) -> None:
    with way(tmp_path, url, network, ask=None, on_release=True) as going:
        going.send([going.orthanc.upload(path) for path in abdominal_ct])
        began = time.monotonic()
        [job] = going.scan_for(30, until_jobs=1)
        assert time.monotonic() - began < 10  # the quiet time is an hour
        assert job.instances == len(abdominal_ct)
