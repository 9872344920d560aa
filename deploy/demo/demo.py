"""The main job on real data: a CT of another patient than the model was trained on, sent as a modality sends it.

Starts a demonstration archive and the server, sends the study by C-STORE, watches it go its way, and shows what came
out: what an nnU-Net found, and what LiteMedSAM found in boxes around that. Ends with 0 only if both segmentations
arrived, match the reference sensibly, and the audit log verifies.
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
from collections.abc import Iterator, Mapping, Sequence
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
MODEL, GENERALIST = "nnunet_liver_spleen_demo", "lite_medsam"
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
    "generalist": "LiteMedSAM, a box a slice and segment; its DICOM-SEG; how far the two agree",
    "verify": "both were read back and compared with what was computed",
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
    volume_ml: tuple[float, float]
    """The specialist's and the generalist's."""
    dice: tuple[float, float]
    """Of each with the reference."""


@dataclass(frozen=True)
class Found:
    """What one model found, as the archive holds it, on the grid of the series."""

    path: Path
    segmentation: highdicom.seg.Segmentation
    labels: NDArray[np.uint8]


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
        with console.status("putting LiteMedSAM into the model repository (37 MB to download the first time)"):
            _fetch_generalist()
        console.print("[green]✓[/] LiteMedSAM, which outlines what lies in a box, beside the nnU-Net")
        with DemonstrationArchive(FOLDER / "archive") as archive:
            console.print(f"[green]✓[/] demonstration archive ARCHIVE listens on 127.0.0.1:{archive.port}")
            port = _free_port()
            settings = _write_settings(archive.port, port)
            with _server(settings, port):
                _run("submit", str(FOLDER / "study"), "--settings", str(settings), "--calling", "MODALITY")
                job = _shown(settings, _watch(settings)["id"])
        volume = read_series(files)
        found = [_found(volume, job, role) for role in ("specialist", "generalist")]
        segments = _evaluate(volume, reference_labels(source), found)
        sheet = _draw(volume, found, segments)
        _show_way(job)
        _show_segments(job, segments)
        _show_files(found, sheet, time.monotonic() - started)
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

[pipeline.generalist]
model = "{GENERALIST}"
deliver = true

[[rule]]
name = "abdominal-ct"
pipeline = "liver-spleen"
destinations = ["archive"]
on_disagreement = "both"
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


def _fetch_generalist() -> None:
    command = [sys.executable, str(REPOSITORY / "deploy" / "lite_medsam" / "lite_medsam.py")]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise DemonstrationError(f"LiteMedSAM could not be put into the model repository: {result.stderr.strip()}")


def _asked(settings: Path, *arguments: str) -> Any:
    """What a command answers as JSON."""
    command = [*LIMNER, *arguments, "--json", "--settings", str(settings)]
    return json.loads(subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True).stdout)


def _jobs(settings: Path) -> list[dict[str, Any]]:
    jobs: list[dict[str, Any]] = _asked(settings, "jobs")
    return jobs


def _shown(settings: Path, job: str) -> dict[str, Any]:
    shown: dict[str, Any] = _asked(settings, "jobs", "show", job)
    return shown


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


def _found(series: SeriesVolume, job: Mapping[str, Any], role: str) -> Found:
    """Read what the archive holds of one model, in patient coordinates."""
    uids = [one["sop_instance_uid"] for one in job["results"] if one["role"] == role]
    if len(uids) != 1:
        raise DemonstrationError(f"the {role} has {len(uids)} results: {job['flag']} {job['flag_reason']}")
    (uid,) = uids
    arrived = FOLDER / "archive" / f"{uid}.dcm"
    if not arrived.is_file():
        raise DemonstrationError(f"the {role}'s segmentation did not arrive in the archive")
    path = FOLDER / ("segmentation.dcm" if role == "specialist" else "generalist-segmentation.dcm")
    shutil.copy(arrived, path)
    segmentation = highdicom.seg.segread(path)
    labels = segmentation.get_volume(combine_segments=True, allow_missing_positions=True).match_geometry(series.volume)
    return Found(path, segmentation, labels.array.astype(np.uint8))


def _evaluate(series: SeriesVolume, reference: NDArray[np.uint8], found: Sequence[Found]) -> list[Segment]:
    """Compare both segmentations with the reference."""
    # the reference lies in ascending patient z; the volume may lie the other way
    truth = reference if _ascends(series) else reference[::-1]
    voxel_ml = float(np.prod(series.volume.spacing)) / 1000.0
    segments = []
    for number in found[0].segmentation.segment_numbers:
        item = found[0].segmentation.get_segment_description(number)
        label, code = str(item.SegmentLabel), item.segmented_property_type
        theirs = truth == REFERENCE[label]
        first, second = (one.labels == number for one in found)
        volumes = float(first.sum()) * voxel_ml, float(second.sum()) * voxel_ml
        dice = _dice(first, theirs), _dice(second, theirs)
        if min(dice) < LEAST_DICE:
            raise DemonstrationError(f"{label} has Dice {min(dice):.3f}; at least {LEAST_DICE} was expected")
        segments.append(Segment(label, f"{code.scheme_designator} {code.value}", volumes, dice))
    return segments


def _ascends(series: SeriesVolume) -> bool:
    return bool(series.volume.affine[2, 0] > 0)


def _dice(mine: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> float:
    return 2.0 * float((mine & theirs).sum()) / max(1, int(mine.sum()) + int(theirs.sum()))


def _draw(series: SeriesVolume, found: Sequence[Found], segments: Sequence[Segment]) -> Path:
    """Draw both results on the CT, from the feet to the head."""
    sheet = FOLDER / "overlay.png"
    step = 1 if _ascends(series) else -1
    write_contact_sheet(
        series.volume.array[::step],
        found[0].labels[::step],
        found[1].labels[::step],
        {number: COLOURS[one.label] for number, one in enumerate(segments, start=1)},
        "Limner demonstration: liver and spleen; coloured nnU-Net, white line LiteMedSAM. Not a medical device.",
        sheet,
    )
    return sheet


def _show_way(job: Mapping[str, Any]) -> None:
    way = Table(title="The way of the study", title_justify="left")
    way.add_column("step")
    way.add_column("what happened")
    way.add_column("seconds", justify="right")
    for step in job["way"]:
        name, _, detail = step["step"].partition(":")
        way.add_row(name, WHAT_HAPPENED.get(name, "").format(detail), f"{step['seconds']:.2f}")
    console.print(way)


def _show_segments(job: Mapping[str, Any], segments: Sequence[Segment]) -> None:
    table = Table(title="The segments: what each model found, and its Dice with the reference", title_justify="left")
    table.add_column("segment")
    table.add_column("code")
    for heading in ("nnU-Net, ml", "Dice", "LiteMedSAM, ml", "Dice"):
        table.add_column(heading, justify="right")
    for one in segments:
        figures = [figure for pair in zip(one.volume_ml, one.dice, strict=True) for figure in pair]
        table.add_row(one.label, one.code, *(f"{value:.{1 + 2 * (at % 2)}f}" for at, value in enumerate(figures)))
    console.print(table)
    agreement = Table(title="How far the two agree, without any reference", title_justify="left")
    agreement.add_column("segment")
    for heading in ("Dice", "distance, mm", "volume, %"):
        agreement.add_column(heading, justify="right")
    for compared in job["agreement"]:
        distance = f"{compared['distance_mm']:.1f}"
        agreement.add_row(
            compared["label"], f"{compared['dice']:.3f}", distance, f"{compared['difference_percent']:+.1f}"
        )
    console.print(agreement)
    console.print(f"flag: {job['flag'] or 'none, they agree within the limits'}")
    console.print("Dice against the public data set's reference. The models are a demonstration, not a medical device.")


def _show_files(found: Sequence[Found], sheet: Path, elapsed: float) -> None:
    for one, name in zip(found, ("nnU-Net's", "LiteMedSAM's"), strict=True):
        size = one.path.stat().st_size / 1e6
        console.print(f"{name + ' SEG:':<17} {one.path.relative_to(REPOSITORY)}  ({size:.1f} MB)")
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
