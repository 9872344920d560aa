from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.cli_account import audit_folders, parse_since
from app.errors import SettingsError

_NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "back"),
    [
        ("90m", timedelta(minutes=90)),
        ("24h", timedelta(days=1)),
        ("7d", timedelta(days=7)),
        ("2w", timedelta(days=14)),
        ("30s", timedelta(seconds=30)),
        ("2026-05-01T08:00", timedelta(hours=4)),
        ("2026-05-01", timedelta(hours=12)),
        ("2026-05-01T12:00+02:00", timedelta(hours=2)),
    ],
)
def test_a_time_or_a_duration(text: str, back: timedelta) -> None:
    assert parse_since(text, _NOON) == _NOON - back


def test_longer_than_there_are_years_is_ever() -> None:
    assert parse_since("999999w", _NOON) < _NOON - timedelta(days=10_000)


@pytest.mark.parametrize("text", ["", "yesterday", "7", "1y", "-1d", "9999999d", "2026-13-01"])
def test_anything_else_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(SettingsError, match="90m, 24h, 7d") as refused:
        parse_since(text, _NOON)
    assert refused.value.code == "since-invalid"


def test_logs_of_several_processes_lie_in_folders_of_their_own(tmp_path: Path) -> None:
    for name in ("worker", "listener"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "audit.jsonl").touch()
    (tmp_path / "empty").mkdir()
    assert audit_folders(tmp_path) == [tmp_path, tmp_path / "listener", tmp_path / "worker"]
