"""Limner writes one Segmentation, in a process of its own as in a job: SERIES ARRAY METAINFO KIND OUTPUT.

The answer is a line of JSON: what the step took of which a job would not have done the rest anyway.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

import operators.results.warm  # noqa: F401 - as the fork server of jobs does
from benchmarks.worker import Clock
from operators.object_kinds import Kind
from operators.results.finding import Algorithm, Finding
from operators.results.writing import write_results
from operators.segments import load_segments
from operators.series_volume import read_series

_STEP = "write"
_ALGORITHM = Algorithm("Benchmark", "1.0", "0" * 64)


def main(series: Path, array: Path, metainfo: Path, kind: Kind, output: Path) -> None:
    """Read what a job has at hand by then, and write."""
    read = read_series(sorted(series.glob("*.dcm")))
    order = [int(header.InstanceNumber) - 1 for header in read.datasets]
    finding = Finding(
        labels=read.volume.with_array(np.load(array)[order]),
        series=read,
        segments=load_segments(metainfo),
        algorithm=_ALGORITHM,
        identity="benchmark",
        series_description="organs",
    )
    Path("/proc/self/clear_refs").write_text("5")  # the most memory is counted from here on (proc(5))
    before, clock = _kibibytes("VmRSS"), Clock()
    with clock.stage(_STEP):
        ((written,),) = write_results(finding, [kind], output.parent).values()
    growth = (_kibibytes("VmHWM") - before) << 10
    written.path.replace(output)
    print(json.dumps({"seconds": clock.wall[_STEP], "cpu_seconds": clock.cpu[_STEP], "growth": growth}))


def _kibibytes(name: str) -> int:
    line = next(one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith(f"{name}:"))
    return int(line.split()[1])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], Path(sys.argv[5]))  # type: ignore[arg-type]
