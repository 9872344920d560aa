"""What a viewer reads in an HTTP status: whether to ask again, or to ask otherwise."""

from __future__ import annotations

import pytest

from app.errors import AuditError, InputMissing, LimnerError, StorageError
from app.web.problems import status_of


@pytest.mark.parametrize(
    ("error", "status"),
    [(StorageError("away"), 503), (AuditError("full"), 503), (InputMissing("gone"), 410), (LimnerError("ours"), 500)],
)
def test_what_is_away_for_now_is_told_from_what_is_gone(error: LimnerError, status: int) -> None:
    assert status_of(error) == status
