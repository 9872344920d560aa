"""Measures the writing of Segmentations: `make bench-segmentation`, or `python -m benchmarks.segmentation --quick`."""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from benchmarks.driver import Steps
from benchmarks.folders import CACHE, REPOSITORY_ROOT
from benchmarks.report import end_as_judged, machine, write_page
from benchmarks.segmentation.cases import QUICK, WHOLE
from benchmarks.segmentation.measure import measure, summarize
from benchmarks.segmentation.report import figures_of, markdown

PAGE = REPOSITORY_ROOT / "docs" / "reference" / "performance-segmentation.md"
_ROUNDS = 5


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.segmentation", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of a small series, about 15 s")
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help="rounds of each system, instead of 5")
    parser.add_argument("--folder", type=Path, help="where inputs and objects are left; a temporary folder else")
    parser.add_argument("--output", type=Path, default=CACHE / "figures-segmentation.json", help="where the JSON goes")
    parser.add_argument("--write-page", action="store_true", help=f"put the tables into {PAGE.name}")
    arguments = parser.parse_args()
    progress, where = Steps(lambda line: print(line, flush=True)), machine()
    case, rounds = (QUICK, 1) if arguments.quick else (WHOLE, arguments.rounds)
    with _folder(arguments.folder) as folder:
        done = measure(case, rounds=rounds, folder=folder, say=progress)
    summaries = summarize(done)
    tables = markdown(summaries, case.shape, where)
    print(f"\n{tables}")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps({"machine": where, "rounds": [asdict(one) for one in done]}, indent=1))
    if arguments.write_page:
        write_page(PAGE, tables)
    progress(f"all rounds are in {arguments.output}")
    end_as_judged(figures_of(summaries), is_quick=arguments.quick)


@contextlib.contextmanager
def _folder(wished: Path | None) -> Iterator[Path]:
    if wished is not None:
        wished.mkdir(parents=True, exist_ok=True)
        yield wished
        return
    with tempfile.TemporaryDirectory(prefix="limner-bench-") as made:
        yield Path(made)


if __name__ == "__main__":
    main()
