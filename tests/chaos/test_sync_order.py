"""What a receiver asks of the operating system before it answers, in which order, seen by strace.

A kill shows nothing of it: what is not synced survives the death of a process. This stands for the cut of the power.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from tests.chaos.figures import Figures
from tests.database_fixture import fresh_database
from tests.peers import program, require
from tests.storing import Receiver, Slices, StoreSender

PROMISE = "1. Order of syncs before the response"
ORDER = ["file synced", "renamed", "folder synced", "ledger committed", "answered"]

_CALL = re.compile(r"^(?P<thread>\d+) +(?P<call>\w+)\((?P<rest>.*)$")
_UNFINISHED = re.compile(r"^(?P<thread>\d+) +(?P<begin>\w+\(.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"^(?P<thread>\d+) +<\.\.\. (?P<call>\w+) resumed>(?P<rest>.*)$")
# the statement that records an instance ends in a SELECT; outside of a transaction (I) it is committed then
_COMMITTED = re.compile(r"(SELECT 1|COMMIT)\\0Z\\0\\0\\0\\5I")


def step_of(call: str, rest: str) -> str:
    """Which step of keeping an instance a finished system call is; empty if none."""
    if call in ("fsync", "fdatasync") and rest.endswith("= 0"):
        return "file synced" if ".part>" in rest else "folder synced" if "/instances/" in rest else ""
    if call.startswith("rename") and "/incoming/" in rest and "/instances/" in rest:
        return "renamed"
    if call in ("recvfrom", "read") and _COMMITTED.search(rest):
        return "ledger committed"
    if call in ("sendto", "sendmsg", "write") and re.search(r'"\\4\\0\\0\\0', rest):
        return "answered"
    return ""


def finished_calls(trace: str) -> dict[str, list[str]]:
    """The steps of each thread in the order in which its calls ended."""
    began: dict[str, str] = {}
    steps: defaultdict[str, list[str]] = defaultdict(list)
    for line in trace.splitlines():
        if unfinished := _UNFINISHED.match(line):
            began[unfinished["thread"]] = unfinished["begin"]
            continue
        if resumed := _RESUMED.match(line):
            thread = resumed["thread"]
            line = f"{thread} {began.pop(thread)}{resumed['rest']}"
        if found := _CALL.match(line):
            step = step_of(found["call"], found["rest"])
            if step:
                steps[found["thread"]].append(step)
    return steps


def test_every_answer_comes_after_all_syncs(tmp_path: Path, postgres: str, figures: Figures) -> None:
    require("strace")
    objects, slices = figures.of(short=50, full=1000), Slices(size=64)
    trace = tmp_path / "trace"
    traced = "trace=fsync,fdatasync,rename,renameat,renameat2,sendto,sendmsg,write,recvfrom,read"
    strace = [program("strace"), "-f", "-y", "-s", "256", "-e", traced, "-e", "signal=none", "-o", str(trace)]
    with (
        fresh_database(postgres) as url,
        # without the question for the backlog, which looks like a commit from here
        Receiver(tmp_path / "receiver", url, wrapped_by=strace, backlog_limit=0) as receiver,
        StoreSender(receiver.port) as sender,
    ):
        sender.associate()
        statuses = [sender.store(slices.uid(number), slices.data_set(number)) for number in range(objects)]
        sender.release()
    assert statuses == [0] * objects
    steps = next(one for one in finished_calls(trace.read_text(errors="replace")).values() if "answered" in one)
    answers = [index for index, step in enumerate(steps) if step == "answered"]
    groups = [steps[begin + 1 : end + 1] for begin, end in zip([-1, *answers], answers, strict=False)]
    in_order = sum(group == ORDER for group in groups)
    figures.show(PROMISE, "answers seen by strace", seen=len(groups), exactly=objects)
    figures.show(
        PROMISE, "of them after file, rename, folder and ledger, in %", seen=100 * in_order / len(groups), exactly=100
    )
