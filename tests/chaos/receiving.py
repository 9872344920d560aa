"""A listener that decides what is complete, on a database that may go away, and senders that try again."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage

from app.jobs.presence import COMPLETION, Turn
from app.jobs.records import Instance
from app.routing.completion import CompletionScanner
from app.routing.rules import RuleSet
from tests.job_harness import Bench
from tests.listening import Listening, listening, make_ct

SUCCESS, OUT_OF_RESOURCES = 0x0000, 0xA700


@contextmanager
def receiving(made: Bench, folder: Path) -> Iterator[Listening]:
    """Take instances into the records and decide about them, in this process."""
    spool: list[Any] = []

    def record(instance: Instance) -> None:
        kept = made.spool / f"{instance.digest}.dcm"
        if not kept.exists():
            kept.hardlink_to(spool[0].path_of(instance.digest))
        made.records.record_instance(instance)

    scanner = CompletionScanner(
        settings=made.settings,
        records=made.records,
        audit=made.audit,
        rules=RuleSet(made.settings.rule),
        spool_path_of=lambda digest: made.spool / f"{digest}.dcm",
        create_job=made.workflow.create_job,
        create_study_job=made.workflow.create_study_job,
    )
    over = threading.Event()

    async def decide() -> None:
        stop = asyncio.Event()
        deciding = asyncio.create_task(Turn(made.records.url, COMPLETION, scanner.run).run(stop))
        while not over.is_set():
            await asyncio.sleep(0.1)
        stop.set()
        await deciding

    thread = threading.Thread(target=lambda: asyncio.run(decide()), name="completion")
    with listening(folder / "received", record=record) as at:
        spool.append(at.spool)
        thread.start()
        try:
            yield at
        finally:
            over.set()
            thread.join()


@dataclass
class Sender:
    """Sends series of one instance, each again until it was taken, and counts the answers."""

    port: int
    statuses: Counter[int] = field(default_factory=Counter)
    lost_associations: int = 0
    acknowledged: int = 0
    slowest_seconds: float = 0.0
    """Longest wait for an answer."""
    pause_seconds: float = 0.3
    """Between one series that was taken and the next."""
    may_send: Callable[[], bool] = lambda: True
    """Whether the next may be sent by now."""
    _over: threading.Event = field(default_factory=threading.Event)

    def send_until_over(self) -> None:
        """Send one series after the other."""
        entity = AE(ae_title="SENDER")
        entity.add_requested_context(CTImageStorage)
        entity.dimse_timeout = entity.network_timeout = entity.acse_timeout = 60
        while not self._over.is_set():
            if not self.may_send():
                self._over.wait(self.pause_seconds)
                continue
            study = _study(self.acknowledged + 1)
            dataset = make_ct(1, study=study, series=f"{study}.1")
            while not self._send(entity, dataset):
                time.sleep(0.2)
            self.acknowledged += 1
            self._over.wait(self.pause_seconds)

    def studies(self) -> list[str]:
        """The studies that were taken, each with one series, whose UID is the study's and a 1, of one instance."""
        return [_study(number) for number in range(1, self.acknowledged + 1)]

    def _send(self, entity: AE, dataset: Any) -> bool:
        association = entity.associate("127.0.0.1", self.port, ae_title="LIMNER")
        if not association.is_established:
            self.lost_associations += 1
            return False
        began = time.monotonic()
        status = association.send_c_store(dataset)
        self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began)
        association.release()
        if "Status" not in status:
            self.lost_associations += 1
            return False
        self.statuses[int(status.Status)] += 1
        return int(status.Status) == SUCCESS

    @contextmanager
    def sending(self) -> Iterator[Sender]:
        """Send in a thread of its own; at the end the last series is sent to its end."""
        thread = threading.Thread(target=self.send_until_over, name="sender")
        thread.start()
        try:
            yield self
        finally:
            self._over.set()
            thread.join()


def _study(number: int) -> str:
    return f"1.2.826.0.1.3680043.8.498.{number}"
