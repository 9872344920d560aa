"""The parts that the server stands on, made as the settings say, and where the command line finds a running one's."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from app.delivery.destination import Destination
from app.delivery.dicomweb import DicomWebDestination
from app.delivery.query import DimseQuery
from app.delivery.storage import DimseDestination
from app.errors import ServingError
from app.jobs.records import Records
from app.jobs.result_files import ResultFiles, SharedResultFiles
from app.listener.shared_spool import SharedSpool
from app.listener.spool import Spool
from app.listener.transfers import Transfers
from app.serving.postgres import EmbeddedPostgres
from app.serving.triton import EmbeddedTriton
from app.serving.triton_addresses import TritonAddresses
from app.settings import DestinationSettings, Settings
from app.settings_shared_storage import SharedStorageSettings
from operators.shared_memory import is_running

if TYPE_CHECKING:
    from app.storage.object_store import ObjectStore

_SERVER_FILE = "server.json"
_IN_USE_SECONDS = 60.0  # a server that starts says where its database is once it has its models and listens
_LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class RunningServer:
    """What a running server tells the command line: where its parts are. Kept in the run folder."""

    process_mark: str
    """Number and start of its process: a number alone comes back, in a container with each restart."""
    database_url: str
    triton_target: str
    """Empty where it needs none."""
    listener_port: int
    """0 where it does not listen."""


@contextlib.contextmanager
def open_records(settings: Settings) -> Iterator[Records]:
    """Give the records to a command: of the running server, or of the database started for the moment.

    A server that is just starting or ending, and another command, are waited for.

    Raises
    ------
    ServingError
        If the embedded database doesn't start, or another Limner keeps its folder without being a server that runs.
    """
    with contextlib.ExitStack() as stack:
        yield stack.enter_context(Records(_database_url(settings, stack), maximum_connections=2))


def _database_url(settings: Settings, stack: contextlib.ExitStack) -> str:
    deadline = time.monotonic() + _IN_USE_SECONDS
    while True:
        running = running_server(settings)
        if running is not None:
            return running.database_url
        try:
            return stack.enter_context(database(settings, lock_seconds=0.0))
        except ServingError as error:
            if error.code != "database-in-use" or time.monotonic() >= deadline:
                raise
        time.sleep(_LOOK_SECONDS)


def running_server(settings: Settings) -> RunningServer | None:
    """Return where the running server's parts are; None if no server runs on this data folder."""
    own = settings.run_folder / _SERVER_FILE
    files = [own, *sorted(settings.run_folder.glob(f"*/{_SERVER_FILE}"))]  # those of processes with a name
    for path in files:
        try:
            found = RunningServer(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            continue
        if is_running(found.process_mark):
            return found
    return None


@contextlib.contextmanager
def announced(run_folder: Path, running: RunningServer) -> Iterator[None]:
    """Tell the command line where the running server's parts are, as long as the context lasts."""
    path = run_folder / _SERVER_FILE
    aside = path.with_suffix(".part")
    aside.write_text(json.dumps(asdict(running)))
    aside.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def database(settings: Settings, *, lock_seconds: float = 30.0) -> Iterator[str]:
    """Give the database's URL: the external one's, or that of the embedded one, which ends with the context.

    `lock_seconds` is how long another Limner is waited for that uses the embedded one's folder.
    """
    if settings.database.url is not None:
        yield settings.database.url
        return
    settings.data_folder.mkdir(parents=True, exist_ok=True)
    server = EmbeddedPostgres(settings.database_folder, settings.run_folder, lock_seconds=lock_seconds)
    try:
        yield server.start()
    finally:
        server.stop()


@contextlib.contextmanager
def triton(settings: Settings, run_folder: Path) -> Iterator[Callable[[], str]]:
    """Tell where the next run's Triton is: an external one, or the embedded one, which ends with the context."""
    if settings.triton.addresses:
        yield TritonAddresses(settings.triton.addresses).next
        return
    with embedded_triton(settings, run_folder) as server:
        yield lambda: server.target


def embedded_triton(settings: Settings, run_folder: Path) -> EmbeddedTriton:
    """Make the embedded Triton that the settings describe; its context starts and stops it."""
    return EmbeddedTriton(
        settings.triton.python,
        settings.model_repository,
        run_folder,
        start_seconds=settings.triton.start_seconds,
        probe_seconds=settings.triton.probe_seconds,
        model_configuration=settings.triton.model_configuration,
    )


@cache
def make_store(settings: SharedStorageSettings) -> ObjectStore | None:
    """Return what speaks to the storage that hosts share, one a process; None if the settings name none."""
    if settings.url is None:
        return None
    from app.storage.object_store import ObjectStore  # here, since it takes a second and few need it

    return ObjectStore(settings)


def make_spool(settings: Settings) -> Spool:
    """Make the spool that the settings describe; its folders are made by `Spool.prepare`."""
    store = make_store(settings.shared_storage)
    if store is None:
        return Spool(settings.spool_folder, settings.listener.low_water_bytes)
    return SharedSpool(settings.spool_folder, settings.listener.low_water_bytes, store)


def make_result_files(settings: Settings) -> ResultFiles:
    """Make what finds the files of results."""
    store = make_store(settings.shared_storage)
    if store is None:
        return ResultFiles(settings.results_folder)
    return SharedResultFiles(settings.results_folder, store)


def make_destinations(settings: Settings) -> Iterator[Destination]:
    """Make the destinations that the settings describe."""
    for one in settings.destination:
        yield make_destination(one, settings)


def make_destination(one: DestinationSettings, settings: Settings) -> Destination:
    """Make a destination: by DICOMweb if it has a URL, else by DIMSE."""
    if one.url is not None:
        return DicomWebDestination(one)
    return DimseDestination(one, settings.listener.ae_title, settings.listener.ae_title)


def reporting_titles(settings: Settings) -> dict[str, list[str]]:
    """Return the destinations that report what they keep, by the titles that they call from."""
    titles: dict[str, list[str]] = {}
    for one in settings.destination:
        if one.commitment == "storage-commitment":
            titles.setdefault(one.ae_title, []).append(one.name)
    return titles


def make_queries(settings: Settings) -> dict[str, DimseQuery]:
    """Make what asks the archives that the settings describe, none for longer than completion waits for."""
    own, longest = settings.listener.ae_title, settings.routing.ask_seconds
    return {one.name: DimseQuery.of_archive(one, own, longest_seconds=longest) for one in settings.archive}


def make_transfers(settings: Settings, records: Records) -> Transfers:
    """Make what remembers the associations whose release completes their series; nothing is open when it is made."""
    listener = f"{socket.gethostname()} {settings.listener.port}"
    titles = [one.ae_title for one in settings.listener.source if one.complete_on_release]
    transfers = Transfers(records, listener=listener, calling_ae_titles=titles)
    transfers.start()
    return transfers
