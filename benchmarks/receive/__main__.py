"""Measures receivers of C-STORE side by side: `make bench-receive`, or `python -m benchmarks.receive --quick`."""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks.driver import Steps
from benchmarks.folders import CACHE, REPOSITORY_ROOT
from benchmarks.receive.measure import measure, summarize
from benchmarks.receive.receivers import receivers
from benchmarks.receive.report import figures_of, markdown
from benchmarks.report import end_as_judged, machine, write_page

PAGE = REPOSITORY_ROOT / "docs" / "reference" / "performance-receive.md"
_OBJECTS = 120
_ROUNDS, _TURN_SECONDS = 5, 1.0
_QUICK_ROUNDS, _QUICK_OBJECTS = 1, 40
_GIGABYTES_A_ROUND = 3
"""Of disk that a run asks for, whatever is written being there to the end; 1.9 were seen."""


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.receive", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of 40 objects, about 40 s")
    parser.add_argument("--rounds", type=int, help="rounds of each receiver, instead of 5")
    parser.add_argument("--folder", type=Path, help="where the receivers keep what comes; a temporary folder else")
    parser.add_argument("--output", type=Path, default=CACHE / "figures-receive.json", help="where the JSON goes")
    parser.add_argument("--write-page", action="store_true", help=f"put the tables into {PAGE.name}")
    arguments = parser.parse_args()
    progress, where = Steps(lambda line: print(line, flush=True)), machine()
    rounds = _QUICK_ROUNDS if arguments.quick else arguments.rounds or _ROUNDS
    objects = _QUICK_OBJECTS if arguments.quick else _OBJECTS
    seconds = 0.0 if arguments.quick else _TURN_SECONDS
    free, needed = shutil.disk_usage(arguments.folder or tempfile.gettempdir()).free, rounds * _GIGABYTES_A_ROUND
    if free < needed * 10**9:
        parser.error(
            f"{needed} GB of free disk are needed, {free / 1e9:.1f} GB are there; name another place with --folder, or "
            "fewer --rounds"
        )
    with (
        tempfile.TemporaryDirectory(prefix="limner-bench-", dir=arguments.folder) as scratch,
        receivers(Path(scratch)) as running,
    ):
        waits = Path(scratch) / "waits"
        done = measure(running, waits, rounds=rounds, objects=objects, seconds=seconds, say=progress)
    summaries = summarize(done)
    tables = markdown(summaries, where)
    print(f"\n{tables}")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps({"machine": where, "rounds": [asdict(one) for one in done]}, indent=1))
    if arguments.write_page:
        write_page(PAGE, tables)
    progress(f"all rounds are in {arguments.output}")
    end_as_judged(figures_of(summaries), is_quick=arguments.quick)


if __name__ == "__main__":
    main()
