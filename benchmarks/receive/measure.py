"""The rounds: each receiver in turn gets the same slices over one association, then over four.

In each round processes that only write and wait for the disk (`benchmarks.receive.waits`) have their turn as well.
"""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from benchmarks.receive.receivers import Measured, cpu_seconds
from tests.peers import ENVIRONMENT
from tests.storing import Slices

ASSOCIATIONS = (1, 4)
WAITS = "the waits alone"
"""What the processes are called that receive nothing."""
_One = TypeVar("_One")


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


@dataclass(frozen=True)
class _Entrant:
    """One that has turns."""

    name: str
    turn: Callable[[int, int, int], Round]
    """Lets it have one: with so many associations, from the slice of this number on, so many slices."""


def measure(
    receivers: Sequence[Measured],
    waits: Path,
    *,
    rounds: int,
    objects: int,
    seconds: float,
    say: Callable[[str], None],
) -> list[Round]:
    """Return what was measured; the first round of each warms up and does not count.

    Nothing that was written is removed before the end: ext4 without a journal looks through what was lately deleted
    each time that it makes a file.

    Parameters
    ----------
    waits
        A folder for what is written without having been received, on the disk that Limner has.
    objects
        How many each gets in the first round, and at least in the others.
    seconds
        How long a turn is to be in the others, by the rate that the first has shown.
    """
    waits.mkdir()
    entrants = [_Entrant(one.name, partial(_round, one)) for one in receivers]
    entrants.append(_Entrant(WAITS, partial(_waits, waits)))
    names = [one.name for one in entrants]
    done: list[Round] = []
    wanted: dict[tuple[str, int], int] = {}
    first = 0
    for number in range(rounds + 1):
        for associations in ASSOCIATIONS:
            ordered = in_order_of_round(entrants, number)
            turns = [_turn(one, associations, first, wanted.get((one.name, associations), objects)) for one in ordered]
            turns.sort(key=lambda one: names.index(one.receiver))  # the tables' order
            for one in turns:
                rate = one.objects / one.seconds
                say(f"round {number}: {one.receiver} x{associations}: {rate:.0f} objects/s for {one.seconds:.2f} s")
            if number:
                done += turns
            else:
                wanted |= {(one.receiver, associations): objects_for(one, objects, seconds) for one in turns}
            first += max(one.objects for one in turns)
    return done


def in_order_of_round(entrants: Sequence[_One], number: int) -> list[_One]:
    """Return who has turns in a round, another one first in each: what one leaves behind is not for the same other."""
    first = number % len(entrants)
    return [*entrants[first:], *entrants[:first]]


def objects_for(seen: Round, least: int, seconds: float) -> int:
    """Return how many objects a turn has that takes so long at the rate that was seen; a multiple of associations."""
    each = math.ceil(seconds * seen.objects / seen.seconds / seen.associations)
    return max(least, each * seen.associations)


def _turn(entrant: _Entrant, associations: int, first: int, objects: int) -> Round:
    os.sync()  # what the one before left unsynced is not for this one to wait for
    return entrant.turn(associations, first, objects)


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
    prefix = (*receiver.sender_prefix, sys.executable, "-m", "benchmarks.receive.sender", "127.0.0.1")
    senders = [
        _started(*prefix, str(receiver.port), receiver.called, str(first + number * each), str(each))
        for number in range(associations)
    ]
    _wait_until_ready(senders, receiver.name)
    before, beside_before = cpu_seconds(receiver.processes), cpu_seconds(receiver.beside)
    answers = _answers(senders, receiver.name)
    return Round(
        receiver=receiver.name,
        associations=associations,
        objects=each * associations,
        seconds=max(answer[0] for answer in answers),
        cpu_seconds=cpu_seconds(receiver.processes) - before,
        beside_cpu_seconds=cpu_seconds(receiver.beside) - beside_before,
    )


def _waits(folder: Path, processes: int, first: int, objects: int) -> Round:
    each = objects // processes
    prefix = (sys.executable, "-m", "benchmarks.receive.waits", str(folder))
    writers = [_started(*prefix, str(first + number * each), str(each)) for number in range(processes)]
    _wait_until_ready(writers, WAITS)
    answers = _answers(writers, WAITS)
    seconds, cpu = max(answer[0] for answer in answers), sum(answer[2] for answer in answers)
    return Round(WAITS, processes, each * processes, seconds, cpu, 0.0)


def _started(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)


def _wait_until_ready(workers: Sequence[subprocess.Popen[str]], name: str) -> None:
    for one in workers:
        if one.stdout is None or one.stdout.readline() != "ready\n":
            raise RuntimeError(f"a sender could not associate with {name}")


def _answers(workers: Sequence[subprocess.Popen[str]], name: str) -> list[list[float]]:
    """Let all begin, and return what each says: its seconds, its failures, and what else it has measured."""
    for one in workers:
        if one.stdin is not None:
            one.stdin.write("go\n")
            one.stdin.flush()
    answers = [[float(word) for word in one.communicate()[0].split()] for one in workers]
    if any(answer[1] for answer in answers):
        raise RuntimeError(f"{name} refused objects: {answers}")
    return answers
