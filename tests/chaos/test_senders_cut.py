"""Promise 10: the link from the senders is cut at random moments: nothing acknowledged is lost, nothing is doubled.

Half of the cuts lose both directions or the link itself, the others one direction only: what comes, or the answers.
Most are short enough for TCP to repeat what was lost. Every tenth outlasts the patience of everybody: it ends when the
receiver has let go of all its associations, and of what they had half written.
"""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import psutil

from tests.chaos.delivering import wait_until
from tests.chaos.figures import Figures
from tests.chaos.retrying import Left, show_nothing_lost
from tests.chaos.sending import SIZE
from tests.database_fixture import fresh_database
from tests.peers import PeerNetwork
from tests.storing import REPOSITORY, Receiver, Slices

PROMISE = "10. Network cut at random, from the senders"
BOUNDS: dict[str, Any] = {"acse_timeout_seconds": 1, "dimse_timeout_seconds": 2, "network_timeout_seconds": 1}
"""Of the receiver: short, so that there is time for many cuts that outlast them."""
_LOOK_SECONDS = 0.05
"""Into a cut, before it is asked what it met."""


class Senders:
    """The process of `tests.chaos.sending` behind the link, and what it told so far."""

    def __init__(self, network: PeerNetwork, port: int) -> None:
        self.acknowledged: list[int] = []
        self.begun = 0
        """How often one began to send an object."""
        self.others: list[str] = []
        """Told of anything but these."""
        self._command = network.command(
            sys.executable, "-m", "tests.chaos.sending", network.host_address, str(port)
        )  # fmt: skip

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
        )
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._reading.join(20)
        self._process.__exit__(None, None, None)

    def finish(self) -> None:
        """Have them send until what was begun is acknowledged."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(60) == 0
        self._reading.join(20)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            what, number, *rest = line.split()
            if what == "begun":
                self.begun += 1
            elif what == "acknowledged" and not rest:
                self.acknowledged.append(int(number))
            else:
                self.others.append(line)


class Cuts:
    """Cuts a link, and counts what that met at the receiver."""

    def __init__(self, network: PeerNetwork, receiver: Receiver, chance: random.Random) -> None:
        self.count = 0
        self.met_half_written = 0
        """Cuts with an object on its way: they met it half written."""
        self.longest_letting_go = 0.0
        """Seconds into a cut until the receiver had no association and nothing half written, at most."""
        self.unheard = 0
        """Objects that were kept and of which their senders had heard nothing by the ends of long cuts."""
        self._network, self._receiver, self._chance = network, receiver, chance
        self._slices = Slices(size=SIZE)
        self._ways: list[Callable[[], None]] = [
            network.cut, self._both_directions, network.lose_what_comes, network.lose_what_goes
        ]  # fmt: skip

    def cut_shortly(self) -> None:
        """For a time in which TCP may repeat what was lost, or somebody has lost patience."""
        self._cut()
        time.sleep(self._chance.choice((0.0, 0.1, self._chance.uniform(0.2, 0.6))))
        self._network.join()

    def cut_for_long(self, senders: Senders) -> None:
        """Until the receiver has let go of everything."""
        self._cut()
        took = _LOOK_SECONDS + wait_until(self._has_let_go, 60)
        self.longest_letting_go = max(self.longest_letting_go, took)
        heard = {self._slices.uid(number) for number in senders.acknowledged}
        self.unheard += len(set(self._receiver.ledger()) - heard)
        self._network.join()

    def _cut(self) -> None:
        self.count += 1
        self._chance.choice(self._ways)()
        time.sleep(_LOOK_SECONDS)
        self.met_half_written += any(size < 2 * SIZE * SIZE for size in self._receiver.part_sizes())

    def _both_directions(self) -> None:
        self._network.lose_what_comes()
        self._network.lose_what_goes()

    def _has_let_go(self) -> bool:
        return not self._receiver.parts() and associations_of(self._receiver) == 0


def associations_of(receiver: Receiver) -> int:
    """How many connections of peers the receiver has open."""
    return sum(
        one.laddr.port == receiver.port and one.status != psutil.CONN_LISTEN
        for one in receiver.process().net_connections("tcp")
    )


def test_nothing_is_lost_or_doubled(tmp_path: Path, postgres: str, network: PeerNetwork, figures: Figures) -> None:
    count, chance, slowest = figures.of(short=5, full=200), random.Random(10), 0.0
    with (
        fresh_database(postgres) as url,
        Receiver(tmp_path / "receiver", url, host=network.host_address, **BOUNDS) as receiver,
    ):
        cuts = Cuts(network, receiver, chance)
        with Senders(network, receiver.port) as senders:
            for number in range(count):
                known = len(senders.acknowledged)
                slowest = max(slowest, wait_until(lambda more=known: len(senders.acknowledged) > more, 60))  # type: ignore[misc]
                time.sleep(chance.uniform(0, 0.1))
                if number % 10 == 4:
                    cuts.cut_for_long(senders)
                else:
                    cuts.cut_shortly()
            senders.finish()
        let_go = wait_until(lambda: associations_of(receiver) == 0, 60)
        left = Left(senders.acknowledged, receiver.ledger(), receiver.kept(), receiver.parts())
        records = receiver.records()
    again = senders.begun - len(senders.acknowledged)
    figures.show(PROMISE, "records more than objects acknowledged", seen=records - len(left.acknowledged), exactly=0)
    show_nothing_lost(PROMISE, figures, Slices(size=SIZE), left)
    figures.show(PROMISE, "cuts", seen=cuts.count, least=count)
    figures.show(
        PROMISE, "cuts that met an object half written", seen=cuts.met_half_written, least=figures.of(short=1, full=100)
    )
    figures.show(PROMISE, "objects that were sent again", seen=again, least=figures.of(short=1, full=50))
    figures.show(
        PROMISE, "objects kept whose senders had not heard so by the ends of long cuts", seen=cuts.unheard,
        least=figures.of(short=0, full=5),
    )  # fmt: skip
    figures.show(PROMISE, "objects acknowledged", seen=len(senders.acknowledged), least=figures.of(short=5, full=300))
    figures.show(PROMISE, "other answers", seen=len(senders.others), exactly=0)
    figures.show(
        PROMISE, "longest until the receiver let go of what was cut off, s",
        seen=max(let_go, cuts.longest_letting_go), most=figures.of(short=20, full=5),
    )  # fmt: skip
    figures.show(
        PROMISE, "longest until an object was acknowledged after a cut, s", seen=slowest,
        most=figures.of(short=60, full=10),
    )  # fmt: skip
