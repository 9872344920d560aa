"""The rounds: each system in turn writes the same label map, in a process of its own."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.driver import BenchmarkFailed
from benchmarks.folders import REPOSITORY_ROOT
from benchmarks.segmentation.cases import Case, Inputs, write_labels
from operators.object_kinds import Kind
from tests.peers import program

DCMQI, LIMNER = "dcmqi", "Limner"
KINDS: tuple[Kind, ...] = ("segmentation", "labelmap")
_DCMQI_TYPES: dict[Kind, str] = {"segmentation": "binary", "labelmap": "labelmap"}
_SAMPLE_SECONDS = 0.01


@dataclass(frozen=True)
class Written:
    """What one system took for one object."""

    system: str
    kind: Kind
    segments: int
    """0 where a single voxel is all there is."""
    seconds: float
    """From the process' start to its end."""
    cpu_seconds: float
    peak: int
    """Bytes of memory that its process held at most."""
    size: int
    """Bytes of the file."""
    step_seconds: float
    """Of Limner the writing alone, with series and labels in memory as in a job; of dcmqi all: it is a program."""
    step_cpu_seconds: float
    growth: int
    """Bytes by which the step made memory grow at most."""


@dataclass(frozen=True)
class Summary:
    """The medians over the rounds."""

    seconds: float
    cpu_seconds: float
    peak: float
    size: float
    step_seconds: float
    step_cpu_seconds: float
    growth: float


Key = tuple[Kind, int, str]
"""Kind of object, number of segments, system."""


def measure(case: Case, *, rounds: int, folder: Path, say: Callable[[str], None]) -> list[Written]:
    """Return what was measured; all files stay in `folder`, those of the last round as ``<kind>-<segments>-<system>``.

    Raises
    ------
    BenchmarkFailed
        If a system does not write what it should.
    """
    series = folder / "series"
    say(f"a CT of {' x '.join(map(str, case.shape))} is being written")
    case.phantom.write(series)
    maps = {segments: write_labels(case, segments, series, folder) for segments in (0, *case.segments)}
    done: list[Written] = []
    for number in range(1, rounds + 1):
        for kind in KINDS:
            for segments, inputs in maps.items():
                pair = _dcmqi(inputs, kind, segments, folder), _limner(inputs, kind, segments, folder)
                done += pair
                took = ", ".join(f"{one.system} {one.step_seconds:.2f} s, {one.size / 1e6:.1f} MB" for one in pair)
                say(f"round {number}: {kind}, {segments} segments: {took}")
    return done


def summarize(written: Sequence[Written]) -> dict[Key, Summary]:
    """Return the medians."""
    groups: dict[Key, list[Written]] = {}
    for one in written:
        groups.setdefault((one.kind, one.segments, one.system), []).append(one)
    return {
        key: Summary(*(statistics.median(getattr(one, name) for one in group) for name in Summary.__annotations__))
        for key, group in groups.items()
    }


def _dcmqi(inputs: Inputs, kind: Kind, segments: int, folder: Path) -> Written:
    output = folder / f"{kind}-{segments}-dcmqi.dcm"
    command = [
        str(_itkimage2segimage()),
        *("--inputImageList", str(inputs.image), "--inputDICOMDirectory", str(inputs.series)),
        *("--inputMetadata", str(inputs.metainfo), "--segmentationType", _DCMQI_TYPES[kind]),
        *("--outputDICOM", str(output)),
    ]
    _, seconds, cpu_seconds, peak = _run(command, output)
    size = output.stat().st_size
    return Written(DCMQI, kind, segments, seconds, cpu_seconds, peak, size, seconds, cpu_seconds, peak)


@functools.cache
def _itkimage2segimage() -> Path:
    """The program itself: what pip puts beside it is a Python program that starts it, whose memory is not dcmqi's.

    Raises
    ------
    BenchmarkFailed
        If it is not where dcmqi's package has it.
    """
    package = Path(program("itkimage2segimage")).parents[1]
    found = sorted(package.glob("lib/python3.*/site-packages/dcmqi/bin/itkimage2segimage"))
    if not found:
        raise BenchmarkFailed(f"expected dcmqi's programs in a folder dcmqi/bin below {package}")
    return found[0]


def _limner(inputs: Inputs, kind: Kind, segments: int, folder: Path) -> Written:
    output = folder / f"{kind}-{segments}-limner.dcm"
    files = map(str, (inputs.series, inputs.array, inputs.metainfo))
    command = [sys.executable, "-m", "benchmarks.segmentation.limner", *files, kind, str(output)]
    said, seconds, cpu_seconds, peak = _run(command, output)
    step = json.loads(said)
    size = output.stat().st_size
    return Written(
        *(LIMNER, kind, segments, seconds, cpu_seconds, peak, size),
        *(step["seconds"], step["cpu_seconds"], step["growth"]),
    )


def _run(command: Sequence[str], output: Path) -> tuple[str, float, float, int]:
    """Run a program that writes `output`; return what it said, seconds, CPU seconds, and its most resident memory."""
    output.unlink(missing_ok=True)
    log = output.with_suffix(".log")
    began = time.monotonic()
    with log.open("w") as said, subprocess.Popen(command, cwd=REPOSITORY_ROOT, stdout=said, stderr=said) as process:
        peak = 0
        while True:
            peak = max(peak, _peak(process.pid))
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            if ended:
                break
            time.sleep(_SAMPLE_SECONDS)
        seconds = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not output.exists():
        raise BenchmarkFailed(f"{command[0]} ended with status {process.returncode}:\n{log.read_text()[-2000:]}")
    return log.read_text(), seconds, usage.ru_utime + usage.ru_stime, peak


def _peak(pid: int) -> int:
    """The most resident memory of a process so far (VmHWM of proc(5)); 0 if it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    return 0
