"""An external PostgreSQL and an external Triton serve in place of the embedded ones, by settings alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from archive import DemonstrationArchive
from tests.database_fixture import fresh_database
from tests.journey.limner_server import LimnerServer, settings_for
from tests.phantom import write_phantom_series


@pytest.mark.timeout(300)
def test_a_study_goes_its_way_over_external_parts(tmp_path: Path, postgres: Any, triton: Any) -> None:
    archive = DemonstrationArchive(tmp_path / "archive")
    archive.start()
    with fresh_database(postgres) as url:
        external = f'[database]\nurl = "{url}"\n[triton]\naddress = "{triton.target}"\n'
        server = LimnerServer(tmp_path, settings_for(archive.port) + external)
        with server.running_server():
            write_phantom_series(tmp_path / "series", seed=301)
            assert server.submit(tmp_path / "series").returncode == 0
            (job,) = server.wait_for_jobs(1, states=("closed",))
            assert job["deliveries"][0]["state"] == "delivered"
            assert not (server.data / "database").exists()
            assert list((server.data / "run").glob("triton*")) == []
        server.verify_audit()
    archive.stop()
