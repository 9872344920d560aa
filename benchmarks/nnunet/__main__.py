"""Measures nnU-Net's own predictor beside Limner: `make bench-nnunet`, or `python -m benchmarks.nnunet --quick`."""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil

from benchmarks.driver import Pythons, Steps
from benchmarks.figures import Figure
from benchmarks.folders import CACHE, REPOSITORY_ROOT
from benchmarks.nnunet.cases import CASES, FULL_25, FULL_BYTES, QUICK_CASES, Case, Spacing
from benchmarks.nnunet.figures import across_cases, case_figures
from benchmarks.nnunet.folders import repository_of
from benchmarks.nnunet.measure import Bench, Measured
from benchmarks.nnunet.report import as_json, markdown
from benchmarks.nnunet.volumes import phantom
from benchmarks.report import end_as_judged, machine, write_page
from operators.model_package import ModelPackage
from operators.nnunet.plans import read_configuration
from operators.nnunet.resampling import resampled_shape
from operators.nnunet.sliding_window import TilePlan

PAGE = REPOSITORY_ROOT / "docs" / "reference" / "performance.md"
_PHANTOM_SEED = 100
_TORSO_SPACING_MM: Spacing = (3.0, 3.0, 3.0)


def main() -> None:
    """Run what the command line asks for."""
    arguments = _arguments()
    progress = Steps(lambda line: print(line, flush=True))
    cases = _chosen(QUICK_CASES if arguments.quick else CASES, arguments.only)
    pythons = Pythons(Path(sys.executable), arguments.exporter_python)
    where = machine()
    progress(f"load {where['load']}; {len(cases)} cases: {', '.join(case.name for case in cases)}")
    measured = measure(cases, pythons, arguments.rounds, is_quick=arguments.quick, progress=progress)
    figures = all_figures(measured)
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
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nnunet", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two small cases on one core, about 90 s")
    parser.add_argument("--only", action="append", metavar="CASE", help="this case alone; may be given several times")
    parser.add_argument("--rounds", type=int, help="runs of each system, instead of the case's own number")
    parser.add_argument("--output", type=Path, default=CACHE / "figures.json", help="where the JSON goes")
    parser.add_argument("--write-page", action="store_true", help="put the tables into docs/reference/performance.md")
    parser.add_argument(
        "--exporter-python",
        type=Path,
        default=REPOSITORY_ROOT / ".exporter" / "bin" / "python",
        help="the interpreter of the exporter environment",
    )
    return parser.parse_args()


def _chosen(cases: Sequence[Case], names: Sequence[str] | None) -> list[Case]:
    known = {case.name: case for case in cases}
    if unknown := set(names or ()) - set(known):
        sys.exit(f"there is no case {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    chosen = [case for case in cases if not names or case.name in names]
    if FULL_25 in chosen and psutil.virtual_memory().available < FULL_BYTES:
        print(f"{FULL_25.name} is left out: it needs {FULL_BYTES >> 30} GiB of free memory", flush=True)
        chosen.remove(FULL_25)
    return chosen


def measure(
    cases: Sequence[Case], pythons: Pythons, rounds: int | None, *, is_quick: bool, progress: Steps
) -> list[Measured]:
    """Make what is missing and take all systems through all cases."""
    CACHE.mkdir(parents=True, exist_ok=True)
    progress("the networks are trained and exported, unless they were before")
    names = dict.fromkeys(case.model_name for case in cases)
    _run(pythons.exporter, "benchmarks.nnunet.models", str(CACHE), *names)
    measured = []
    with tempfile.TemporaryDirectory(prefix="limner-bench-") as scratch:
        bench = Bench(pythons, CACHE, Path(scratch), is_quick=is_quick, progress=progress)
        for case in cases:
            progress(f"{case.name}: {case.title}")
            image, spacing = _volume(case, Path(scratch), pythons)
            measured.append(bench.measure(case, image, spacing, rounds or case.rounds))
    return measured


def all_figures(measured: Sequence[Measured]) -> list[Figure]:
    """Return the figures of all cases."""
    by_name = {one.case.name: one for one in measured}
    tiles = {one.case.name: tile_count(one.case) for one in measured if one.case.shape is not None}
    return [figure for one in measured for figure in case_figures(one)] + across_cases(by_name, tiles)


def tile_count(case: Case) -> int:
    """Return how many tiles a phantom's case has, if none is constant."""
    configuration = read_configuration(_package(case).networks[0])
    if case.shape is None:
        raise ValueError(f"{case.name} has no phantom")
    return TilePlan(resampled_shape(case.shape, case.spacing, configuration.spacing), configuration).count


def _package(case: Case) -> ModelPackage:
    return ModelPackage.load(repository_of(CACHE / case.model_name) / case.model_name)


def _volume(case: Case, scratch: Path, pythons: Pythons) -> tuple[Path, Spacing]:
    """The case's volume as a file, and its spacing in mm, z, y, x."""
    if case.shape is None or case.model is None:
        return _torso(pythons), _TORSO_SPACING_MM
    path = scratch / f"{case.name}.npy"
    np.save(path, phantom(case.shape, case.model.classes, _PHANTOM_SEED)[0])
    return path, case.spacing


def _torso(pythons: Pythons) -> Path:
    """The real CT; fetched once."""
    path = CACHE / "torso.npy"
    if not path.exists():
        sys.path.append(str(REPOSITORY_ROOT / "deploy" / "demo"))
        from abdominal_ct import download

        with tempfile.TemporaryDirectory(dir=CACHE, prefix="torso-") as scratch:
            archive = download(Path(scratch))
            made = Path(scratch) / path.name
            _run(pythons.exporter, "benchmarks.nnunet.real", str(archive), str(made))
            with contextlib.suppress(FileExistsError):
                made.rename(path)
    return path


def _run(python: Path, module: str, *arguments: str) -> None:
    subprocess.run([python, "-m", module, *arguments], cwd=REPOSITORY_ROOT, check=True)


if __name__ == "__main__":
    main()
