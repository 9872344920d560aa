import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app.errors import SettingsError
from app.listener.association import AllowList, Listener
from app.settings_listener import SourceSettings
from tests.listening import listening

UNKNOWN = "calling-ae-title-not-recognized"
WRONG_HOST = "host-not-allowed"


def allow(*sources: tuple[str, tuple[str, ...]]) -> AllowList:
    return AllowList([SourceSettings(ae_title=title, hosts=hosts) for title, hosts in sources])


def test_without_sources_anybody_may() -> None:
    assert allow().refusal("ANYBODY", "192.0.2.1") == ""


@pytest.mark.parametrize(
    ("title", "host", "refusal"),
    [
        ("CT1", "192.0.2.7", ""),
        ("CT1", "10.1.200.3", ""),
        ("CT1", "::ffff:10.1.200.3", ""),  # an IPv4 peer of a listener on [::]
        ("CT1", "10.2.0.1", WRONG_HOST),
        ("CT1", "fe80::1%eth0", WRONG_HOST),
        ("MR1", "198.51.100.1", ""),
        ("ct1", "192.0.2.7", UNKNOWN),
        ("", "192.0.2.7", UNKNOWN),
    ],
)
def test_title_and_host_go_together(title: str, host: str, refusal: str) -> None:
    assert allow(("CT1", ("192.0.2.7", "10.1.0.0/16")), ("MR1", ())).refusal(title, host) == refusal


def test_a_title_may_be_listed_twice() -> None:
    twice = allow(("CT1", ("192.0.2.7",)), ("CT1", ("192.0.2.8",)))
    assert twice.refusal("CT1", "192.0.2.8") == ""
    assert twice.refusal("CT1", "192.0.2.9") == WRONG_HOST


def test_a_name_stands_for_its_addresses() -> None:
    assert allow(("CT1", ("localhost",))).refusal("CT1", "127.0.0.1") == ""
    assert allow(("CT1", ("localhost",))).refusal("CT1", "192.0.2.1") == WRONG_HOST


def test_a_host_that_means_nothing_is_an_error_of_the_settings() -> None:
    with pytest.raises(SettingsError, match="no-such-host.invalid"):
        allow(("CT1", ("no-such-host.invalid",)))


def test_a_listener_that_accepts_no_more_is_a_service_that_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    async def run(listener: Listener, *, told: bool) -> bool:
        stop = asyncio.Event()
        running = asyncio.create_task(listener.run(stop))
        if told:
            await asyncio.sleep(0)
            assert not running.done()
            stop.set()
        await asyncio.wait_for(running, 20)
        return stop.is_set()

    with listening(tmp_path / "spool") as at:
        assert asyncio.run(run(at.listener, told=True))
        with capture_logs() as logs:
            monkeypatch.setattr(at.listener._server, "service_actions", broken)
            assert not asyncio.run(run(at.listener, told=False))
    assert [one["log_level"] for one in logs] == ["error"]


def test_a_listener_that_was_told_to_stop_did_not_fail(tmp_path: Path) -> None:
    with listening(tmp_path / "spool") as at, capture_logs() as logs:
        at.listener.stop()
    assert logs == []
