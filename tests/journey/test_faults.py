"""A run that crashes, hangs or leaves nothing ends as a failed job with its reason, and the next study succeeds."""

from pathlib import Path

import pytest

from archive import DemonstrationArchive
from tests.journey.limner_server import LimnerServer
from tests.phantom import write_phantom_series

EXPECTED = {"crashes": "graph-crashed", "hangs": "graph-timed-out", "writes-nothing": "graph-no-record"}


def _settings(port: int) -> str:
    planted = {"crashes": "Crashes", "hangs": "Hangs", "writes-nothing": "WritesNothing"}
    tables = [
        f'[[destination]]\nname = "archive"\nae_title = "ARCHIVE"\nhost = "127.0.0.1"\nport = {port}\n',
        '[[pipeline]]\nname = "good"\nmodel = "nnunet_liver_spleen_demo"\n',
        '[[rule]]\nname = "good"\npipeline = "good"\ndestinations = ["archive"]\n'
        'match = { SeriesDescription = "good" }\n',
    ]
    for name, kind in planted.items():
        tables.append(
            f'[[pipeline]]\nname = "{name}"\nmodel = "nnunet_liver_spleen_demo"\n'
            f'application = "tests.journey.planted:{kind}"\ntime_limit_seconds = 10\n'
            f'[[rule]]\nname = "{name}"\npipeline = "{name}"\ndestinations = ["archive"]\n'
            f'match = {{ SeriesDescription = "{name}" }}\n'
        )
    return "\n".join(tables)


@pytest.mark.timeout(600)
def test_planted_faults_end_as_failed_jobs_and_the_next_study_succeeds(tmp_path: Path) -> None:
    archive = DemonstrationArchive(tmp_path / "archive")
    archive.start()
    try:
        server = LimnerServer(tmp_path, _settings(archive.port))
        with server.running_server():
            for seed, name in enumerate(EXPECTED):
                write_phantom_series(tmp_path / name, series_description=name, seed=seed)
                assert server.submit(tmp_path / name).returncode == 0
            failed = server.wait_for_jobs(len(EXPECTED))
            assert {job["pipeline"]: job["state"] for job in failed} == dict.fromkeys(EXPECTED, "failed")
            assert {job["pipeline"]: job["code"] for job in failed} == EXPECTED
            assert all(job["reason"] for job in failed)
            write_phantom_series(tmp_path / "good", series_description="good", seed=len(EXPECTED))
            assert server.submit(tmp_path / "good").returncode == 0
            good = server.wait_for_jobs(len(EXPECTED) + 1)[0]
            assert (good["pipeline"], good["state"]) == ("good", "closed")
            assert len(list((tmp_path / "archive").glob("*.dcm"))) == 1
        server.verify_audit()
    finally:
        archive.stop()
