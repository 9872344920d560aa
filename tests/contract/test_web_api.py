"""The API over loopback with a real Triton and PostgreSQL: who may ask, what is refused, and that others go on."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import psutil
import pydicom
import pytest
from pydantic import SecretStr

from app.audit.events import AuditEvent
from app.identifiers import UID
from app.jobs.records import Instance, Records
from app.jobs.result_files import ResultFiles
from app.listener.spool import Spool
from app.settings import DestinationSettings, Settings, TritonSettings
from app.settings_web import WebSettings
from app.web import access
from app.web.examples import ACCEPTANCES, PROMPTS
from app.web.messages import Problem
from app.web.service import WebService, load_generalists
from tests.database_fixture import fresh_database
from tests.listening import RecordedAudit
from tests.triton_fixture import running_triton
from tests.web_fixture import BALL, MODEL, TOKEN, Client, from_runs, generalist_repository, write_ball

pytestmark = pytest.mark.timeout(300)
BOX = {"left": 20, "top": 12, "right": 45, "bottom": 37}
PROMPT = {"coordinates": "pixel", "slice": 5, "box": BOX}
SESSIONS = 3


class Part:
    """What the API stands on, and how a series comes to it."""

    def __init__(self, folder: Path, url: str, triton: str, models: Path) -> None:
        self.settings = Settings(
            data_folder=folder,
            model_repository=models,
            triton=TritonSettings(address=triton),
            destination=(DestinationSettings(name="archive", ae_title="ARCHIVE", host="127.0.0.1", port=1),),
            web=WebSettings(
                enabled=True,
                port=0,
                token=SecretStr(TOKEN),
                models=(MODEL,),
                maximum_sessions=SESSIONS,
                request_seconds=60,
            ),
        )
        self.records = Records(url)
        self.spool = Spool(self.settings.spool_folder, 0)
        self.audit = RecordedAudit()
        self.folder = folder
        self.service: WebService | None = None

    def api(self) -> WebService:
        """The API on all that."""
        audit: Any = self.audit
        (target,) = self.settings.triton.addresses
        return WebService(
            settings=self.settings,
            records=self.records,
            audit=audit,
            spool_path_of=self.spool.path_of,
            packages=load_generalists(self.settings),
            triton_target=lambda: target,
            program_version="1",
            result_files=ResultFiles(self.settings.results_folder),
        )

    def process_of(self, path: str) -> int:
        """The number of a session's process."""
        assert self.service is not None
        return self.service.sessions.session(path.rsplit("/", 1)[-1]).process.pid

    def received(self, files: list[Path]) -> dict[str, str]:
        """Keep a series as the listener does; what a session is opened with."""
        for path in files:
            kept, header = self.spool.keep(path.read_bytes()), pydicom.dcmread(path, stop_before_pixels=True)
            self.records.record_instance(
                Instance(
                    sop_instance_uid=UID(str(header.SOPInstanceUID)),
                    sop_class_uid=UID(str(header.SOPClassUID)),
                    transfer_syntax_uid=UID(str(header.file_meta.TransferSyntaxUID)),
                    series_instance_uid=UID(str(header.SeriesInstanceUID)),
                    study_instance_uid=UID(str(header.StudyInstanceUID)),
                    digest=kept.digest,
                    size_bytes=kept.size_bytes,
                    calling_ae_title="MODALITY",
                    source_host="127.0.0.1",
                )
            )
        study, series = str(header.StudyInstanceUID), str(header.SeriesInstanceUID)
        return {"study_instance_uid": study, "series_instance_uid": series, "model": MODEL}

    def decide(self) -> None:
        """No rule applies to what came."""
        for series in self.records.undecided_series():
            self.records.conclude_series(series, "no-rule")


@pytest.fixture(scope="module")
def api(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, Part, dict[str, str]]]:
    folder = tmp_path_factory.mktemp("limner")
    with ExitStack() as stack:
        models = generalist_repository(tmp_path_factory.mktemp("models"))
        triton = stack.enter_context(running_triton(models))
        part = Part(folder, stack.enter_context(fresh_database(postgres)), triton.target, models)
        stack.enter_context(part.records)
        part.spool.prepare()
        ball = part.received(write_ball(folder / "ball"))
        part.decide()
        part.service = stack.enter_context(part.api())
        yield Client(part.service.port), part, ball


@pytest.fixture
def client(api: tuple[Client, Part, dict[str, str]]) -> Client:
    return api[0]


@pytest.fixture
def session(api: tuple[Client, Part, dict[str, str]]) -> Iterator[str]:
    client, _, ball = api
    path = f"/v1/sessions/{client.ok('POST', '/v1/sessions', ball, 201)['id']}"
    yield path
    client.request("DELETE", path)


# --- who may ask ---


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": f"Bearer {TOKEN}0"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": TOKEN},
        {"Authorization": "Bearer \xe9"},
        {"X-Token": TOKEN},
    ],
)
def test_without_the_token_nothing_is_answered(client: Client, given: dict[str, Any]) -> None:
    stranger = Client(client.port, token=None)
    for method, path in (("GET", "/v1/models"), ("POST", "/v1/sessions"), ("GET", "/nothing"), ("DELETE", "/")):
        assert stranger.refused(method, path, **given) == (401, "token-wrong")
    assert stranger.request("GET", "/v1/models", **given).headers["www-authenticate"] == "Bearer"


def test_refusals_are_told_to_the_audit_log_and_do_not_fill_it(
    api: tuple[Client, Part, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, part, _ = api
    monkeypatch.setattr(access, "_TELL_SECONDS", 0.0)
    stranger = Client(client.port, token="wrong" * 10)
    stranger.refused("GET", "/v1/models")
    before = len(part.audit.of(AuditEvent.API_ACCESS_REFUSED))
    monkeypatch.setattr(access, "_TELL_SECONDS", 60.0)
    for _ in range(20):
        stranger.refused("GET", "/v1/models")
    told = part.audit.of(AuditEvent.API_ACCESS_REFUSED)
    assert len(told) == before >= 1
    assert told[-1] == {"source_host": "127.0.0.1", "code": "token-wrong"}


def test_the_description_is_for_all_and_its_examples_are_true(client: Client, session: str) -> None:
    content = Client(client.port, token=None).ok("GET", "/openapi.json")
    assert set(content["components"]["schemas"]) >= {"PixelPrompt", "PatientPrompt", "Acceptance", "Structure"}
    for methods in content["paths"].values():
        for operation in methods.values():
            assert operation["summary"]
            (media,) = operation["responses"]["default"]["content"]
            assert media == "application/problem+json"
    frame_of_reference = client.ok("GET", session)["geometry"]["frame_of_reference_uid"]
    for example in PROMPTS.values():
        value = dict(example["value"])
        if "frame_of_reference_uid" in value:
            value["frame_of_reference_uid"] = frame_of_reference
        assert client.ok("POST", f"{session}/prompts", value)["masks"]
    client.ok("POST", f"{session}/prompts", PROMPT)
    client.ok("POST", f"{session}/acceptance", ACCEPTANCES["liver"]["value"], 201)


# --- what is refused ---


@pytest.mark.parametrize(
    ("status", "code", "prompt"),
    [
        (422, "prompt-outside", {**PROMPT, "box": {**BOX, "left": 70, "right": 90}}),
        (422, "prompt-empty", {"coordinates": "pixel", "slice": 5}),
        (422, "prompt-empty", {"coordinates": "pixel", "slice": 5, "outline": []}),
        (422, "prompt-too-long", {"coordinates": "pixel", "slice": 5, "points": [{"x": 1, "y": 1}] * 1000}),
        (422, "prompt-not-finite", {"coordinates": "pixel", "slice": 5, "points": [{"x": float("nan"), "y": 1}]}),
        (422, "prompt-not-finite", {**PROMPT, "box": {**BOX, "right": float("inf")}}),
        (422, "slice-unknown", {**PROMPT, "slice": 12}),
        (422, "slice-unknown", {**PROMPT, "slice": 10**30}),
        (422, "frame-of-reference-differs",
         {"coordinates": "patient", "frame_of_reference_uid": "1.2", "points": [{"position": [0, 0, 40]}]}),
        (409, "nothing-to-refine", {**PROMPT, "refine": True}),
        (422, "request-malformed", {**PROMPT, "sop_instance_uid": "1.2"}),
        (422, "request-malformed", {**PROMPT, "coordinates": "voxel"}),
        (422, "request-malformed", {**PROMPT, "box": {"left": "Doe^Jane"}}),
        (422, "request-malformed", {**PROMPT, "Doe^Jane": 1}),
        (422, "request-malformed", []),
        (422, "request-malformed", "Doe^Jane"),
    ],
)  # fmt: skip
def test_bad_prompts_are_refused_and_the_session_goes_on(
    client: Client, session: str, status: int, code: str, prompt: Any
) -> None:
    reply = client.request("POST", f"{session}/prompts", prompt)
    problem = Problem(**reply.json)
    assert (reply.status, problem.code) == (status, code), problem
    assert b"Doe" not in reply.body
    assert client.ok("POST", f"{session}/prompts", PROMPT)["masks"][0]["area"] > 0


@pytest.mark.parametrize(
    ("status", "code", "raw"),
    [
        (422, "request-malformed", b""),
        (422, "request-malformed", b"{"),
        (422, "request-malformed", b"\xff\xfe"),
        (422, "request-malformed", b"\0" * 1000),
        (400, "request-malformed", b"[" * 200_000),
        (413, "request-too-large", b" " * (access.MOST_BODY_BYTES + 1)),
        (413, "request-too-large", b"{}" + b" " * (8 << 20)),
    ],
)
def test_bodies_that_are_none(client: Client, session: str, status: int, code: str, raw: bytes) -> None:
    try:
        found = client.refused("POST", f"{session}/prompts", raw=raw, **{"Content-Type": "application/json"})
    except (BrokenPipeError, ConnectionResetError):
        assert status == 413, "only what is too large may be cut off"
    else:
        assert found[1] == code
        assert found[0] in (status, 422)
    assert client.ok("POST", f"{session}/prompts", PROMPT)["masks"]


def test_a_body_without_a_length_is_counted_as_it_comes(client: Client, session: str) -> None:
    head = f"POST {session}/prompts HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {TOKEN}\r\n"
    with socket.create_connection(("127.0.0.1", client.port), 20) as peer:
        peer.sendall(f"{head}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        chunk = b"%x\r\n" % (1 << 16) + b" " * (1 << 16) + b"\r\n"
        for _ in range(5):
            peer.sendall(chunk)
        assert peer.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_does_not_come_is_not_waited_for(
    client: Client, session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "BODY_SECONDS", 0.5)
    head = f"POST {session}/prompts HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 10\r\n\r\n"
    peers = [socket.create_connection(("127.0.0.1", client.port), 20) for _ in range(60)]
    for peer in peers:
        peer.sendall(head.encode() + b"{")
    assert client.ok("GET", session)["busy"] is False  # others go on meanwhile
    for peer in peers:
        assert peer.recv(100).startswith(b"HTTP/1.1 408 ")
        peer.close()


@pytest.mark.parametrize(
    ("window", "said"),
    [(None, "by modality"), ({"name": "lung"}, "lung"), ({"centre": 60, "width": 350.5}, "60/350.5")],
)
def test_a_result_says_in_what_window_and_with_what_prompts_it_was_drawn(
    api: tuple[Client, Part, dict[str, str]], window: dict[str, Any] | None, said: str
) -> None:
    client, part, ball = api
    path = f"/v1/sessions/{client.ok('POST', '/v1/sessions', {**ball, 'window': window}, 201)['id']}"
    client.ok("POST", f"{path}/prompts", PROMPT)
    client.ok("POST", f"{path}/prompts", {**PROMPT, "slice": 6, "points": [{"x": 32, "y": 24}]})
    # a label of its own: accepting the same mask again would be the same job
    acceptance = {**ACCEPTANCES["liver"]["value"], "label": f"Shown {said}".replace("/", " by ")}
    job = client.ok("POST", f"{path}/acceptance", acceptance, 201)
    client.ok("DELETE", path, status=204)
    files = list((part.settings.results_folder / job["id"]).rglob("*.dcm"))
    (segment,) = pydicom.dcmread(files[0]).SegmentSequence
    parameters = segment.SegmentationAlgorithmIdentificationSequence[0].AlgorithmParameters
    assert {f"window={said}", "prompts=box + points"} <= set(parameters.split(","))


@pytest.mark.parametrize(
    ("method", "path", "content", "expected"),
    [
        ("GET", "/v1/sessions/nothing", None, (404, "session-unknown")),
        ("POST", "/v1/sessions/nothing/prompts", PROMPT, (404, "session-unknown")),
        ("DELETE", "/v1/sessions/%2e%2e", None, (404, "session-unknown")),
        ("GET", "/v1/jobs/0b9e9f0e-7f3c-4d5c-9a5e-3f8a8a0f7f10", None, (404, "job-unknown")),
        ("GET", "/v1/jobs/1", None, (422, "request-malformed")),
        ("GET", "/v1/nothing", None, (404, "not-found")),
        ("PUT", "/v1/models", None, (405, "method-not-allowed")),
        ("GET", "/docs", None, (404, "not-found")),
    ],
)
def test_what_is_not_there(client: Client, method: str, path: str, content: Any, expected: tuple[int, str]) -> None:
    assert client.refused(method, path, content) == expected


def test_sessions_that_can_not_be_opened(api: tuple[Client, Part, dict[str, str]]) -> None:
    client, part, ball = api

    def refused(**changes: Any) -> tuple[int, str]:
        return client.refused("POST", "/v1/sessions", {**ball, **changes})

    assert refused(model="nnunet") == (404, "model-unknown")
    assert refused(study_instance_uid="1.2.3") == (404, "series-unknown")
    assert refused(series_instance_uid="1.2.3") == (404, "series-unknown")
    assert refused(series_instance_uid="Doe^Jane") == (422, "request-malformed")
    assert refused(window={"name": "teeth"}) == (422, "window-unknown")
    assert refused(window={"centre": 1, "width": 0}) == (422, "window-impossible")
    assert refused(window={"centre": 1}) == (422, "request-malformed")
    gap = write_ball(part.folder / "gap", seed=1)
    gap.sort(key=lambda path: int(pydicom.dcmread(path).InstanceNumber))
    with_gap = part.received(gap[:4] + gap[5:])
    assert client.refused("POST", "/v1/sessions", with_gap) == (409, "series-receiving")
    part.decide()
    assert client.refused("POST", "/v1/sessions", with_gap) == (422, "slice-missing")
    assert part.audit.of(AuditEvent.SESSION_ENDED)[-1]["code"] == "slice-missing"
    lost = part.received(write_ball(part.folder / "lost", seed=2))
    part.decide()
    one = part.records.series_of_study(lost["study_instance_uid"])[0]
    part.spool.remove(one.header_digest)
    assert client.refused("POST", "/v1/sessions", lost) == (410, "input-missing")


def test_a_series_of_one_slice_is_drawn_on_as_others_are(
    api: tuple[Client, Part, dict[str, str]], session: str
) -> None:
    client, part, _ = api
    (whole,) = client.ok("POST", f"{session}/prompts", PROMPT)["masks"]
    files = write_ball(part.folder / "alone", seed=3)
    alone = part.received([path for path in files if pydicom.dcmread(path).InstanceNumber == 7])  # the stack's slice 5
    part.decide()
    opened = client.ok("POST", "/v1/sessions", alone, 201)
    path, geometry = f"/v1/sessions/{opened['id']}", opened["geometry"]
    assert (geometry["slices"], abs(geometry["affine"][2][0])) == (1, pytest.approx(BALL.slice_spacing))
    (mask,) = client.ok("POST", f"{path}/prompts", {**PROMPT, "slice": 0})["masks"]
    assert mask == whole
    drawn = from_runs(mask["runs"])
    client.ok("POST", f"{path}/propagation", {}, 202)
    deadline = time.monotonic() + 60
    while (state := client.ok("GET", f"{path}/propagation"))["state"] == "running":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert (state["state"], state["done"], state["most"]) == ("done", 1, 1)
    job = client.ok("POST", f"{path}/acceptance", ACCEPTANCES["liver"]["value"], 201)
    client.ok("DELETE", path, status=204)
    (written,) = (part.settings.results_folder / job["id"]).rglob("*.dcm")
    found = highdicom.seg.segread(written).get_volume(combine_segments=True)
    assert np.array_equal(found.array[0] != 0, drawn)
    np.testing.assert_allclose(found.affine, geometry["affine"], atol=1e-6)


def test_all_sessions_in_use(api: tuple[Client, Part, dict[str, str]]) -> None:
    client, _, ball = api
    paths = [f"/v1/sessions/{client.ok('POST', '/v1/sessions', ball, 201)['id']}" for _ in range(SESSIONS)]
    assert client.refused("POST", "/v1/sessions", ball) == (503, "too-many-sessions")
    for path in paths:
        assert client.request("DELETE", path).status == 204
        assert client.refused("DELETE", path) == (410, "session-ended")
    path = f"/v1/sessions/{client.ok('POST', '/v1/sessions', ball, 201)['id']}"
    assert client.request("DELETE", path).status == 204


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("destination-unknown", {"destinations": ["elsewhere"]}),
        ("destination-unknown", {"destinations": ["archive", "archive"]}),
        ("request-malformed", {"destinations": []}),
        ("request-malformed", {"label": ""}),
        ("request-malformed", {"label": "a\\b"}),
        ("request-malformed", {"label": "x" * 65}),
        ("request-malformed", {"type": {"value": "1", "scheme": "SCT", "meaning": ""}}),
    ],
)
def test_acceptances_that_make_no_segmentation(
    client: Client, session: str, code: str, changes: dict[str, Any]
) -> None:
    client.ok("POST", f"{session}/prompts", PROMPT)
    acceptance = {**ACCEPTANCES["liver"]["value"], **changes}
    assert client.refused("POST", f"{session}/acceptance", acceptance) == (422, code)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("image/png", "image/png"),
        ("image/png, */*;q=0.8", "image/png"),
        ("application/json, image/png;q=0.5", "application/json"),
        ("*/*", "application/json"),
    ],
)
def test_a_mask_is_a_png_where_the_client_asks_for_one(client: Client, session: str, accept: str, kind: str) -> None:
    client.ok("POST", f"{session}/prompts", PROMPT)
    reply = client.request("GET", f"{session}/mask?slice=5", Accept=accept)
    assert (reply.status, reply.headers["content-type"]) == (200, kind)
    assert reply.body.startswith(b"\x89PNG") == (kind == "image/png")


# --- several at once ---


def test_3d_can_be_watched_and_called_off_and_others_go_on(
    client: Client, session: str, api: tuple[Client, Part, dict[str, str]]
) -> None:
    client.ok("POST", f"{session}/prompts", PROMPT)
    before = client.ok("GET", f"{session}/mask")
    other = f"/v1/sessions/{client.ok('POST', '/v1/sessions', api[2], 201)['id']}"
    child = api[1].process_of(session)
    os.kill(child, signal.SIGSTOP)  # so that it is surely under way
    assert client.ok("POST", f"{session}/propagation", {"first_slice": 0, "last_slice": 11}, 202)["state"] == "running"
    busy = client.request("POST", f"{session}/prompts", PROMPT)
    cancelled = client.request("DELETE", f"{session}/propagation")
    assert client.ok("POST", f"{other}/prompts", PROMPT)["masks"]
    client.request("DELETE", other)
    os.kill(child, signal.SIGCONT)
    deadline = time.monotonic() + 60
    while (state := client.ok("GET", f"{session}/propagation"))["state"] == "running":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert (busy.status, cancelled.status) == (409, 202)
    assert busy.json["code"] == "session-busy"
    assert state["state"] == "cancelled"
    assert client.ok("GET", f"{session}/mask") == before
    assert client.refused("DELETE", f"{session}/propagation") == (409, "nothing-to-cancel")


def test_a_stop_waits_for_no_session(api: tuple[Client, Part, dict[str, str]]) -> None:
    _, part, ball = api
    with ThreadPoolExecutor(1) as threads:
        with part.api() as service:
            client = Client(service.port)
            path = f"/v1/sessions/{client.ok('POST', '/v1/sessions', ball, 201)['id']}"
            child = psutil.Process(service.sessions.session(path.rsplit("/", 1)[-1]).process.pid)
            child.suspend()
            waiting = threads.submit(client.request, "POST", f"{path}/prompts", PROMPT)
            while not client.ok("GET", path)["busy"]:
                time.sleep(0.02)
            began = time.monotonic()
        assert time.monotonic() - began < 20
        assert not child.is_running()
        assert waiting.result(10).json["code"] == "session-crashed"
    with pytest.raises(ConnectionRefusedError):
        client.request("GET", "/v1/models")


def test_many_at_once_get_an_answer_or_a_reason(client: Client, session: str) -> None:
    replies: list[int] = []

    def ask() -> None:
        replies.append(client.request("POST", f"{session}/prompts", PROMPT).status)

    threads = [threading.Thread(target=ask) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(replies) <= {200, 409}
    assert 200 in replies
    assert client.ok("GET", session)["steps"] == replies.count(200)


def test_nothing_that_is_secret_or_a_persons_is_in_the_audit(api: tuple[Client, Part, dict[str, str]]) -> None:
    _, part, _ = api
    text = json.dumps([detail for _, _, detail in part.audit.records])
    assert TOKEN not in text
    assert "Phantom" not in text
    assert part.audit.of(AuditEvent.SESSION_OPENED)
