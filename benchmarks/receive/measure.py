"""The rounds: each receiver in turn gets the same slices over one association, then over four."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.receive.receivers import Measured, cpu_seconds
from tests.peers import ENVIRONMENT
from tests.storing import Slices

ASSOCIATIONS = (1, 4)


@dataclass(frozen=True)
class Round:
    """What one receiver did in one round."""

    receiver: str
    associations: int
    objects: int
    seconds: float
    """From the first byte to the last answer of the slowest association."""
    cpu_seconds: float
    beside_cpu_seconds: float
    """Of a database that works for the receiver."""


@dataclass(frozen=True)
class Summary:
    """Medians over the rounds of one receiver with so many associations."""

    objects_per_second: float
    least: float
    most: float
    megabytes_per_second: float
    cpu_milliseconds: float
    """Of the receiver, for each object."""
    beside_milliseconds: float


def measure(receivers: Sequence[Measured], *, rounds: int, objects: int, say: Callable[[str], None]) -> list[Round]:
    """Return what was measured; the first round of each warms up and does not count."""
    done = []
    first = 0
    for number in range(rounds + 1):
        for associations in ASSOCIATIONS:
            for receiver in receivers:
                one = _round(receiver, associations, first, objects)
                say(f"round {number}: {receiver.name} x{associations}: {one.objects / one.seconds:.0f} objects/s")
                if number:
                    done.append(one)
            first += objects
    return done


def summarize(rounds: Sequence[Round]) -> dict[tuple[str, int], Summary]:
    """Return the medians by receiver and number of associations."""
    megabytes = len(Slices().data_set(0)) / 1e6
    groups: dict[tuple[str, int], list[Round]] = {}
    for one in rounds:
        groups.setdefault((one.receiver, one.associations), []).append(one)
    summaries = {}
    for key, group in groups.items():
        rates = [one.objects / one.seconds for one in group]
        rate = statistics.median(rates)
        summaries[key] = Summary(
            objects_per_second=rate,
            least=min(rates),
            most=max(rates),
            megabytes_per_second=rate * megabytes,
            cpu_milliseconds=statistics.median(1000 * one.cpu_seconds / one.objects for one in group),
            beside_milliseconds=statistics.median(1000 * one.beside_cpu_seconds / one.objects for one in group),
        )
    return summaries


def _round(receiver: Measured, associations: int, first: int, objects: int) -> Round:
    each = objects // associations
    senders = [
        subprocess.Popen(
            [
                *receiver.sender_prefix, sys.executable, "-m", "benchmarks.receive.sender",
                "127.0.0.1", str(receiver.port), receiver.called, str(first + number * each), str(each),
            ],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT,
        )
        for number in range(associations)
    ]  # fmt: skip
    for sender in senders:
        if sender.stdout is None or sender.stdout.readline() != "ready\n":
            raise RuntimeError(f"a sender could not associate with {receiver.name}")
    before, beside_before = cpu_seconds(receiver.processes), cpu_seconds(receiver.beside)
    for sender in senders:
        if sender.stdin is not None:
            sender.stdin.write("go\n")
            sender.stdin.flush()
    answers = [sender.communicate()[0].split() for sender in senders]
    if any(answer[1] != "0" for answer in answers):
        raise RuntimeError(f"{receiver.name} refused objects: {answers}")
    return Round(
        receiver=receiver.name,
        associations=associations,
        objects=each * associations,
        seconds=max(float(answer[0]) for answer in answers),
        cpu_seconds=cpu_seconds(receiver.processes) - before,
        beside_cpu_seconds=cpu_seconds(receiver.beside) - beside_before,
    )
