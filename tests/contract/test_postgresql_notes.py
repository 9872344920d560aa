"""What the gate noted of a job's input, on a real PostgreSQL: kept with the job, audited by code, shown to people."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.settings import Settings
from app.settings_gate import GateSettings
from operators.gate.notes import GateNote
from tests.database_fixture import fresh_database
from tests.job_harness import PlantedGraph, bench, instance

NOTES = (
    GateNote("localizer", "repair", "channel CT: 1 of 21 images are localizers"),
    GateNote("lossy-compression", "warn", "channel CT: 20 of 20 images were compressed with loss, at most 9 to 1"),
    GateNote("lossy-compression", "warn", "channel PET: 20 of 20 images were compressed with loss, at most 4 to 1"),
)


@pytest.fixture
def url(postgres: str) -> Iterator[str]:
    with fresh_database(postgres) as made:
        yield made


def _verified(settings: Settings) -> dict[str, Any]:
    """What the audit log says of the results."""
    lines = [line for path in settings.audit_folder.glob("*.jsonl") for line in path.read_text().splitlines()]
    (record,) = [one for one in map(json.loads, lines) if one["event"] == "RESULTS_VERIFIED"]
    detail: dict[str, Any] = record["detail"]
    return detail


@pytest.mark.parametrize("notes", [(), NOTES], ids=["none", "three"])
def test_notes_are_kept_in_order_audited_and_shown(notes: tuple[GateNote, ...], tmp_path: Path, url: str) -> None:
    with bench(tmp_path, url, graph=PlantedGraph(notes=notes)) as made:
        made.receive(instance(1), instance(2))
        made.create_jobs()
        made.work(made.all_ended)
        job = made.job()
        assert job.state == "closed"
        assert tuple(made.records.notes(job.id)) == notes
        detail = _verified(made.settings)
        assert detail.get("input_notes", []) == [note.code for note in notes]
        assert "images" not in json.dumps(detail)
    shown = json.loads(_show(tmp_path, url, str(job.id), "--json"))
    assert shown["notes"] == [{"code": one.code, "policy": one.policy, "message": one.message} for one in notes]
    text = " ".join(_show(tmp_path, url, str(job.id)).split())
    for one in notes:
        assert f"input: {one.code} ({one.policy}): {one.message}" in text
    assert ("input:" in text) == bool(notes)


def _show(folder: Path, url: str, *arguments: str) -> str:
    path = folder / "limner.toml"
    path.write_text(f'data_folder = "."\n[database]\nurl = "{url}"\n')
    command = [sys.executable, "-m", "app.cli", "jobs", "show", *arguments, "--settings", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_gates_settings_reach_the_graph_and_make_another_job(tmp_path: Path, url: str) -> None:
    graph = _Asked()
    with bench(tmp_path, url, graph=graph) as made:
        made.receive(instance(1))
        made.create_jobs()
        made.work(made.all_ended)
        plain = made.job().key
    gate = GateSettings(policies={"lossy-compression": "refuse"}, take={"AcquisitionNumber": 2})
    with bench(tmp_path, url, graph=graph, gate=gate) as made:
        made.receive(instance(2))  # the series is decided anew
        made.create_jobs()
        made.work(made.all_ended)
        assert len({job.key for job in made.records.jobs()} - {plain}) == 1
    first, second = graph.asked
    assert (dict(first.policies), dict(first.take)) == ({}, {})
    assert (second.policies, second.take) == (gate.policies, gate.take)


class _Asked(PlantedGraph):
    """Keeps what gate it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Any] = []

    def run(self, request: Any, application: str, **options: Any) -> Any:
        self.asked.append(request.gate)
        return super().run(request, application, **options)
