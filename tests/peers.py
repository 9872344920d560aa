"""Real peers as processes: Orthanc and DCMTK's storage SCP in a network namespace, and independent judges of objects.

Debian's Orthanc and storescp listen on every address and can't be told otherwise. They run in a network namespace that
is joined to the test machine by a pair of virtual interfaces only, so nothing outside the machine can reach them.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
START_SECONDS = 60.0
ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}
"""DCMTK and Orthanc wait for delayed acknowledgements without this: 20 images a second instead of some hundreds."""

_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_counter = itertools.count()
_NOBODY = "02:00:00:00:00:01"
"""A hardware address that no interface has."""


def find_program(name: str) -> str | None:
    """In the judges' own environment, then the system; never in the server's (pynetdicom brings a storescu too)."""
    return shutil.which(name, path=f"{REPOSITORY / '.tools' / 'bin'}:{_SYSTEM_PATH}")


def program(name: str) -> str:
    found = find_program(name)
    assert found is not None, f"{name} is not installed; use require() first"
    return found


def require(*names: str) -> None:
    """Skip the test, saying why, unless all these programs are there; in CI (CI=true) fail it instead.

    The name "root" stands for the right to make network namespaces and containers.
    """
    missing = [name for name in names if name != "root" and find_program(name) is None]
    if "root" in names and not _may_make_networks():
        missing.append("root (with the right to make network namespaces)")
    if missing:
        reason = f"needs {', '.join(missing)}: run `make test`, which installs the peers as root on Debian or Ubuntu"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


@cache
def _may_make_networks() -> bool:
    """Root alone is not enough: in a container it may lack the right."""
    if os.geteuid() != 0 or (ip := find_program("ip")) is None:
        return False
    name = f"limner-test-{os.getpid()}-trial"
    if subprocess.run([ip, "netns", "add", name], capture_output=True, check=False).returncode != 0:
        return False
    return subprocess.run([ip, "netns", "delete", name], capture_output=True, check=False).returncode == 0


# --- the network between Limner and its peers -----------------------------------------------------------------------


@dataclass(frozen=True)
class PeerNetwork:
    """Two addresses that reach only each other: Limner listens on the host's, the peers run behind the peer's."""

    namespace: str
    host_address: str
    peer_address: str
    inner: str
    """The peer's interface."""
    outer: str
    """The host's."""

    def cut(self) -> None:
        """Take the link away: what is sent is lost, and nobody is told."""
        _ip("-n", self.namespace, "link", "set", self.inner, "down")

    def lose_what_comes(self) -> None:
        """Lose what the peers send, while the interfaces stay up: it goes to a neighbour that is not there."""
        _ip("-n", self.namespace, *_lost(self.host_address, self.inner))

    def lose_what_goes(self) -> None:
        """Lose what the host sends in the same way: what the peers send comes, and is never answered."""
        _ip(*_lost(self.peer_address, self.outer))

    def join(self) -> None:
        """Bring the link back, both ways, however it was lost."""
        _ip("-n", self.namespace, "link", "set", self.inner, "up")
        for place, address, interface in (
            (("-n", self.namespace), self.host_address, self.inner),
            ((), self.peer_address, self.outer),
        ):
            _ip(*place, "neighbour", "flush", "to", address, "dev", interface, "nud", "permanent")

    def command(self, *arguments: str) -> list[str]:
        """The command that runs `arguments` inside the namespace."""
        return [program("ip"), "netns", "exec", self.namespace, *arguments]


@contextmanager
def peer_network() -> Iterator[PeerNetwork]:
    """A network namespace of its own, removed with what runs in it at the end."""
    require("root", "ip")
    _remove_abandoned_networks()
    number = next(_counter)
    namespace = f"limner-test-{os.getpid()}-{number}"
    block = (os.getpid() * 8 + number) % (1 << 14)  # 10.203.0.0/16 has so many blocks of four addresses
    base = f"10.203.{block >> 6}."
    inner, outer = f"lt{block}p", f"lt{block}h"
    network = PeerNetwork(namespace, f"{base}{(block & 63) * 4 + 1}", f"{base}{(block & 63) * 4 + 2}", inner, outer)
    try:
        for arguments in (
            f"netns add {namespace}",
            f"link add {outer} type veth peer name {inner} netns {namespace}",
            f"address add {network.host_address}/30 dev {outer}",
            f"link set {outer} up",
            f"-n {namespace} address add {network.peer_address}/30 dev {inner}",
            f"-n {namespace} link set {inner} up",
            f"-n {namespace} link set lo up",
        ):
            _ip(*arguments.split())
        yield network
    finally:
        _remove_network(namespace)


def _lost(address: str, interface: str) -> list[str]:
    """How to have what is sent to an address go to nobody."""
    return f"neighbour replace {address} lladdr {_NOBODY} dev {interface} nud permanent".split()


def _ip(*arguments: str) -> str:
    result = subprocess.run([program("ip"), *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"ip {' '.join(arguments)}: {result.stderr}"
    return result.stdout


def _remove_network(namespace: str) -> None:
    for pid in _ip("netns", "pids", namespace).split():
        os.kill(int(pid), signal.SIGKILL)
    _ip("netns", "delete", namespace)  # the interfaces go with it


def _remove_abandoned_networks() -> None:
    """Of test runs that were killed."""
    for found in re.finditer(r"^limner-test-(\d+)-\d+", _ip("netns", "list"), re.MULTILINE):
        if not Path(f"/proc/{found[1]}").exists():
            _remove_network(found[0])


@contextmanager
def running_process(command: Sequence[str], log: Path, address: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process that listens on `address`:`port`; ended by SIGTERM."""
    with (
        log.open("ab") as output,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=ENVIRONMENT) as process,
    ):
        try:
            deadline = time.monotonic() + START_SECONDS
            while not _listens(address, port):
                assert process.poll() is None, f"{command} ended at start:\n{log.read_text(errors='replace')}"
                assert time.monotonic() < deadline, f"{command} does not listen:\n{log.read_text(errors='replace')}"
                time.sleep(0.1)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _listens(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((address, port)) == 0


# --- peers ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReceivedObject:
    """An object that came to an Orthanc as a whole, by whatever way."""

    sop_instance_uid: str
    was_held: bool
    """Whether it held one of that UID when this came. It overwrites that, so that its own count tells nothing."""
    content_description: str
    """Its attribute of that name: what tells two objects of one UID apart."""


class Orthanc:
    """A running Orthanc, asked through its REST interface. Its AE title is PACS."""

    AE_TITLE = "PACS"
    DICOM_PORT = 4242
    HTTP_PORT = 8042
    USER = "limner"

    def __init__(
        self, network: PeerNetwork, log: Path, process: subprocess.Popen[bytes], password: str = "", *, notes: Path
    ) -> None:
        self._process = process
        self._notes = notes
        self._authorization = {}
        if password:
            pair = base64.b64encode(f"{self.USER}:{password}".encode()).decode()
            self._authorization = {"Authorization": f"Basic {pair}"}
        self.host = network.peer_address
        self.port = self.DICOM_PORT
        self.log = log
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy

    def kill(self) -> None:
        """SIGKILL; another one on the same folder goes on."""
        self._process.kill()
        self._process.wait(20)

    def request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """What `path` answers; urllib.error.HTTPError when it refuses."""
        url = f"http://{self.host}:{self.HTTP_PORT}{path}"
        request = urllib.request.Request(url, data=body, method=method, headers=self._authorization)
        with self._opener.open(request, timeout=60) as response:
            content: bytes = response.read()
            return content

    def get(self, path: str) -> Any:
        return json.loads(self.request("GET", path))

    def upload(self, path: Path) -> str:
        """Store a file through REST; return Orthanc's name of the instance."""
        answer: dict[str, str] = json.loads(self.request("POST", "/instances", path.read_bytes()))
        return answer["ID"]

    def series(self, **query: str) -> list[dict[str, Any]]:
        """Series whose DICOM attributes match, e.g. ``Modality="SEG"``."""
        return self.find("Series", **query)

    def find(self, level: str, **query: str) -> list[dict[str, Any]]:
        """Resources of a level (Study, Series, Instance) whose DICOM attributes match."""
        body = json.dumps({"Level": level, "Query": query, "Expand": True}).encode()
        found: list[dict[str, Any]] = json.loads(self.request("POST", "/tools/find", body))
        return found

    def download(self, instance: str, path: Path) -> Path:
        """Write the file of the instance that Orthanc calls `instance`."""
        path.write_bytes(self.request("GET", f"/instances/{instance}/file"))
        return path

    def received(self) -> list[ReceivedObject]:
        """What it was sent, in the order in which it came; only where it `notes_what_comes`."""
        lines = self._notes.read_text().splitlines() if self._notes.exists() else []
        return [ReceivedObject(uid, held != "0", content) for uid, held, content in (one.split("|") for one in lines)]

    def delete_everything(self) -> None:
        for study in self.get("/studies"):
            self.request("DELETE", f"/studies/{study}")

    def wait_for_series(self, count: int, seconds: float = 240.0, **query: str) -> list[dict[str, Any]]:
        """Wait until `count` series match; return them."""
        deadline = time.monotonic() + seconds
        while len(found := self.series(**query)) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} series {query} came within {seconds} s"
            time.sleep(0.3)
        return found

    def jobs(self) -> list[dict[str, Any]]:
        """Its own jobs, auto-routing among them."""
        found: list[dict[str, Any]] = self.get("/jobs?expand")
        return found

    def wait_for_jobs(self, count: int, seconds: float = 60.0) -> list[dict[str, Any]]:
        """Wait until `count` of its own jobs ended, all of them well; return them."""
        deadline = time.monotonic() + seconds
        while len(ended := [job for job in self.jobs() if job["State"] in ("Success", "Failure")]) < count:
            assert time.monotonic() < deadline, f"{len(ended)} of {count} jobs ended within {seconds} s"
            time.sleep(0.2)
        assert all(job["State"] == "Success" for job in ended), ended
        return ended


@contextmanager
def running_orthanc(
    network: PeerNetwork,
    folder: Path,
    *,
    route_to: tuple[str, int] | None = None,
    routed: Sequence[str] = ("CT",),
    accepts_unknown: bool = False,
    password: str = "",
    knows: tuple[str, int] | None = None,
    notes_what_comes: bool = False,
) -> Iterator[Orthanc]:
    """An empty Orthanc. It sends each stable series of these modalities to `route_to` (AE title, port) at the host.

    It takes SOP classes that it does not know, such as Label Map Segmentation, only with `accepts_unknown`. With a
    `password` it asks for that of the user `Orthanc.USER`; its DICOMweb is at ``/dicom-web``. It reports storage
    commitments to `knows` (AE title, port) at the host. With `notes_what_comes` it tells each object that it was sent
    (`Orthanc.received`). Where the folder is that of one that was ended, it has what that one had.
    """
    require("Orthanc")
    folder.mkdir(parents=True, exist_ok=True)
    title, port = route_to or knows or ("LIMNER", 11112)
    script = folder / "route.lua"
    modalities = ", ".join(f"{modality}=true" for modality in routed)
    notes = folder / "received"
    script.write_text(
        (_ROUTE.format(title=title, modalities=modalities) if route_to else "")
        + (_NOTE.format(notes=notes) if notes_what_comes else "")
    )
    configuration = {
        "Name": Orthanc.AE_TITLE,
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": ["/usr/share/orthanc/plugins/libOrthancGdcm.so", "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"],
        "HttpPort": Orthanc.HTTP_PORT,
        "RemoteAccessAllowed": True,  # within the namespace's pair of addresses
        "AuthenticationEnabled": bool(password),
        "RegisteredUsers": {Orthanc.USER: password} if password else {},
        "DicomAet": Orthanc.AE_TITLE,
        "DicomPort": Orthanc.DICOM_PORT,
        "DicomCheckCalledAet": True,
        "DicomModalities": {
            title: {
                "AET": title,
                "Host": network.host_address,
                "Port": port,
                "Timeout": 60,
                "AllowStorageCommitment": True,
            }
        },
        "StableAge": 1,
        "LuaScripts": [str(script)],
        "OverwriteInstances": True,
        "UnknownSopClassAccepted": accepts_unknown,
    }
    path = folder / "orthanc.json"
    path.write_text(json.dumps(configuration, indent=2))
    log = folder / "orthanc.log"
    command = network.command(program("Orthanc"), str(path))
    with running_process(command, log, network.peer_address, Orthanc.HTTP_PORT) as process:
        orthanc = Orthanc(network, log, process, password, notes=notes)
        orthanc.get("/system")
        yield orthanc


# Only what is asked for: a segmentation that comes back must not go round. SendToModality() can't send a whole series.
_ROUTE = """
local routed = {{{modalities}}}
function OnStableSeries(series, tags, metadata)
  if routed[tags['Modality']] then
    RestApiPost('/modalities/{title}/store', '{{"Resources":["' .. series .. '"],"Asynchronous":true}}')
  end
end
"""


# Asked before it stores what came, and after it stored all that came before: it is exact also where it is killed.
_NOTE = """
function ReceivedInstanceFilter(dicom, origin)
  local held = ParseJson(RestApiPost('/tools/lookup', dicom['SOPInstanceUID']))
  local notes = assert(io.open('{notes}', 'a'))
  notes:write(dicom['SOPInstanceUID'], '|', #held, '|', dicom['ContentDescription'] or '', '\\n')
  notes:close()
  return true
end
"""


@dataclass(frozen=True)
class StorageProvider:
    """DCMTK's storescp; what it got lies in `folder`."""

    ae_title: str
    host: str
    port: int
    folder: Path
    log: Path

    def files(self) -> list[Path]:
        """What arrived completely, by name."""
        return sorted(path for path in self.folder.iterdir() if path.is_file())


@contextmanager
def running_storescp(
    network: PeerNetwork,
    folder: Path,
    *,
    ae_title: str = "ARCHIVE",
    port: int = 11113,
    only: Sequence[str] = (),
    options: Sequence[str] = (),
) -> Iterator[StorageProvider]:
    """A storage SCP that takes every storage class in every transfer syntax, or `only` some uncompressed."""
    require("storescp")
    received = folder / "received"
    received.mkdir(parents=True, exist_ok=True)
    log = folder / "storescp.log"
    accepted = ["--accept-all"]
    if only:
        profile = folder / "storescp.cfg"
        profile.write_text(_profile(only))
        accepted = ["--config-file", str(profile), "Only"]
    command = network.command(
        program("storescp"), *accepted, *options, "-aet", ae_title, "-od", str(received), "-pdu", "131072", str(port)
    )
    with running_process(command, log, network.peer_address, port):
        yield StorageProvider(ae_title, network.peer_address, port, received, log)


def _profile(sop_classes: Sequence[str]) -> str:
    """DCMTK's way to say what an association accepts (asconfig.txt)."""
    contexts = "".join(
        f"PresentationContext{number} = {sop_class}\\Uncompressed\n"
        for number, sop_class in enumerate(["1.2.840.10008.1.1", *sop_classes], start=1)
    )
    return (
        "[[TransferSyntaxes]]\n[Uncompressed]\n"
        "TransferSyntax1 = LittleEndianExplicit\nTransferSyntax2 = LittleEndianImplicit\n"
        f"[[PresentationContexts]]\n[Some]\n{contexts}"
        "[[Profiles]]\n[Only]\nPresentationContexts = Some\n"
    )


@contextmanager
def running_dcmqrscp(
    network: PeerNetwork, folder: Path, files: Sequence[Path] = (), *, ae_title: str = "QUERY", port: int = 11114
) -> Iterator[tuple[str, int]]:
    """DCMTK's archive, which can be queried, holding `files`; yields its address and port."""
    require("dcmqrscp", "dcmqridx")
    storage = folder / "dcmqrscp"
    storage.mkdir(parents=True)
    for number, path in enumerate(files):
        shutil.copy(path, storage / f"{number:04d}.dcm")
    configuration = folder / "dcmqrscp.cfg"
    configuration.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 131072\nMaxAssociations = 16\n"
        "HostTable BEGIN\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\n{ae_title} {storage} RW (200, 1024mb) ANY\nAETable END\n"
    )
    if files:
        run_program("dcmqridx", str(storage), *map(str, sorted(storage.glob("*.dcm"))))
    command = network.command(program("dcmqrscp"), "--config", str(configuration))
    with running_process(command, folder / "dcmqrscp.log", network.peer_address, port):
        yield network.peer_address, port


# --- storage --------------------------------------------------------------------------------------------------------


class ObjectStorage:
    """`rclone serve s3` on the loopback interface: a folder of buckets, of which one is there."""

    BUCKET = "limner"
    ACCESS_KEY = "limner-access"
    SECRET_KEY = "limner-secret"  # noqa: S105 - known to the tests alone

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self.endpoint = f"http://127.0.0.1:{port}"
        self.folder = folder / "buckets" / self.BUCKET
        self.folder.mkdir(parents=True)
        self.secret_key_file = folder / "secret"
        self.secret_key_file.write_text(f"{self.SECRET_KEY}\n")
        self._log = folder / "rclone.log"
        self._stack = ExitStack()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [program("rclone"), "serve", "s3", "--config", "/dev/null", "--addr", f"127.0.0.1:{self.port}"]
        command += ["--auth-key", f"{self.ACCESS_KEY},{self.SECRET_KEY}", "--vfs-cache-mode", "off"]
        command += ["--no-cleanup", "--dir-cache-time", "1ms", str(self.folder.parent)]  # a test changes its files too
        self._process = self._stack.enter_context(running_process(command, self._log, "127.0.0.1", self.port))

    def stop(self) -> None:
        self.go_on()
        self._stack.close()
        self._process = None

    def hang(self) -> None:
        """It takes connections and says nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def settings(self, prefix: str = "one/two") -> dict[str, object]:
        """What `[shared_storage]` says of it."""
        return {
            "url": f"s3://{self.BUCKET}/{prefix}",
            "endpoint": self.endpoint,
            "access_key": self.ACCESS_KEY,
            "secret_key_file": str(self.secret_key_file),
            "plain_http": True,
        }

    def names(self) -> list[str]:
        """The names of all objects."""
        return sorted(str(one.relative_to(self.folder)) for one in self.folder.rglob("*") if one.is_file())


@contextmanager
def running_object_storage(folder: Path) -> Iterator[ObjectStorage]:
    """An empty S3-compatible storage."""
    require("rclone")
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    storage = ObjectStorage(folder, port)
    storage.start()
    try:
        yield storage
    finally:
        storage.stop()


# --- programs that send ---------------------------------------------------------------------------------------------


def dcmsend(files: Sequence[Path], host: str, port: int, *, called: str, calling: str = "MODALITY") -> str:
    """Send files as DCMTK does, in their own transfer syntaxes; return what it printed."""
    return run_program("dcmsend", "-v", "-aet", calling, "-aec", called, host, str(port), *map(str, files))


def echoscu(host: str, port: int, *, called: str, calling: str = "MODALITY") -> str:
    """C-ECHO as DCMTK does it; fails the test if there is no answer."""
    return run_program("echoscu", "-v", "-aet", calling, "-aec", called, host, str(port))


def run_program(name: str, *arguments: str) -> str:
    """What a peer's program printed; fails the test unless it ended well."""
    result = subprocess.run(
        [program(name), *arguments], capture_output=True, text=True, errors="replace", env=ENVIRONMENT, check=False
    )
    assert result.returncode == 0, f"{name} ended with {result.returncode}:\n{result.stdout}{result.stderr}"
    return result.stdout + result.stderr
