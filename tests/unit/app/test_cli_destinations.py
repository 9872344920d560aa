"""What `limner destinations` says of one that is down."""

from datetime import UTC, datetime, timedelta

from app.cli_destinations import _answers, _described
from app.jobs.return_entries import DestinationWindow
from app.settings import DestinationSettings, Settings

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ARCHIVE = DestinationSettings(name="archive", ae_title="PACS", host="pacs", port=104)


def _window(address: str = "PACS@pacs:104", since: datetime | None = NOON) -> DestinationWindow:
    following = NOON + timedelta(seconds=75)
    return DestinationWindow("archive", address, 4, since, following, "unreachable", "PACS can't be reached")


def test_since_when_why_and_when_next() -> None:
    down = _described(ARCHIVE, Settings(destination=(ARCHIVE,)), None, _window())["down"]
    assert down == {
        "since": "2026-01-01T12:00:00+00:00",
        "code": "unreachable",
        "reason": "PACS can't be reached",
        "attempts": 4,
        "next_attempt_at": "2026-01-01T12:01:15+00:00",
    }
    said = _answers(down)
    assert said.startswith("not since 2026-01-01T12:00:00+00:00: unreachable, 4 attempts; next at")


def test_one_that_answers_or_moved_is_not_down() -> None:
    for window in (None, _window(since=None), _window("OLD@pacs:104")):
        assert _described(ARCHIVE, Settings(destination=(ARCHIVE,)), None, window)["down"] is None
    assert _answers(None) == "yes"
