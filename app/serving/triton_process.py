"""One tritonserver process: where its parts are, how it is started, whether it is whole, how it ends.

The server is the binary in the ``nvidia-pytriton`` wheel, whose Python interface is never imported. It lives in an
environment of its own, because its python backend needs numpy below 2.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from app.errors import ServingError
from app.serving.triton_folder import TritonFolder
from operators.shared_memory import is_running

SHARED_MEMORY_PREFIX = "limner_triton_"
"""The server's own shared memory regions are called this, then Limner's process mark, then something random."""

_BACKENDS = Path(__file__).parent / "backends"
_SHARED_MEMORY_FOLDER = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory lies on Linux
_STUB_NAME = "triton_python_backend_stub"
_PROBE_TIMEOUT_SECONDS = 60.0
_END_SECONDS = 20.0
_LARGEST_LOG_BYTES = 4 << 20

_FIND_PARTS = """
import ctypes, importlib.util, json, pathlib, sys, sysconfig
spec = importlib.util.find_spec("pytriton")
if spec is None:
    sys.exit("nvidia-pytriton is not installed")
import numpy, onnxruntime
version = "%d.%d" % sys.version_info[:2]
library = "libpython" + version + ".so.1.0"
folders = [sysconfig.get_config_var("LIBDIR") or "", sys.prefix + "/lib"]
folders = [folder for folder in folders if pathlib.Path(folder, library).exists()]
if not folders:
    try:
        ctypes.CDLL(library)
    except OSError:
        sys.exit(library + " is missing: install libpython" + version + ", or put it into " + sys.prefix + "/lib")
print(json.dumps({
    "packages": str(pathlib.Path(spec.submodule_search_locations[0]).parent),
    "python_version": version,
    "library_folders": folders,
    "programs": str(pathlib.Path(sys.executable).parent),
    "numpy": numpy.__version__,
}))
"""
_EXECUTE_BOUND_TO_PARENT = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit("Limner ended while Triton was being started")
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Run by Triton's interpreter, which then becomes the server: code between fork and exec is unsafe with threads."""


@dataclass(frozen=True)
class TritonParts:
    """Where the server's environment keeps what is needed."""

    python: Path
    """Its interpreter."""
    packages: Path
    """Its site-packages."""
    python_version: str
    """As in ``3.11``: the backends' processes exist for each."""
    library_folders: tuple[str, ...]
    """Where its libpython is, if the loader would not find it by itself."""
    programs: Path
    """Where its ``python3`` is."""

    @classmethod
    def find(cls, python: Path) -> TritonParts:
        """Ask the environment's interpreter.

        Raises
        ------
        ServingError
            If it can't be run, lacks a package, or has numpy 2 (``triton-environment``).
        """
        try:
            found = subprocess.run(
                [python, "-c", _FIND_PARTS],
                env=_environment(),
                capture_output=True,
                text=True,
                timeout=_PROBE_TIMEOUT_SECONDS,
                check=True,
            )
        except subprocess.CalledProcessError as error:
            reason = (error.stderr.strip().splitlines() or ["no message"])[-1]
            raise ServingError(
                f"Triton's environment is incomplete ({reason}); install requirements/triton.txt into it",
                code="triton-environment",
            ) from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ServingError(
                f"Triton's interpreter {python} can't be run; make its environment with requirements/triton.txt or set "
                "triton.python or triton.address",
                code="triton-environment",
            ) from error
        parts = json.loads(found.stdout)
        if int(parts["numpy"].partition(".")[0]) >= 2:
            # under numpy 2 this server computes from zeros and answers with nothing, without an error
            raise ServingError(
                f"Triton's environment has numpy {parts['numpy']} and needs numpy<2; install requirements/triton.txt",
                code="triton-environment",
            )
        return cls(
            python=python,
            packages=Path(parts["packages"]),
            python_version=parts["python_version"],
            library_folders=tuple(parts["library_folders"]),
            programs=Path(parts["programs"]),
        )

    def lay_out_backends(self, folder: Path) -> None:
        """Fill `folder` with the python backend and Limner's backends on it.

        Copies, because the server finds its libraries relative to where its files really lie.
        """
        server = self.packages / "pytriton" / "tritonserver"
        shutil.copytree(server / "backends" / "python", folder / "python")
        stub = folder / "python" / _STUB_NAME
        shutil.copyfile(server / "python_backend_stubs" / self.python_version / _STUB_NAME, stub)
        stub.chmod(0o700)
        shutil.copytree(_BACKENDS, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))

    def environment(self) -> dict[str, str]:
        """The server's environment variables."""
        kept = _environment()
        libraries = [str(self.packages / "nvidia_pytriton.libs"), *self.library_folders]
        libraries += [kept["LD_LIBRARY_PATH"]] if kept.get("LD_LIBRARY_PATH") else []
        return {
            **kept,
            "LD_LIBRARY_PATH": os.pathsep.join(libraries),
            # the stubs' interpreter finds its packages through the first python3 on the path
            "PATH": os.pathsep.join([str(self.programs), kept.get("PATH", os.defpath)]),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    @property
    def program(self) -> Path:
        """The server."""
        return self.packages / "pytriton" / "tritonserver" / "bin" / "tritonserver"


def _environment() -> dict[str, str]:
    """Return our own variables, without those that would show Triton's interpreter our packages."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONHOME", "PYTHONPATH")}


class TritonProcess:
    """A running tritonserver. It ends when the thread that made this object ends.

    Parameters
    ----------
    parts
        The server's environment.
    repository
        The model repository.
    folder
        Where its backends lie and its sockets come; no TCP port is opened.
    log
        What the server prints is added to it.
    prefix
        How the server's shared memory regions are called.
    model_configuration
        Where a model has ``configs/<this>.pbtxt``, that is taken instead of its ``config.pbtxt``.
    """

    def __init__(
        self,
        parts: TritonParts,
        repository: Path,
        folder: TritonFolder,
        log: Path,
        prefix: str,
        *,
        model_configuration: str | None = None,
    ) -> None:
        self._prefix = prefix
        self._stubs: list[psutil.Process] = []
        command = [
            str(parts.program),
            f"--model-repository={repository}",
            f"--backend-directory={folder.backends}",
            f"--grpc-address={folder.grpc_address}",
            "--grpc-port=1",
            f"--metrics-address={folder.metrics_address}",
            "--allow-http=false",
            "--allow-gpu-metrics=false",
            "--disable-auto-complete-config",
            "--exit-timeout-secs=10",
            "--model-load-thread-count=1",  # several at once have aborted in the python backend on busy machines
            f"--backend-config=python,shm-region-prefix-name={prefix}",
        ]
        if model_configuration is not None:
            command.append(f"--model-config-name={model_configuration}")
        _make_room(log)
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [parts.python, "-c", _EXECUTE_BOUND_TO_PARENT, str(os.getpid()), *command],
                env=parts.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                umask=0o077,
                start_new_session=True,  # a terminal's Ctrl-C is for Limner, which then ends the server in order
            )

    @property
    def pid(self) -> int:
        """The server's process number."""
        return self._process.pid

    def exit_status(self) -> int | None:
        """How it ended, as `subprocess.Popen.returncode`; None while it runs."""
        return self._process.poll()

    def remember_stubs(self) -> None:
        """Note the processes of the models' instances; to be called when all models are loaded."""
        self._stubs = self._find_stubs()

    def stub_pids(self) -> list[int]:
        """The process numbers of the models' instances, as noted."""
        return [stub.pid for stub in self._stubs]

    def has_lost_stub(self) -> bool:
        """Whether a model's process has died. The server goes on and says it is ready, but never replaces it."""
        return any(not _runs(stub) for stub in self._stubs)

    def end(self, *, in_order: bool) -> None:
        """End it: `in_order` lets requests finish; else at once. Its shared memory is removed."""
        if in_order and self.exit_status() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_SECONDS)
        for stub in self._stubs:
            if _runs(stub):
                stub.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        remove_shared_memory(self._prefix)

    def _find_stubs(self) -> list[psutil.Process]:
        try:
            children = psutil.Process(self._process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return [child for child in children if _STUB_NAME.startswith(_name(child)[:15] or "-")]


def remove_shared_memory(prefix: str) -> None:
    """Remove all shared memory regions whose names start with `prefix`."""
    for region in _SHARED_MEMORY_FOLDER.glob(f"{prefix}*"):
        region.unlink(missing_ok=True)


def remove_leftovers(run_folder: Path) -> None:
    """Remove what Limners that no longer run left: servers, folders, shared memory.

    A killed Limner's server is told to end by the kernel; one that did not obey is killed here.
    """
    for folder in TritonFolder.left_by_the_dead(run_folder):
        for process in psutil.process_iter(["cmdline"]):
            if any(str(folder.path) in part for part in process.info["cmdline"] or []) and _runs(process):
                process.kill()
        folder.remove()
    for region in _SHARED_MEMORY_FOLDER.glob(f"{SHARED_MEMORY_PREFIX}*"):
        pid, ticks, *_ = [*region.name.removeprefix(SHARED_MEMORY_PREFIX).split("_"), ""]
        if not is_running(f"{pid}_{ticks}"):
            region.unlink(missing_ok=True)


def log_tail(log: Path, lines: int = 15) -> str:
    """The last error lines of a server's log, or its last lines if it names no error."""
    try:
        text = log.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return "(no log)"
    errors = [line for line in text if line.startswith("E") or "error" in line.lower() or "failed" in line.lower()]
    return "\n".join((errors or text)[-lines:])


def _make_room(log: Path) -> None:
    if log.exists() and log.stat().st_size > _LARGEST_LOG_BYTES:
        log.replace(log.with_suffix(".previous.log"))


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
