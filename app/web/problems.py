"""Errors as HTTP tells them: application/problem+json (RFC 9457) with our code, and nothing of patient or request."""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import psycopg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from app.errors import AuditError, InputMissing, LimnerError, RequestRefused, StorageError
from app.web.messages import Problem
from operators.errors import InferenceFailed, ModelPackageError, OperatorError

MEDIA_TYPE = "application/problem+json"
_MOST_ERRORS = 20
_KEY = re.compile(r"[a-z_]{1,40}")
_CODES = {404: "not-found", 405: "method-not-allowed"}
_ADVICE = {
    404: "nothing is served at this path; GET /openapi.json describes what is",
    405: "this path is not asked by this method; GET /openapi.json describes what is",
}


def problem(status: int, code: str, detail: str, errors: Sequence[str] = ()) -> JSONResponse:
    """Return the answer that tells of a problem."""
    content = Problem(title=HTTPStatus(status).phrase, status=status, code=code, detail=detail, errors=list(errors))
    headers = {"WWW-Authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else None
    return JSONResponse(content.model_dump(), status, headers, media_type=MEDIA_TYPE)


def status_of(error: LimnerError | OperatorError) -> int:
    """Return the HTTP status of one of our own errors."""
    if isinstance(error, RequestRefused):
        return error.http_status
    if isinstance(error, InputMissing):
        return HTTPStatus.GONE
    if isinstance(error, InferenceFailed):
        return HTTPStatus.GATEWAY_TIMEOUT if error.code == "deadline" else HTTPStatus.SERVICE_UNAVAILABLE
    if isinstance(error, (AuditError, StorageError)):
        return HTTPStatus.SERVICE_UNAVAILABLE
    if isinstance(error, OperatorError) and not isinstance(error, ModelPackageError):
        # what the session has not got is a matter of its state, not of how the request is written
        return HTTPStatus.CONFLICT if error.code.startswith("nothing-to-") else HTTPStatus.UNPROCESSABLE_ENTITY
    return HTTPStatus.INTERNAL_SERVER_ERROR


def tell_problems(app: FastAPI) -> None:
    """Have every error of `app` answered as a problem. What is unexpected is `app.web.access`' to tell."""

    def own(_request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, (LimnerError, OperatorError)):
            raise error
        return problem(status_of(error), error.code, str(error))

    def malformed(_request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, RequestValidationError):
            raise error
        faults = [_fault(one) for one in error.errors()[:_MOST_ERRORS]]
        detail = "the request is not as GET /openapi.json describes it; `errors` says where"
        return problem(HTTPStatus.UNPROCESSABLE_ENTITY, "request-malformed", detail, faults)

    def http(_request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, HTTPException):
            raise error
        status = error.status_code
        detail = _ADVICE.get(status, "the request can't be read; expected JSON in UTF-8, as application/json")
        return problem(status, _CODES.get(status, "request-malformed"), detail)

    def no_records(_request: Request, _error: Exception) -> JSONResponse:
        detail = "the records can't be reached; try again later, and see the diagnostic log"
        return problem(HTTPStatus.SERVICE_UNAVAILABLE, "records-unavailable", detail)

    app.add_exception_handler(LimnerError, own)
    app.add_exception_handler(OperatorError, own)
    app.add_exception_handler(RequestValidationError, malformed)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(psycopg.Error, no_records)


def _fault(error: Any) -> str:
    """Where it is and what was expected there; neither the value nor a name that is none of ours."""
    parts = [str(part) for part in error["loc"]]
    place = ".".join(part if _KEY.fullmatch(part) or part.isdigit() else "…" for part in parts)
    kind = error["type"]
    if kind == "json_invalid":
        return "body: expected JSON"
    if kind == "union_tag_invalid":
        return f"{place}: expected one of {error['ctx']['expected_tags']}"
    if kind == "extra_forbidden":
        return f"{place}: there is no such key"
    return f"{place}: {error['msg']}"
