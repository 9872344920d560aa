"""A whole session as a viewer has it: a series comes by C-STORE, is drawn on over HTTP, a SEG reaches the archive."""

from __future__ import annotations

import base64
import io
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pydicom
import pytest
from PIL import Image

from archive import DemonstrationArchive
from tests import judges, peers
from tests.database_fixture import fresh_database
from tests.journey.limner_server import REPOSITORY, LimnerServer, free_port
from tests.triton_fixture import running_triton
from tests.web_fixture import (
    CENTRE,
    MODEL,
    TOKEN,
    Client,
    ball_mask,
    from_runs,
    generalist_repository,
    overlap,
    write_ball,
)

pytestmark = pytest.mark.timeout(600)
BOX = {"left": 20, "top": 12, "right": 45, "bottom": 37}
MIDDLE = 5
ACCEPTANCE = {
    "label": "Ball",
    "category": {"value": "91723000", "scheme": "SCT", "meaning": "Anatomical Structure"},
    "type": {"value": "52101004", "scheme": "SCT", "meaning": "Present"},
    "destinations": ["archive"],
}


def settings(port: int, archive: str, idle_seconds: float = 600) -> str:
    return f"""
[[destination]]
name = "archive"
ae_title = "{archive}"
host = "HOST"
port = 4242
retry_first_seconds = 1

[web]
enabled = true
port = {port}
token_file = "token"
models = ["{MODEL}"]
idle_seconds = {idle_seconds}
"""


class Viewer(Client):
    """A client that knows a series."""

    def open(self, series: list[Path], **more: Any) -> str:
        header = pydicom.dcmread(series[0], stop_before_pixels=True)
        request = {
            "study_instance_uid": str(header.StudyInstanceUID),
            "series_instance_uid": str(header.SeriesInstanceUID),
            "model": MODEL,
            **more,
        }
        self.session = self.ok("POST", "/v1/sessions", request, 201)
        return f"/v1/sessions/{self.session['id']}"


@pytest.fixture(autouse=True)
def _models(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = generalist_repository(tmp_path_factory.mktemp("repository"))
    monkeypatch.setenv("LIMNER__MODEL_REPOSITORY", str(repository))


@pytest.fixture
def ball(tmp_path: Path) -> list[Path]:
    return write_ball(tmp_path / "ball")


def started(folder: Path, settings_text: str, host: str = "127.0.0.1") -> LimnerServer:
    (folder / "token").write_text(f"{TOKEN}\n")
    return LimnerServer(folder, settings_text, host=host, quiet_seconds=0.5)


def received(server: LimnerServer, folder: Path, count: int = 1) -> None:
    result = server.submit(folder)
    assert result.returncode == 0, result.stdout + result.stderr
    server.wait_for(
        lambda: len(server.series()) == count and all(one["state"] == "no-rule" for one in server.series()),
        expected="the series",
    )


def prompt(**more: Any) -> dict[str, Any]:
    return {"coordinates": "pixel", "slice": MIDDLE, **more}


def test_a_session_from_the_first_box_to_the_archive(
    tmp_path: Path, ball: list[Path], network: peers.PeerNetwork
) -> None:
    peers.require("dciodvfy")
    port = free_port()
    text = settings(port, peers.Orthanc.AE_TITLE).replace("HOST", network.peer_address)
    server = started(tmp_path, text, network.host_address)
    viewer = Viewer(port)
    with peers.running_orthanc(network, tmp_path / "orthanc") as orthanc, server.running_server():
        received(server, tmp_path / "ball")
        assert [one["name"] for one in viewer.ok("GET", "/v1/models")["models"]] == [MODEL]
        path = viewer.open(ball)
        geometry = viewer.session["geometry"]
        assert (geometry["slices"], geometry["rows"], geometry["columns"]) == (12, 48, 64)
        affine = np.array(geometry["affine"])

        # a box: what is bright in it
        answer = viewer.ok("POST", f"{path}/prompts", prompt(box=BOX))
        found = from_runs(answer["masks"][0]["runs"])
        assert answer["masks"][0]["iou"] == pytest.approx(0.9)
        assert answer["masks"][0]["area"] == found.sum()
        assert overlap(found, ball_mask(MIDDLE)) > 0.85  # the network sees blocks of 4 by 4 pixels

        # the same in the patient, as PNG: the same mask
        corners = [affine @ [MIDDLE, row - 0.5, column - 0.5, 1] for row, column in ((12, 20), (37, 45))]
        placed = {
            "coordinates": "patient",
            "frame_of_reference_uid": geometry["frame_of_reference_uid"],
            "box": [list(corner[:3]) for corner in corners],
            "format": "png",
        }
        answer = viewer.ok("POST", f"{path}/prompts", placed)
        picture = np.array(Image.open(io.BytesIO(base64.b64decode(answer["masks"][0]["png"]))))
        assert answer["slice"] == MIDDLE
        assert np.array_equal(picture == 255, found)
        assert viewer.ok("POST", f"{path}/undo")["steps"] == 1

        # refined by a point beside it, and taken back
        point = {"x": CENTRE[2] + 4, "y": CENTRE[1], "foreground": False}
        answer = viewer.ok("POST", f"{path}/prompts", prompt(box=BOX, points=[point], refine=True))
        refined = from_runs(answer["masks"][0]["runs"])
        assert 0 < refined.sum() < found.sum()
        assert not (refined & ~found).any()
        (undone,) = viewer.ok("POST", f"{path}/undo")["slices"]
        assert undone["slice"] == MIDDLE
        assert np.array_equal(from_runs(undone["runs"]), found)

        # three masks, another one chosen, taken back
        answer = viewer.ok("POST", f"{path}/prompts", prompt(box=BOX, several=True))
        assert len(answer["masks"]) == 3
        (chosen,) = viewer.ok("POST", f"{path}/choice", {"mask": 2})["slices"]
        assert chosen["area"] == answer["masks"][2]["area"]
        for _ in range(2):
            viewer.ok("POST", f"{path}/undo")

        # in 3D until the ball ends
        viewer.ok("POST", f"{path}/propagation", {}, 202)
        server.wait_for(lambda: viewer.ok("GET", f"{path}/propagation")["state"] == "done", 60)
        state = viewer.ok("GET", f"{path}/propagation")
        assert state["done"] > len(state["slices"]) > 6
        whole = viewer.ok("GET", f"{path}/mask")
        drawn = {one["slice"]: overlap(from_runs(one["runs"]), ball_mask(one["slice"])) for one in whole["slices"]}
        assert min(drawn.values()) > 0.7, drawn
        assert set(drawn) == {index for index in range(12) if ball_mask(index).sum() > 40}, drawn
        png = viewer.request("GET", f"{path}/mask?slice=4", Accept="image/png")
        assert png.headers["content-type"] == "image/png"
        shown = np.array(Image.open(io.BytesIO(png.body))) == 255
        assert np.array_equal(shown, from_runs(next(one["runs"] for one in whole["slices"] if one["slice"] == 4)))

        # accepted: a Segmentation in the archive, of exactly that
        job = viewer.ok("POST", f"{path}/acceptance", ACCEPTANCE, 201)
        (series,) = orthanc.wait_for_series(1, Modality="SEG")
        (instance,) = series["Instances"]
        file = orthanc.download(instance, tmp_path / "segmentation.dcm")
        segmentation = pydicom.dcmread(file)
        (segment,) = segmentation.SegmentSequence
        assert segmentation.SOPInstanceUID == job["sop_instance_uids"][0]
        assert segment.SegmentAlgorithmType == "SEMIAUTOMATIC"
        assert (segment.SegmentLabel, segment.TrackingID) == ("Ball", "Ball")
        assert segment.TrackingUID
        assert segmentation.pixel_array.sum() == whole["voxels"]
        assert judges.run_dciodvfy(file) == []
        server.wait_for(lambda: viewer.ok("GET", f"/v1/jobs/{job['id']}")["state"] == "closed", expected="closed")

        # the same once more is the same; then the next structure, and the end
        assert viewer.ok("POST", f"{path}/acceptance", ACCEPTANCE, 200)["id"] == job["id"]
        assert viewer.ok("DELETE", f"{path}/mask")["voxels"] == 0
        assert viewer.refused("POST", f"{path}/acceptance", ACCEPTANCE) == (409, "nothing-to-accept")
        assert viewer.request("DELETE", path).status == 204
        assert viewer.refused("GET", path) == (410, "session-ended")
    server.verify_audit()
    events = [record["event"] for record in server.audit_events()]
    expected = ["SESSION_OPENED", "JOB_CREATED", "RESULTS_VERIFIED", "DELIVERY_BEGAN", "DELIVERY_SUCCEEDED"]
    assert [event for event in events if event in expected] == expected
    assert events.count("SESSION_ENDED") == 1
    assert TOKEN not in server.log_path.read_text() + (server.data / "audit" / "audit.jsonl").read_text()


def test_a_session_on_a_process_of_its_own(tmp_path: Path, ball: list[Path], postgres: Any) -> None:
    """The role web has no listener and sends nothing: what it is drawn on comes by one process, and goes by another."""
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    archive = DemonstrationArchive(tmp_path / "archive")
    archive.start()
    port = free_port()
    with ExitStack() as stack:
        stack.callback(archive.stop)
        url = stack.enter_context(fresh_database(postgres))
        triton = stack.enter_context(running_triton(Path(os.environ["LIMNER__MODEL_REPOSITORY"])))
        text = settings(port, "ARCHIVE").replace("HOST", "127.0.0.1").replace("4242", str(archive.port))
        text += f'[database]\nurl = "{url}"\n[triton]\naddress = "{triton.target}"\n'
        listener, worker, web = (
            LimnerServer(tmp_path, text, quiet_seconds=0.5, arguments=("--role", role, "--name", role))
            for role in ("listener", "worker", "web")
        )
        for one in (listener, worker, web):
            stack.callback(one.kill_if_running)
            one.start()
        viewer = Viewer(port)
        received(listener, tmp_path / "ball")
        path = viewer.open(ball)
        viewer.ok("POST", f"{path}/prompts", prompt(box=BOX))
        job = viewer.ok("POST", f"{path}/acceptance", ACCEPTANCE, 201)
        (closed,) = worker.wait_for_jobs(1, states=("closed",))
        assert closed["id"] == job["id"]
        for one in (web, worker, listener):
            assert one.stop() == 0, one.log()
    (sent,) = (tmp_path / "archive").rglob("*.dcm")
    assert pydicom.dcmread(sent).SOPInstanceUID == job["sop_instance_uids"][0]
    chains = {one: (web.data / "audit" / one / "audit.jsonl").read_text() for one in ("listener", "worker", "web")}
    assert {name for name, chain in chains.items() if "SESSION_OPENED" in chain} == {"web"}
    assert {name for name, chain in chains.items() if "DELIVERY_SUCCEEDED" in chain} == {"worker"}


@pytest.fixture
def running(tmp_path: Path, ball: list[Path]) -> Iterator[tuple[LimnerServer, Viewer]]:
    """A server that has the ball; sessions end when nobody asks for ten seconds."""
    port = free_port()
    server = started(tmp_path, settings(port, "ARCHIVE", idle_seconds=10).replace("HOST", "127.0.0.1"))
    with server.running_server():
        received(server, tmp_path / "ball")
        yield server, Viewer(port)


def session_processes() -> list[psutil.Process]:
    """The processes of sessions: children of a fork server that lead a session of their own."""
    family = psutil.Process().children(recursive=True)
    return [one for one in family if "forkserver" in " ".join(one.cmdline()) and os.getsid(one.pid) == one.pid]


def ends(server: LimnerServer) -> list[str]:
    """Why sessions ended, as the audit log has it."""
    return [one["detail"]["code"] for one in server.audit_events() if one["event"] == "SESSION_ENDED"]


def test_a_killed_session_ends_alone_and_an_idle_one_by_itself(
    running: tuple[LimnerServer, Viewer], ball: list[Path]
) -> None:
    server, viewer = running
    before = {one.pid for one in session_processes()}
    first = viewer.open(ball)
    (child,) = [one for one in session_processes() if one.pid not in before]
    second = viewer.open(ball)
    viewer.ok("POST", f"{second}/prompts", prompt(box=BOX))
    os.kill(child.pid, signal.SIGKILL)
    status, code = viewer.refused("POST", f"{first}/prompts", prompt(box=BOX))
    assert (status, code) in ((500, "session-crashed"), (410, "session-ended"))
    assert viewer.refused("POST", f"{first}/undo") == (410, "session-ended")
    assert viewer.ok("POST", f"{second}/prompts", prompt(box=BOX))["steps"] == 2

    server.wait_for(lambda: len(ends(server)) == 2, 30, "the idle session's end")
    assert viewer.refused("GET", second) == (410, "session-ended")
    assert ends(server) == ["session-crashed", "idle"]
    assert {one.pid for one in session_processes()} <= before


def test_the_lines_of_the_how_to_run(running: tuple[LimnerServer, Viewer], ball: list[Path], tmp_path: Path) -> None:
    server, viewer = running
    page = (REPOSITORY / "docs/how-to/interactive.md").read_text()
    (lines,) = [block for block in page.split("```")[1::2] if "curl" in block]
    header = pydicom.dcmread(ball[0], stop_before_pixels=True)
    series = {"study": str(header.StudyInstanceUID), "series": str(header.SeriesInstanceUID), "model": MODEL}
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", lines.replace(":8480", f":{viewer.port}")],
        cwd=tmp_path, env={**os.environ, **series}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert '"code":"' not in result.stdout.replace('"code":""', ""), result.stdout
    assert Image.open(io.BytesIO((tmp_path / "slice4.png").read_bytes())).size == (64, 48)
    (job,) = server.jobs()
    assert (job["rule"], job["pipeline"], job["state"]) == ("interactive", "interactive", "delivering")


def test_a_server_that_is_killed_takes_its_sessions_along(
    running: tuple[LimnerServer, Viewer], ball: list[Path]
) -> None:
    server, viewer = running
    before = {one.pid for one in session_processes()}
    viewer.open(ball)
    (child,) = [one for one in session_processes() if one.pid not in before]
    server.kill()
    child.wait(20)
    server.start()
    viewer.open(ball)


def test_limner_check_says_whether_the_api_can_start(tmp_path: Path) -> None:
    server = started(tmp_path, settings(free_port(), "ARCHIVE").replace("HOST", "127.0.0.1"))
    assert "✓ web: the API has its token and offers limner_sam 1.0.0" in server.limner("check").stdout
    (tmp_path / "token").write_text("short")
    said = server.limner("check").stdout
    assert "✗ web: the API needs a token of at least 32" in said
    assert "short" not in said
