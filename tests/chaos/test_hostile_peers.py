"""Many associations at once, and all hostile and slow peers at once: who asks from elsewhere is answered in time."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.certificates import listener_tls
from tests.chaos.asking import echo_seconds
from tests.chaos.figures import Figures
from tests.chaos.hostility import (
    EVIL_NAME,
    EVIL_UIDS,
    Attackers,
    HostilePeers,
    HostileTlsPeers,
    abort_within_a_value,
    begin_instance,
)
from tests.chaos.test_large_object import MEGABYTE, Watched
from tests.database_fixture import fresh_database
from tests.listening import wait_until
from tests.storing import REPOSITORY, Receiver, Slices, StoreSender, peer_context

KINDS = frozenset(
    {
        "half an association request",
        "a byte every half second",
        "a connection that says nothing",
        "HTTP",
        "garbage",
        "a stall within a data value",
        "a silent association",
        "an association request of 4 GiB",
        "a PDU of 800 MB",
        "a data set without end",
        "stores without waiting for answers",
        "a data set without end where commitments are reported",
        "reports without waiting for answers",
        "a path as a UID",
        "an abort within a data value",
        "a mutated dialogue",
    }
)
"""What must be tried, and reach its point, whatever the attackers know."""
TLS_KINDS = frozenset(
    {
        "no hello",
        "a hello of a byte every half second",
        "a hello that is not ended",
        "garbage in place of a hello",
        "an association request in the clear",
        "silence after the handshake",
        "half an association request over TLS",
        "no certificate",
        "a certificate of another authority",
        "a PDU of 800 MB over TLS",
        "stores without waiting for answers over TLS",
        "a stall within a data value over TLS",
        "an abort within a data value over TLS",
        "a mutated dialogue over TLS",
    }
)
MUTANTS, MUTANTS_OVER_TLS = 600, 300
"""Dialogues that are mutated in the long form, at least."""
_ROUNDS = 6
"""Of asking, at most."""
_TIGHT: Mapping[str, Any] = {
    "acse_timeout_seconds": 3,
    "dimse_timeout_seconds": 5,
    "network_timeout_seconds": 5,
    "maximum_object_bytes": 64 << 20,
}
"""Bounds that each kind of attack meets many times in a minute."""
_BOUNDS: dict[str, Mapping[str, Any]] = {"4. All hostile and slow peers at once": _TIGHT}
"""Settings of the receivers that are attacked, by what the figures call that."""
if os.environ.get("CHAOS") == "full":  # half a minute's silence is allowed, and an object of 4 GiB
    _BOUNDS["4. All hostile and slow peers at once, and a receiver with the bounds as shipped"] = {}
_LASTING = frozenset({"a data set without end"})
"""What a receiver with the bounds as shipped reads for 8 GiB: nobody waits for its point there."""


@contextmanager
def _receiving(folder: Path, postgres: str, **settings: Any) -> Iterator[Receiver]:
    with fresh_database(postgres) as url, Receiver(folder, url, **settings) as running:
        yield running


@pytest.fixture
def receiver(tmp_path: Path, postgres: str) -> Iterator[Receiver]:
    with _receiving(tmp_path / "receiver", postgres, **_TIGHT) as running:
        yield running


def test_forty_associations_at_once(receiver: Receiver, figures: Figures) -> None:
    promise, rounds = "4. 40 associations at once", figures.of(short=3, full=100)
    slices = Slices(size=64)
    with StoreSender(receiver.port) as warming:  # the first instance loads what is loaded once
        warming.associate()
        assert warming.store(slices.uid(10**6), slices.data_set(10**6)) == 0
    errors: list[object] = []
    slowest: list[float] = []
    ready, go_on = threading.Barrier(41), threading.Event()

    def send(number: int) -> None:
        try:
            with StoreSender(receiver.port, source=f"127.0.0.{2 + number % 2}") as sender:
                sender.associate()
                ready.wait(60)
                go_on.wait(60)
                for index in range(rounds):
                    began = time.monotonic()
                    which = number * rounds + index
                    if sender.store(slices.uid(which), slices.data_set(which)) != 0:
                        errors.append(which)
                    slowest.append(time.monotonic() - began)
                sender.release()
        except (OSError, AssertionError, threading.BrokenBarrierError) as error:
            errors.append(error)

    threads = [threading.Thread(target=send, args=(number,), daemon=True) for number in range(40)]
    for thread in threads:
        thread.start()
    ready.wait(60)
    with StoreSender(receiver.port, source="127.0.0.4") as one_more:
        one_more.request()
        kind, body = one_more.read_pdu()
    go_on.set()
    for thread in threads:
        thread.join(250)
    figures.show(promise, "errors", seen=len(errors), exactly=0)
    figures.show(promise, "objects kept", seen=len(receiver.ledger()), exactly=40 * rounds + 1)
    figures.show(promise, "the next one is rejected for now (transient)", seen=kind == 3 and body[1] == 2, exactly=1)
    slowest.sort()
    figures.show(
        promise, "99 % of objects answered within, s", seen=slowest[len(slowest) * 99 // 100],
        most=1 if figures.is_full else 10,
    )  # fmt: skip


@pytest.mark.parametrize("promise", _BOUNDS)
def test_all_hostile_peers_at_once(tmp_path: Path, postgres: str, figures: Figures, promise: str) -> None:
    with _receiving(tmp_path / "receiver", postgres, **_BOUNDS[promise]) as receiver:
        echo_seconds(receiver.port)
        attackers = HostilePeers(receiver.port, flood=figures.of(short=150, full=436))
        kinds = KINDS if _BOUNDS[promise] else KINDS - _LASTING
        _attack(promise, receiver, attackers, kinds, figures)
        figures.show(promise, "files where a path as a UID leads", seen=len(_led_to(receiver)), exactly=0)
        _show_kinds(promise, attackers, kinds, figures)
        figures.show(
            promise, "half association requests at once", seen=attackers.most_half_open,
            least=figures.of(short=20, full=25),
        )  # fmt: skip
        mutants = attackers.done["a mutated dialogue"]
        figures.show(promise, "mutated dialogues", seen=mutants, least=figures.of(short=3, full=MUTANTS))
        wait_until(lambda: receiver.parts() == [], 30)
        assert "Traceback" not in receiver.log()


def test_all_hostile_peers_of_a_receiver_with_tls(
    tmp_path: Path, postgres: str, certificates: Path, figures: Figures
) -> None:
    promise = "4. All hostile and slow peers of a receiver with TLS at once"
    with _receiving(tmp_path / "receiver", postgres, tls=listener_tls(certificates), **_TIGHT) as receiver:
        echo_seconds(receiver.port, peer_context(certificates, "modality"))
        attackers = HostileTlsPeers(receiver.port, certificates, flood=figures.of(short=150, full=436))
        _attack(promise, receiver, attackers, TLS_KINDS, figures, str(certificates))
        _show_kinds(promise, attackers, TLS_KINDS, figures)
        figures.show(
            promise, "peers at once that were waited for", seen=attackers.most_half_open,
            least=figures.of(short=20, full=25),
        )  # fmt: skip
        mutants = attackers.done["a mutated dialogue over TLS"]
        figures.show(promise, "mutated dialogues", seen=mutants, least=figures.of(short=3, full=MUTANTS_OVER_TLS))
        wait_until(lambda: receiver.parts() == [], 30)
        assert "Traceback" not in receiver.log()


def _led_to(receiver: Receiver) -> list[Path]:
    """What lies, under the name itself or with some ending, where the evil UIDs lead from any folder of the receiver.

    All files of that name below these are found too, wherever a UID that was made harmless would have put them.
    """
    spool = receiver.folder / "spool"
    folders = [REPOSITORY, receiver.folder, spool, *(one for one in spool.rglob("*") if one.is_dir())]
    targets = {Path(os.path.normpath(folder / uid)) for folder in folders for uid in EVIL_UIDS}
    found = {one for target in targets for one in target.parent.glob(f"{target.name}*")}
    return sorted(found | set(receiver.folder.rglob(f"*{EVIL_NAME}*")))


def _attack(
    promise: str, receiver: Receiver, attackers: Attackers, kinds: frozenset[str], figures: Figures, *certificates: str
) -> None:
    """Ask for an echo all the while, over TLS if the certificates are named.

    Until each of these kinds of attack has come to its point: on a busy machine the time of the short form may not do.
    """
    asking = [sys.executable, "-m", "tests.chaos.asking", str(receiver.port), str(figures.of(short=10, full=60))]
    watched = Watched(receiver.process())
    watched.start()
    slowest = 0.0
    with attackers:
        for _ in range(_ROUNDS):
            asked = subprocess.run(
                [*asking, *certificates], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY, check=True
            )
            slowest = max(slowest, float(asked.stdout))
            if not kinds.intersection(attackers.pointless()):
                break
    watched.ended.set()
    watched.join()
    over = " over TLS" if certificates else ""
    figures.show(
        promise, f"slowest C-ECHO{over} from another address, s", seen=slowest,
        most=1 if figures.is_full else 10,
    )  # fmt: skip
    growth = (watched.most_bytes - watched.idle_bytes) / MEGABYTE
    figures.show(promise, "resident memory over idle, MB", seen=growth, most=50)


def _show_kinds(promise: str, attackers: Attackers, kinds: frozenset[str], figures: Figures) -> None:
    assert {name for _, name in attackers.kinds()} in (kinds, kinds | _LASTING)
    missing = kinds.intersection(attackers.pointless())
    sys.stdout.write(f"came to no point: {sorted(missing)}\n")  # told where the goal is not reached
    seen = len(kinds) - len(missing)
    figures.show(promise, "kinds of attack that came to their point", seen=seen, least=len(kinds))


def test_aborts_within_a_value_leave_nothing(receiver: Receiver, figures: Figures) -> None:
    aborts = figures.of(short=30, full=1000)
    promise, met = "4. Aborts within a data value", 0
    echo_seconds(receiver.port)
    threads = receiver.process().num_threads()
    for number in range(aborts):
        with StoreSender(receiver.port) as peer:
            written = begin_instance(peer, 10_000 + number)
            if number % 4:  # the others come as early as they can
                met += _is_half_written(receiver, written)
            abort_within_a_value(peer, number % 3)

    def left(process: psutil.Process) -> int:
        return max(0, process.num_threads() - threads)

    until = time.monotonic() + 60
    while (receiver.parts() or left(receiver.process())) and time.monotonic() < until:
        time.sleep(0.1)
    figures.show(promise, "aborts", seen=aborts, least=aborts)
    figures.show(promise, "aborts that met their file half written", seen=met, least=aborts // 2)
    figures.show(promise, "files left", seen=len(receiver.parts()), exactly=0)
    figures.show(promise, "threads left", seen=left(receiver.process()), exactly=0)
    assert echo_seconds(receiver.port) < 10


def _is_half_written(receiver: Receiver, size: int) -> bool:
    """Whether a file of just that size, which no other has, is being written; a busy machine gets some time for it."""
    until = time.monotonic() + 2
    while size not in receiver.part_sizes():
        if time.monotonic() > until:
            return False
        time.sleep(0.002)
    return True
