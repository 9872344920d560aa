"""What tests share. Each fixture imports what it needs itself, so that a test pays only for what it uses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# a busy machine is no fault of the code: nothing here is failed by a clock
hypothesis.settings.register_profile("limner", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("limner")


@pytest.fixture(scope="session")
def abdominal_ct_source() -> Path:
    """The folder with the real abdominal CT as published (identifiers blank) and its reference segmentation."""
    from tests import data

    return data.abdominal_ct_source()


@pytest.fixture(scope="session")
def abdominal_ct(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The 20 files of the real abdominal CT, complete; shared by the session, so to be read only."""
    from tests import data

    return data.abdominal_ct_series(tmp_path_factory.mktemp("abdominal_ct"))


@pytest.fixture(scope="session")
def pydicom_data() -> Path:
    """The folder of pydicom's larger test files; to be read only."""
    from tests import data

    return data.pydicom_data()


@pytest.fixture(scope="session")
def triton() -> Iterator[Any]:
    """A running embedded Triton that serves the project's model repository."""
    from tests.triton_fixture import running_triton

    with running_triton() as running:
        yield running


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    """A running embedded PostgreSQL."""
    from tests.database_fixture import running_postgres

    with running_postgres() as running:
        yield running


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the certificates that `tests.certificates` makes."""
    from tests.certificates import make_certificates

    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def network() -> Iterator[Any]:
    """Two addresses that reach only each other: one for Limner, one for the peers behind it."""
    from tests.peers import peer_network

    with peer_network() as one:
        yield one


@pytest.hookimpl(trylast=True)  # after the order was shuffled
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the journeys and the chaos: one at the end would leave the other workers without work for minutes."""
    items.sort(key=lambda item: not {"journey", "chaos"} & set(item.path.parts))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a skipped test is a failed run: everything that tests need is there, or something is broken."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or os.environ.get("CI") != "true":
        return
    skipped = reporter.stats.get("skipped", [])
    if skipped:
        reporter.write_line(f"\n{len(skipped)} skipped, and in CI nothing may be", red=True, bold=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
