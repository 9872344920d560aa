"""Heartbeats must fit the time after which a worker counts as dead."""

import pytest
from pydantic import ValidationError

from app.settings_worker import WorkerSettings


def test_one_late_heartbeat_must_not_end_a_living_worker() -> None:
    with pytest.raises(ValidationError, match="let it be 3 heartbeats or more"):
        WorkerSettings(heartbeat_seconds=6)
    assert WorkerSettings(heartbeat_seconds=5).dead_after_seconds == 15
