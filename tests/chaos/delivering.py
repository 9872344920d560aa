"""What the tests of delivery have in common: a worker beside the test, jobs for it, and what became of them."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from app.jobs.records import Job, Result
from app.jobs.worker import Worker
from tests import peers
from tests.chaos.figures import Figures
from tests.dicom_results import same_object
from tests.job_harness import Bench, instance


@contextmanager
def working(made: Bench, *destinations: str) -> Iterator[None]:
    """A worker in a thread of its own."""
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    worker = Worker(records=made.records, tasks=made.workflow, destinations=destinations)
    thread = threading.Thread(target=lambda: loop.run_until_complete(worker.run(stop)))
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(60)
        loop.close()


def queue_jobs(made: Bench, first: int, count: int) -> None:
    for series in range(first, first + count):
        made.receive(instance(1, series=series))
    made.create_jobs()


def wait_until(until: Callable[[], bool], seconds: float) -> float:
    """Wait until it holds; how long that took."""
    began = time.monotonic()
    while not until():
        assert time.monotonic() - began < seconds, f"not in {seconds} s"
        time.sleep(0.05)
    return time.monotonic() - began


def arrived(made: Bench, destination: str) -> int:
    return sum(
        one.state == "delivered"
        for job in made.records.jobs(10_000)
        for one in job.deliveries
        if one.destination == destination
    )


def jobs_of(made: Bench) -> list[Job]:
    """All jobs, each of which is closed."""
    jobs = made.records.jobs(10_000)
    assert {job.state for job in jobs} == {"closed"}
    return jobs


def show_results(figures: Figures, promise: str, jobs: Sequence[Job], where: str = "") -> dict[str, Result]:
    """Show that each job has the one result that it is to have; all of them, by SOP Instance UID."""
    others = sum(len(job.results) != 1 for job in jobs)
    figures.show(promise, f"{where}jobs with other than one result", seen=others, exactly=0)
    results = [result for job in jobs for result in job.results]
    by_uid: dict[str, Result] = {result.sop_instance_uid: result for result in results}
    assert len(by_uid) == len(results), "two results of one UID"
    return by_uid


def show_held(
    figures: Figures, promise: str, results: Mapping[str, Result], held: Iterable[tuple[str, Path]], where: str = ""
) -> None:
    """Show that an archive has each of the results, and of each nothing but what was verified and recorded.

    Parameters
    ----------
    held
        The objects that it has, each by its SOP Instance UID; an archive that keeps all has one more than once.
    """
    copies = list(held)
    uids = {uid for uid, _ in copies}
    figures.show(promise, f"{where}results lost", seen=len(set(results) - uids), exactly=0)
    figures.show(promise, f"{where}objects that are no job's result", seen=len(uids - set(results)), exactly=0)
    wrong = sum(not _is_as_recorded(path, results[uid]) for uid, path in copies if uid in results)
    figures.show(promise, f"{where}objects that are not the file of the recorded SHA-256", seen=wrong, exactly=0)


def _is_as_recorded(held: Path, result: Result) -> bool:
    """Whether the result's file is what was verified when its digest was recorded, and an archive's object is that."""
    file = Path(result.path)
    return hashlib.sha256(file.read_bytes()).hexdigest() == result.digest and same_object(held, file)


def show_received(
    figures: Figures,
    promise: str,
    received: Sequence[peers.ReceivedObject],
    where: str = "",
    unanswered: int | None = None,
) -> None:
    """Show what an Orthanc was sent, of which it holds the last under each UID: nothing again, and nothing else.

    Where its answers to questions are lost too, `unanswered` objects may have come again, the same bytes: it was asked
    whether it has them, and was not heard.
    """
    again = sum(one.was_held for one in received)
    what = f"{where}objects sent again although the archive held them"
    if unanswered is None:
        figures.show(promise, what, seen=again, exactly=0)
    else:
        figures.show(promise, f"{what}, its answer to the question being lost too", seen=again, most=unanswered)
    different = {(one.sop_instance_uid, one.content_description) for one in received}
    more = len(different) - len({uid for uid, _ in different})
    figures.show(promise, f"{where}different objects of one result that were sent", seen=more, exactly=0)


def held_by(orthanc: peers.Orthanc, folder: Path) -> list[tuple[str, Path]]:
    """All that an Orthanc holds, by SOP Instance UID, written into `folder`."""
    folder.mkdir()
    return [
        (one["MainDicomTags"]["SOPInstanceUID"], orthanc.download(one["ID"], folder / f"{one['ID']}.dcm"))
        for one in orthanc.find("Instance")
    ]
