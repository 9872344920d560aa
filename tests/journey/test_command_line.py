"""The command line as an administrator uses it: checks that say what to do, explanations, and a verified log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from archive import DemonstrationArchive
from tests.journey.limner_server import LimnerServer, free_port, settings_for
from tests.phantom import write_phantom_series


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemonstrationArchive]:
    archive = DemonstrationArchive(tmp_path_factory.mktemp("archive"))
    archive.start()
    yield archive
    archive.stop()


@pytest.mark.timeout(300)
def test_check_passes_on_a_good_installation_before_and_while_the_server_runs(
    tmp_path: Path, archive: DemonstrationArchive
) -> None:
    server = LimnerServer(tmp_path, settings_for(archive.port))
    before = server.limner("check")
    assert before.returncode == 0, before.stdout + before.stderr
    asked = server.limner("check", "--listener")
    assert asked.returncode == 1
    assert "limner serve" in asked.stdout
    with server.running_server():
        assert server.limner("check", "--listener").returncode == 0
        while_running = server.limner("check", "--json")
        assert while_running.returncode == 0, while_running.stdout
        names = [one["check"] for one in json.loads(while_running.stdout)]
        assert names == ["data folder", "pipeline liver-spleen", "rules", "triton", "destination archive"]


@pytest.mark.timeout(300)
def test_the_listener_is_found_alive_though_the_allow_list_rejects_the_check(
    tmp_path: Path, archive: DemonstrationArchive
) -> None:
    allowed = '[[listener.source]]\nae_title = "SCANNER"\nhosts = ["192.0.2.1"]\n'
    server = LimnerServer(tmp_path, settings_for(archive.port), listener=allowed)
    with server.running_server():
        result = server.limner("check", "--listener")
        assert result.returncode == 0, result.stdout
        assert "[[listener.source]]" in result.stdout  # not taken for markup


@pytest.mark.timeout(120)
def test_check_says_of_each_fault_what_to_do(tmp_path: Path) -> None:
    settings = settings_for(free_port()).replace("nnunet_liver_spleen_demo", "no_such_model")
    server = LimnerServer(tmp_path, settings + '\n[triton]\naddress = "unix:/nonexistent/triton"\n')
    result = server.limner("check", "--json")
    assert result.returncode == 1
    found = {one["check"]: one for one in json.loads(result.stdout)}
    assert found["data folder"]["ok"]
    for name in ("pipeline liver-spleen", "triton", "destination archive"):
        assert not found[name]["ok"], name
        assert found[name]["advice"], name


@pytest.mark.timeout(120)
def test_settings_that_cannot_be_used_are_named_key_by_key(tmp_path: Path) -> None:
    server = LimnerServer(tmp_path, settings_for(104), listener="prot = 104")
    result = server.limner("serve")
    assert result.returncode == 2
    assert "listener.prot" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.timeout(120)
def test_explain_says_which_rule_takes_a_file_and_why_the_others_do_not(tmp_path: Path) -> None:
    other = (
        '[[rule]]\nname = "mr"\npipeline = "liver-spleen"\ndestinations = ["archive"]\nmatch = { Modality = "MR" }\n'
        'after = "study"\nchannels = { T1 = { SeriesDescription = { pattern = ".*T1.*" } } }\n'
    )
    ct_urgent = '[rule.urgent]\nRequestedProcedurePriority = "STAT"\n'
    server = LimnerServer(tmp_path, settings_for(104) + ct_urgent + other)
    (file, *_) = write_phantom_series(tmp_path / "series")
    result = server.limner("rules", "explain", str(file))
    assert result.returncode == 0, result.stderr
    assert "rule ct takes it" in result.stdout
    assert "✗ mr" in result.stdout
    assert "✗ urgent" in result.stdout
    assert "RequestedProcedurePriority: expected 'STAT', found" in result.stdout
    assert "✗ channel T1" in result.stdout
    assert "SeriesDescription: expected matches the pattern '.*T1.*', found 'phantom'" in result.stdout
    unreadable = tmp_path / "no.dcm"
    unreadable.write_text("not DICOM")
    refused = server.limner("rules", "explain", str(unreadable))
    assert refused.returncode == 2
    assert "unreadable-instance" in refused.stderr


@pytest.mark.timeout(300)
def test_sigterm_finishes_what_runs_and_the_log_that_was_touched_is_found_out(
    tmp_path: Path, archive: DemonstrationArchive
) -> None:
    server = LimnerServer(tmp_path, settings_for(archive.port))
    write_phantom_series(tmp_path / "series", seed=201)
    server.start()
    assert server.submit(tmp_path / "series").returncode == 0
    server.wait_for(lambda: bool(server.job_states()), expected="a job")
    assert server.stop() == 0, server.log()
    events = [record["event"] for record in server.audit_events()]
    assert events[0] == "APPLICATION_STARTED"
    assert events[-1] == "APPLICATION_STOPPED"
    (job,) = server.jobs()  # read with no server running
    for listing in ("jobs", "series"):
        shown = server.limner(listing)
        assert shown.returncode == 0, shown.stderr
        assert "…" not in shown.stdout  # a narrow terminal cuts nothing off
    assert job["state"] in ("delivering", "closed", "queued")
    with server.running_server():
        server.wait_for_jobs(1, states=("closed",))
    server.verify_audit()

    log = server.data / "audit" / "audit.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join([*lines[:2], *lines[3:]]))
    touched = server.limner("audit", "verify")
    assert touched.returncode == 1
    assert "record 3" in touched.stdout


@pytest.mark.timeout(60)
def test_submit_says_when_nobody_listens(tmp_path: Path) -> None:
    server = LimnerServer(tmp_path, settings_for(104))
    write_phantom_series(tmp_path / "series")
    result = server.submit(tmp_path / "series")
    assert result.returncode != 0
    assert "unreachable" in result.stderr or "refused" in result.stderr
    assert "Traceback" not in result.stderr
