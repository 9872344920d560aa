"""The API's paths: each takes a checked message, has the session follow it, and answers with a message."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Body, FastAPI, Query, Request, Response

from app.errors import RequestRefused, SessionLost
from app.jobs.accepting import Accepting, Drawn
from app.jobs.records import Job, Records
from app.settings import Settings
from app.web import messages as m
from app.web.acceptable import PNG, wants_png
from app.web.examples import ACCEPTANCES, PROMPTS
from app.web.masks import png, png_text, run_lengths, unpacked
from app.web.problems import MEDIA_TYPE, tell_problems
from app.web.session_process import Answer
from app.web.sessions import OpenSession, Propagation, Sessions

_DESCRIPTION = """A viewer opens a session on a series that Limner has received, prompts a generalist of SAM's family on
its slices, and gets masks back. Accepted, what was drawn becomes a DICOM Segmentation and goes to its destinations as
all results do. Coordinates are pixels of a slice or patient coordinates (LPS, mm). One session draws one structure at a
time; one request of a session is followed at a time."""

_Made = TypeVar("_Made")

SLICE = Annotated[int | None, Query(description="One slice, whatever it holds; without it, all that hold a pixel.")]
FORMAT = Annotated[m.Format, Query()]


class Api:
    """The functions behind the paths. Each runs in a thread of its own."""

    def __init__(self, settings: Settings, sessions: Sessions, accepting: Accepting, records: Records) -> None:
        self._settings = settings
        self._sessions = sessions
        self._accepting = accepting
        self._records = records

    def models(self) -> m.Models:
        """List the generalists that sessions can use."""
        return m.Models(
            models=[
                m.Model(
                    name=one.name,
                    version=one.version,
                    variant=one.variant,
                    prompts=list(one.contract.prompts.kinds),
                    several=one.contract.logits.several,
                    licence=one.contract.licence,
                )
                for one in self._sessions.packages.values()
            ]
        )

    def open(self, request: m.SessionRequest) -> m.SessionState:
        """Open a session: its series is read before the answer comes."""
        window = None if request.window is None else request.window.model_dump()
        session = self._sessions.open(request.study_instance_uid, request.series_instance_uid, request.model, window)
        return self._state(session)

    def describe(self, session_id: str) -> m.SessionState:
        """Say where its series lies, how it is shown and how far it is."""
        return self._state(self._sessions.session(session_id))

    def discard(self, session_id: str) -> None:
        """End a session; what was drawn and not accepted is forgotten."""
        self._sessions.discard(session_id)

    def prompt(self, session_id: str, prompt: Annotated[m.Prompt, Body(openapi_examples=PROMPTS)]) -> m.PromptAnswer:
        """Prompt on one slice; the best mask becomes the slice's. A prompt holds all that is shown on its slice."""
        session = self._sessions.session(session_id)
        answer = self._sessions.ask(session, {"ask": "prompt", "prompt": prompt.model_dump(exclude={"format"})})
        return _checked(session, lambda: _prompt_answer(session, answer, prompt.format))

    def choose(self, session_id: str, choice: m.Choice) -> m.Structure:
        """Take another mask of the last answer for its slice."""
        return self._changed(session_id, {"ask": "choose", "number": choice.mask}, choice.format)

    def undo(self, session_id: str, format: FORMAT = "runs") -> m.Structure:  # noqa: A002 - its name in the query
        """Take back the last step; the slices that it had changed are answered as they are now."""
        return self._changed(session_id, {"ask": "undo"}, format)

    def clear(self, session_id: str, format: FORMAT = "runs") -> m.Structure:  # noqa: A002 - its name in the query
        """Begin anew, with another structure or the same; the step can be undone."""
        return self._changed(session_id, {"ask": "clear"}, format)

    def mask(
        self,
        request: Request,
        session_id: str,
        slice: SLICE = None,  # noqa: A002 - its name in the query
        format: FORMAT = "runs",  # noqa: A002 - its name in the query
    ) -> Any:
        """Return the structure as it is. With `Accept: image/png` and a slice, that slice as a PNG."""
        session = self._sessions.session(session_id)
        answer = self._sessions.ask(session, {"ask": "mask", "slice": slice})
        if slice is not None and wants_png(request.headers.getlist("accept")):
            geometry = session.described["geometry"]
            bits = _checked(session, lambda: unpacked(answer.content, 1, geometry["rows"], geometry["columns"])[0])
            return Response(png(bits), media_type=PNG)
        return _checked(session, lambda: _structure(session, answer, format))

    def propagate(self, session_id: str, reach: m.PropagationRequest) -> m.PropagationState:
        """Go on through the stack from the slice that was asked last. Slices that were prompted keep their masks."""
        session = self._sessions.session(session_id)
        return _propagation(self._sessions.propagate(session, reach.first_slice, reach.last_slice))

    def propagation(self, session_id: str) -> m.PropagationState:
        """Say how far it is, or how the last one ended."""
        propagation = self._sessions.session(session_id).propagation
        if propagation is None:
            raise RequestRefused("nothing was propagated yet", code="no-propagation", http_status=404)
        return _propagation(propagation)

    def cancel(self, session_id: str) -> m.PropagationState:
        """Call it off: when its state is `cancelled`, everything is as it was before."""
        return _propagation(self._sessions.cancel(self._sessions.session(session_id)))

    def accept(
        self,
        session_id: str,
        acceptance: Annotated[m.Acceptance, Body(openapi_examples=ACCEPTANCES)],
        response: Response,
    ) -> m.JobState:
        """Make a Segmentation of what was drawn and send it. The session stays open, with what was drawn.

        The same once more is the same job: 200 and not 201.
        """
        self._check_destinations(acceptance.destinations)
        session = self._sessions.session(session_id)
        said = acceptance.model_dump(exclude={"destinations"})
        with self._sessions.held(session):
            mask_digest = str(self._sessions.ask_held(session, {"ask": "digest"}).facts["digest"])
            drawn = Drawn(
                series=session.series,
                inputs=session.inputs,
                files=self._sessions.files_of(session),
                model=session.model,
                digest=hashlib.sha256(json.dumps([mask_digest, said], sort_keys=True).encode()).hexdigest(),
                destinations=acceptance.destinations,
                session=session.id,
            )

            def write(identity: str, folder: Any, kinds: Sequence[str]) -> None:
                description = acceptance.series_description or acceptance.label
                request = {"ask": "write", "identity": identity, "folder": str(folder), "segment": said}
                self._sessions.ask_held(session, {**request, "series_description": description, "kinds": kinds})

            job, is_new = self._accepting.accept(drawn, write)
        if set(job.destinations) != set(acceptance.destinations):
            raise RequestRefused(
                f"exactly this was accepted before, for {', '.join(job.destinations)}; it is not sent elsewhere",
                code="already-accepted",
                http_status=409,
            )
        response.status_code = 201 if is_new else 200
        return _job(job)

    def job(self, job_id: uuid.UUID) -> m.JobState:
        """Say how far the job of what was accepted is."""
        job = self._records.job(job_id)
        if job is None:
            raise RequestRefused("there is no such job", code="job-unknown", http_status=404)
        return _job(job)

    def _check_destinations(self, names: list[str]) -> None:
        known = [one.name for one in self._settings.destination]
        if len(set(names)) < len(names) or not set(names) <= set(known):
            raise RequestRefused(
                f"expected destinations of the settings, each once: {', '.join(known) or 'there are none'}",
                code="destination-unknown",
            )

    def _changed(self, session_id: str, request: dict[str, Any], format_: m.Format) -> m.Structure:
        session = self._sessions.session(session_id)
        answer = self._sessions.ask(session, request)
        return _checked(session, lambda: _structure(session, answer, format_))

    def _state(self, session: OpenSession) -> m.SessionState:
        return _checked(
            session,
            lambda: m.SessionState(
                id=session.id,
                model=session.package.name,
                model_version=session.package.version,
                geometry=m.Geometry(**session.described["geometry"]),
                window=m.WindowUsed(**session.described["window"]),
                steps=session.steps,
                busy=session.busy.locked(),
                propagation=None if session.propagation is None else _propagation(session.propagation),
                idle_seconds=self._settings.web.idle_seconds,
            ),
        )


def build(api: Api) -> FastAPI:
    """Return the application with all its paths, without its border (`app.web.access`)."""
    app = FastAPI(
        title="Limner",
        version=version("limner"),
        description=_DESCRIPTION,
        docs_url=None,  # they load programs from elsewhere
        redoc_url=None,
    )
    router = APIRouter(prefix="/v1", responses={"default": _PROBLEM})
    for method, path, function, more in _routes(api):
        lines = (function.__doc__ or "").strip().splitlines()
        router.add_api_route(
            path, function, methods=[method], summary=lines[0].rstrip("."), operation_id=function.__name__, **more
        )
    app.include_router(router)
    tell_problems(app)
    return app


_PROBLEM: dict[str, Any] = {
    "description": "The request can't be followed.",
    "content": {MEDIA_TYPE: {"schema": m.Problem.model_json_schema()}},
}


def _routes(api: Api) -> list[tuple[str, str, Callable[..., Any], dict[str, Any]]]:
    one = "/sessions/{session_id}"
    masks: dict[str, Any] = {"response_model": m.Structure, "responses": {200: {"content": {PNG: {}}}}}
    return [
        ("GET", "/models", api.models, {}),
        ("POST", "/sessions", api.open, {"status_code": 201}),
        ("GET", one, api.describe, {}),
        ("DELETE", one, api.discard, {"status_code": 204}),
        ("POST", f"{one}/prompts", api.prompt, {}),
        ("POST", f"{one}/choice", api.choose, {}),
        ("POST", f"{one}/undo", api.undo, {}),
        ("GET", f"{one}/mask", api.mask, masks),
        ("DELETE", f"{one}/mask", api.clear, {}),
        ("POST", f"{one}/propagation", api.propagate, {"status_code": 202}),
        ("GET", f"{one}/propagation", api.propagation, {}),
        ("DELETE", f"{one}/propagation", api.cancel, {"status_code": 202}),
        ("POST", f"{one}/acceptance", api.accept, {"status_code": 201}),
        ("GET", "/jobs/{job_id}", api.job, {}),
    ]


def _checked(session: OpenSession, made: Callable[[], _Made]) -> _Made:
    """What is made of a process's answer; one that is none is the session's failure, and tells nothing of itself."""
    try:
        return made()
    except (ValueError, KeyError, TypeError, IndexError) as error:
        session.process.end()  # found ended by the next request or the sweep
        raise SessionLost(
            "the session's process answered with what is no answer; open a new one", code="session-failed"
        ) from error


def _prompt_answer(session: OpenSession, answer: Answer, format_: m.Format) -> m.PromptAnswer:
    geometry, facts = session.described["geometry"], answer.facts
    masks = unpacked(answer.content, len(facts["iou"]), geometry["rows"], geometry["columns"])
    return m.PromptAnswer(
        slice=facts["slice"],
        sop_instance_uid=geometry["sop_instance_uids"][facts["slice"]],
        masks=[
            m.AnsweredMask(iou=iou, area=area, **_written(mask, format_))
            for mask, iou, area in zip(masks, facts["iou"], facts["areas"], strict=True)
        ],
        chosen=facts["chosen"],
        steps=facts["steps"],
        seconds=facts["seconds"],
    )


def _structure(session: OpenSession, answer: Answer, format_: m.Format) -> m.Structure:
    geometry, facts = session.described["geometry"], answer.facts
    masks = unpacked(answer.content, len(facts["slices"]), geometry["rows"], geometry["columns"])
    return m.Structure(
        slices=[
            m.SliceMask(
                slice=index,
                sop_instance_uid=geometry["sop_instance_uids"][index],
                area=int(mask.sum()),
                **_written(mask, format_),
            )
            for index, mask in zip(facts["slices"], masks, strict=True)
        ],
        voxels=facts["voxels"],
        volume_ml=facts["volume_ml"],
        steps=facts["steps"],
    )


def _written(mask: Any, format_: m.Format) -> dict[str, Any]:
    return {"runs": run_lengths(mask)} if format_ == "runs" else {"png": png_text(mask)}


def _propagation(propagation: Propagation) -> m.PropagationState:
    return m.PropagationState(
        state=propagation.state,
        done=propagation.done,
        most=propagation.most,
        slices=list(propagation.slices),
        code=propagation.code,
        reason=propagation.reason,
    )


def _job(job: Job) -> m.JobState:
    return m.JobState(
        id=str(job.id),
        state=job.state,
        sop_instance_uids=[str(one.sop_instance_uid) for one in job.results],
        series_instance_uids=sorted({str(one.series_instance_uid) for one in job.results}),
        deliveries=[
            m.DeliveryState(destination=one.destination, state=one.state, attempts=one.attempts, code=one.code)
            for one in job.deliveries
        ],
    )
