"""The main job on real data: a CT of another patient than the model was trained on, sent as a modality sends it.

Starts a demonstration archive and the server, sends the study by C-STORE, watches it go its way, and shows what came
out. Ends with 0 only if the segmentation arrived, matches the reference sensibly, and the audit log verifies.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from abdominal_ct import FetchFailed, fetch, reference_labels, write_series
from archive import DemonstrationArchive
from contact_sheet import write_contact_sheet
from operators.series_volume import SeriesVolume, read_series

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / ".demo"
CACHE = REPOSITORY / ".cache"
LIMNER = [sys.executable, "-m", "app.cli"]
REFERENCE = {"Liver": 5, "Spleen": 1}
"""Segment label to label value in the reference segmentation."""
MODEL = "nnunet_liver_spleen_demo"
LEAST_DICE = 0.8
"""What the model card's figures allow for; less means that something is broken, geometry most likely."""
TIME_LIMIT_SECONDS = 600.0
WHAT_HAPPENED = {
    "receive": "C-STORE: each instance on disk and synced before its 0x0000",
    "wait": "quiet time: nothing more came, the series is complete",
    "queue": "a rule took the series; its job waited for a worker",
    "start": "a process of its own was forked for the graph",
    "read": "geometry checked, pixels decoded to a volume",
    "infer": "nnU-Net, tile by tile on Triton",
    "write": "the DICOM-SEG was written",
    "verify": "it was read back and compared with what was computed",
    "deliver": "C-STORE to {}",
}
COLOURS = {"Liver": (221, 130, 101), "Spleen": (157, 108, 162)}

console = Console()


class DemonstrationError(Exception):
    """The demonstration did not show what it promises."""


@dataclass(frozen=True)
class Segment:
    """One row of the summary."""

    label: str
    code: str
    volume_ml: float
    dice: float


def main() -> int:
    """Run the demonstration; return the exit code."""
    started = time.monotonic()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    try:
        with console.status("fetching the real abdominal CT (20 slices, 3 MB; 38 MB to download the first time)"):
            source = fetch(CACHE)
            files = write_series(source, FOLDER / "study")
        console.print(f"[green]✓[/] real abdominal CT: {len(files)} slices, JPEG 2000 lossless, another patient's")
        with DemonstrationArchive(FOLDER / "archive") as archive:
            console.print(f"[green]✓[/] demonstration archive ARCHIVE listens on 127.0.0.1:{archive.port}")
            port = _free_port()
            settings = _write_settings(archive.port, port)
            with _server(settings, port):
                _run("submit", str(FOLDER / "study"), "--settings", str(settings), "--calling", "MODALITY")
                job = _watch(settings)
        volume = read_series(files)
        segments, path, sheet = _evaluate(volume, reference_labels(source), job)
        _show(job, segments, path, sheet, time.monotonic() - started)
        _verify_audit(settings)
    except (DemonstrationError, FetchFailed) as error:
        console.print(f"✗ {error}", style="bold red", markup=False)
        console.print(f"The server's log is {FOLDER / 'server.log'}")
        return 1
    return 0


def _write_settings(archive_port: int, port: int) -> Path:
    path = FOLDER / "limner.toml"
    path.write_text(
        f"""data_folder = "data"

[listener]
port = {port}
low_water_bytes = 104857600

[routing]
series_quiet_seconds = 2
study_quiet_seconds = 4

[[pipeline]]
name = "liver-spleen"
model = "{MODEL}"

[[rule]]
name = "abdominal-ct"
pipeline = "liver-spleen"
destinations = ["archive"]
match = {{ Modality = "CT", ImageType = "PRIMARY" }}

[[destination]]
name = "archive"
ae_title = "ARCHIVE"
host = "127.0.0.1"
port = {archive_port}
"""
    )
    return path


@contextmanager
def _server(settings: Path, port: int) -> Iterator[None]:
    with (
        (FOLDER / "server.log").open("wb") as log,
        subprocess.Popen(
            [*LIMNER, "serve", "--settings", str(settings)], stdout=log, stderr=log, cwd=REPOSITORY
        ) as process,
    ):
        try:
            with console.status("starting the server with its own PostgreSQL and Triton"):
                _wait_for_listener(process, port)
            console.print(f"[green]✓[/] server LIMNER listens on 127.0.0.1:{port}")
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    if process.returncode != 0:
        raise DemonstrationError(f"the server ended with exit code {process.returncode}")


def _wait_for_listener(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise DemonstrationError(f"the server ended at start with exit code {process.returncode}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise DemonstrationError("the server did not listen within 180 s")


def _run(*arguments: str) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    result = subprocess.run([*LIMNER, *arguments], cwd=REPOSITORY, env=environment, check=False)
    if result.returncode != 0:
        raise DemonstrationError(f"`limner {arguments[0]}` ended with exit code {result.returncode}")


def _jobs(settings: Path) -> list[dict[str, Any]]:
    output = subprocess.run(
        [*LIMNER, "jobs", "--json", "--settings", str(settings)], cwd=REPOSITORY, check=True, capture_output=True
    ).stdout
    jobs: list[dict[str, Any]] = json.loads(output)
    return jobs


def _watch(settings: Path) -> dict[str, Any]:
    """Show the job's progress until it ends; return its record."""
    deadline = time.monotonic() + TIME_LIMIT_SECONDS
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("waiting until the series is complete", total=None)
        while time.monotonic() < deadline:
            for job in _jobs(settings):
                done, total, step = job["progress_done"], job["progress_total"], job["progress_step"]
                text = f"{job['state']}: {step}" if step and job["state"] == "running" else job["state"]
                progress.update(bar, description=text, completed=done or 0, total=total or None)
                if job["state"] == "closed":
                    progress.update(bar, total=1, completed=1)
                    return job
                if job["state"] in ("failed", "refused"):
                    raise DemonstrationError(f"the job ended as {job['state']}: {job['code']}: {job['reason']}")
            time.sleep(0.3)
    raise DemonstrationError(f"no result within {TIME_LIMIT_SECONDS:.0f} s")


def _evaluate(
    series: SeriesVolume, reference: NDArray[np.uint8], job: Mapping[str, Any]
) -> tuple[list[Segment], Path, Path]:
    """Compare the segmentation that the archive holds with the reference, in patient coordinates."""
    found = sorted((FOLDER / "archive").glob("*.dcm"))
    if len(found) != 1:
        raise DemonstrationError(f"expected one segmentation in the archive, found {len(found)}")
    path = FOLDER / "segmentation.dcm"
    shutil.copy(found[0], path)
    segmentation = highdicom.seg.segread(path)
    labels = segmentation.get_volume(combine_segments=True).match_geometry(series.volume)
    # the reference lies in ascending patient z; the volume may lie the other way
    ascending = series.volume.affine[2, 0] > 0
    truth = reference if ascending else reference[::-1]
    segments = []
    for number in segmentation.segment_numbers:
        item = segmentation.get_segment_description(number)
        mine = labels.array == number
        theirs = truth == REFERENCE[str(item.SegmentLabel)]
        dice = 2.0 * float((mine & theirs).sum()) / max(1, int(mine.sum()) + int(theirs.sum()))
        code = item.segmented_property_type
        volume_ml = float(mine.sum()) * float(np.prod(series.volume.spacing)) / 1000.0
        segments.append(Segment(str(item.SegmentLabel), f"{code.scheme_designator} {code.value}", volume_ml, dice))
    sheet = FOLDER / "overlay.png"
    step = -1 if not ascending else 1
    write_contact_sheet(
        series.volume.array[::step],
        labels.array[::step].astype(np.uint8),
        {number: COLOURS[one.label] for number, one in zip(segmentation.segment_numbers, segments, strict=True)},
        "Limner demonstration: liver and spleen. Not a medical device.",
        sheet,
    )
    for segment in segments:
        if segment.dice < LEAST_DICE:
            raise DemonstrationError(f"{segment.label} has Dice {segment.dice:.3f}; at least {LEAST_DICE} was expected")
    return segments, path, sheet


def _show(job: Mapping[str, Any], segments: list[Segment], path: Path, sheet: Path, elapsed: float) -> None:
    way = Table(title="The way of the study", title_justify="left")
    way.add_column("step")
    way.add_column("what happened")
    way.add_column("seconds", justify="right")
    for step in job["way"]:
        name, _, detail = step["step"].partition(":")
        way.add_row(name, WHAT_HAPPENED.get(name, "").format(detail), f"{step['seconds']:.2f}")
    console.print(way)
    table = Table(title="The segments", title_justify="left")
    for heading, side in (("segment", "left"), ("code", "left"), ("volume, ml", "right"), ("Dice", "right")):
        table.add_column(heading, justify=side)  # type: ignore[arg-type]
    for segment in segments:
        table.add_row(segment.label, segment.code, f"{segment.volume_ml:.1f}", f"{segment.dice:.3f}")
    console.print(table)
    console.print("Dice against the public data set's reference. The model is a demonstration, not a medical device.")
    console.print(f"DICOM-SEG:        {path.relative_to(REPOSITORY)}  ({path.stat().st_size / 1e6:.1f} MB)")
    console.print(f"overlay picture:  {sheet.relative_to(REPOSITORY)}")
    console.print(f"whole run:        {elapsed:.1f} s")


def _verify_audit(settings: Path) -> None:
    result = subprocess.run(
        [*LIMNER, "audit", "verify", "--json", "--settings", str(settings)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        raise DemonstrationError(f"the audit chain does not verify: {result.stdout}{result.stderr}")
    report = json.loads(result.stdout)
    console.print(f"[bold green]audit chain verified[/] ({report['records']} records)")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    sys.exit(main())
