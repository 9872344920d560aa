"""Several processes write a chain each: all are checked, and a broken one is named."""

from pathlib import Path

import pytest

from app.audit.chain import LOG_NAME
from app.audit.chains import verify_chains
from app.audit.events import AuditEvent
from app.audit.log import AuditLog
from app.errors import AuditError


def _write(folder: Path, records: int) -> None:
    with AuditLog(folder) as log:
        for _ in range(records):
            log.append(AuditEvent.JOB_CREATED)


def test_each_processs_chain_is_checked(tmp_path: Path) -> None:
    _write(tmp_path, 1)
    _write(tmp_path / "in-1", 2)
    _write(tmp_path / "work-1", 3)
    (tmp_path / "no chain").mkdir()
    assert {name: (one.ok, one.records) for name, one in verify_chains(tmp_path).items()} == {
        "": (True, 1),
        "in-1": (True, 2),
        "work-1": (True, 3),
    }


@pytest.mark.parametrize("lost", [LOG_NAME, "audit.head"])
def test_a_broken_chain_is_named(lost: str, tmp_path: Path) -> None:
    _write(tmp_path / "in-1", 2)
    _write(tmp_path / "work-1", 2)
    (tmp_path / "in-1" / lost).unlink()
    assert {name: one.ok for name, one in verify_chains(tmp_path).items()} == {"in-1": False, "work-1": True}


def test_no_chain_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="there is no audit log"):
        verify_chains(tmp_path / "nothing")
