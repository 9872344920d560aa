"""Measures LiteMedSAM in torch beside Limner: `make bench-sam`, or `python -m benchmarks.sam --quick`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.driver import Pythons, Steps
from benchmarks.folders import CACHE, REPOSITORY_ROOT
from benchmarks.report import end_as_judged, machine, write_page
from benchmarks.sam.cases import ABDOMEN, QUICK, read_case
from benchmarks.sam.figures import case_figures
from benchmarks.sam.measure import Bench
from benchmarks.sam.model import model_repository
from benchmarks.sam.report import as_json, markdown

PAGE = REPOSITORY_ROOT / "docs" / "reference" / "performance-sam.md"


def main() -> None:
    """Run what the command line asks for."""
    arguments = _arguments()
    progress = Steps(lambda line: print(line, flush=True))
    case = QUICK if arguments.quick else ABDOMEN
    where = machine()
    progress(f"load {where['load']}; {case.name}: {case.title}")
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="limner-bench-") as scratch:
        task = read_case(case, Path(scratch) / "series")
        pythons = Pythons(Path(sys.executable), arguments.exporter_python)
        bench = Bench(pythons, model_repository(), Path(scratch), progress)
        measured = bench.measure(case, task, arguments.rounds or case.rounds, is_quick=arguments.quick)
    figures = case_figures(measured)
    tables = markdown(measured, figures, where)
    print(f"\n{tables}")
    target: Path = arguments.output
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(as_json(measured, figures, where), encoding="utf-8")
    if arguments.write_page:
        write_page(PAGE, tables)
    progress(f"all figures are in {target}")
    end_as_judged(figures, is_quick=arguments.quick)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sam", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three slices on one core, about 30 s")
    parser.add_argument("--rounds", type=int, help="rounds of each system, instead of the case's own number")
    parser.add_argument("--output", type=Path, default=CACHE / "figures-sam.json", help="where the JSON goes")
    parser.add_argument("--write-page", action="store_true", help=f"put the tables into {PAGE.name}")
    parser.add_argument(
        "--exporter-python",
        type=Path,
        default=REPOSITORY_ROOT / ".exporter" / "bin" / "python",
        help="the interpreter of the exporter environment",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
