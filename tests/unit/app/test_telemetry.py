"""The diagnostic log: what it says, and that nothing of a patient gets into it."""

import ast
import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from app.audit.events import DETAIL_KEYS
from app.errors import CannotUnderstand
from app.settings import LoggingSettings
from app.telemetry import PERMITTED_KEYS, WITHHELD, configure_logging, describe_exception, get_logger

REPOSITORY = Path(__file__).resolve().parents[3]
CANARY = "Canary^Patient=金糸雀"


@pytest.fixture(autouse=True)
def _untouched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give the process's logging back as it was."""
    import threading
    import warnings

    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    for holder, name in ((warnings, "showwarning"), (sys, "excepthook"), (sys, "unraisablehook")):
        monkeypatch.setattr(holder, name, getattr(holder, name))
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    yield
    logging.setLogRecordFactory(logging.LogRecord)
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in ("app", "operators", "pydicom", "pynetdicom", "procrastinate", "monai", "holoscan", "asyncio"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    structlog.reset_defaults()


def written(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def start(**settings: Any) -> io.StringIO:
    stream = io.StringIO()
    configure_logging(LoggingSettings(**settings), stream)
    return stream


def test_a_line_says_what_was_given() -> None:
    stream = start()
    get_logger("app.jobs").info("job closed", job_id="7", attempt=2, destination="archive", delivered=True)
    (line,) = written(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "job closed", "logger": "app.jobs", "level": "info",
        "job_id": "7", "attempt": 2, "destination": "archive", "delivered": True,
    }  # fmt: skip


def test_text_for_people() -> None:
    stream = start(format="console")
    get_logger("app.jobs").info("job closed", job_id="7", patient_name=CANARY)
    assert "job closed" in stream.getvalue()
    assert "job_id" in stream.getvalue()
    assert CANARY not in stream.getvalue()


@pytest.mark.parametrize("identifiers", [False, True])
def test_identifiers_only_where_the_settings_allow_them(identifiers: bool) -> None:
    stream = start(identifiers=identifiers)
    get_logger("app").info("kept", sop_instance_uid="1.2.3", sop_class_uids=["1.2"], frame_of_reference_uid="1.4")
    (line,) = written(stream)
    expected = {"sop_instance_uid": "1.2.3", "sop_class_uids": ["1.2"], "frame_of_reference_uid": "1.4"}
    assert {key: value for key, value in line.items() if "uid" in key} == (expected if identifiers else {})


def test_levels() -> None:
    stream = start(level="warning")
    get_logger("app.x").info("no")
    get_logger("app.x").warning("yes")
    logging.getLogger("pynetdicom.assoc").info("no")
    logging.getLogger("procrastinate.worker").info("no")
    assert [line["event"] for line in written(stream)] == ["yes"]
    stream = start(level="debug")
    get_logger("app.x").debug("yes")
    logging.getLogger("pydicom").debug("no")
    assert [line["event"] for line in written(stream)] == ["yes"]


def test_keys_that_are_not_permitted_are_left_out_and_named() -> None:
    stream = start()
    get_logger("app").info("kept", patient_name=CANARY, instances=3, PatientID=CANARY)
    (line,) = written(stream)
    assert line["left_out"] == ["PatientID", "patient_name"]
    assert CANARY not in stream.getvalue()


def test_things_are_named_by_kind_and_long_text_is_shortened() -> None:
    stream = start()
    get_logger("app").info("kept", reason=Exception(CANARY), source={"a": CANARY}, state="x" * 5000, tasks=["a", b"b"])
    (line,) = written(stream)
    assert (line["reason"], line["source"], line["tasks"]) == ("(Exception)", "(dict)", ["a", "(bytes)"])
    assert len(line["state"]) == 1001


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("ValueError", "ValueError"),
        (CANARY, "withheld: not a name"),
        (ValueError(CANARY), "ValueError"),
    ],
)
def test_error_takes_names_only(given: object, shown: str) -> None:
    stream = start()
    get_logger("app").warning("failed", error=given)
    assert written(stream)[0]["error"] == shown


def test_exceptions_are_types_and_places_and_our_own_messages() -> None:
    stream = start()
    try:
        try:
            int(CANARY)
        except ValueError as error:
            raise CannotUnderstand("the data set can't be read", code="truncated") from error
    except CannotUnderstand:
        get_logger("app").exception("instance refused")
    (line,) = written(stream)
    assert line["exception"][0] == "CannotUnderstand: the data set can't be read"
    assert "ValueError" in line["exception"]
    assert "test_telemetry.py" in line["exception"][1]
    assert str(REPOSITORY) not in stream.getvalue()
    assert CANARY not in stream.getvalue()


def test_an_exception_that_is_its_own_cause_ends() -> None:
    error = ValueError(CANARY)
    error.__cause__ = KeyError(CANARY)
    error.__cause__.__cause__ = error
    assert list(describe_exception(error)) == ["ValueError", "KeyError"]


@pytest.mark.parametrize("library", ["pydicom", "pynetdicom.acse", "procrastinate.jobs", "monai.x", "other"])
def test_what_libraries_log_is_withheld(library: str) -> None:
    stream = start(level="debug")
    logger = logging.getLogger(library)
    logger.warning("Invalid value '%s'", CANARY)
    logger.error(f"Invalid value {CANARY}", extra={"patient": CANARY, "reason": CANARY})
    try:
        int(CANARY)
    except ValueError as error:
        logger.exception(error)  # noqa: TRY401 (as pynetdicom does)
    lines = written(stream)
    assert [line["event"] for line in lines] == [WITHHELD] * 3
    assert all("app/test_telemetry.py:" in line["source"] for line in lines)
    assert lines[2]["exception"][0] == "ValueError"
    assert "Canary" not in stream.getvalue()
    assert "\\u91d1" not in stream.getvalue()


def test_handlers_that_others_set_up_write_nothing_either() -> None:
    start(level="debug")
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logging.getLogger().handlers[:] = [handler]
    logging.getLogger().setLevel(logging.INFO)
    try:
        int(CANARY)
    except ValueError:
        logging.getLogger("pydicom").exception("Invalid value %s", CANARY, stack_info=True)
    logging.getLogger("other").warning({"patient": CANARY})
    get_logger("app.x").info("kept", patient_name=CANARY, sop_instance_uid="1.2.3")
    assert stream.getvalue().count(WITHHELD) == 2
    assert "kept" in stream.getvalue()
    for secret in (CANARY, "1.2.3", "Canary"):
        assert secret not in stream.getvalue()


WHOLE_PROCESS = """
import logging, sys, threading, warnings
from app.settings import LoggingSettings
from app.telemetry import configure_logging
canary = sys.argv[1]
configure_logging(LoggingSettings(level="debug", identifiers=True))
from io import BytesIO
from pydicom import Dataset, dcmread
import pynetdicom
dataset = Dataset()
dataset.StudyDate = canary
dataset.PatientID = canary * 20
dataset.StudyInstanceUID = canary
try:
    dataset.BitsAllocated = canary
    dataset.save_as(BytesIO(), implicit_vr=False, little_endian=True)
except Exception:
    logging.getLogger("app").exception("not saved %s", canary)
warnings.warn(canary)
class Falling:
    def __del__(self):
        raise ValueError(canary)
falling = Falling()
del falling
def fall():
    raise ValueError(canary)
thread = threading.Thread(target=fall)
thread.start()
thread.join()
entity = pynetdicom.AE(ae_title="A")
entity.add_requested_context("1.2.840.10008.1.1")
entity.associate("127.0.0.1", 1, ae_title="Canary")
raise KeyError(canary)
"""


def test_a_whole_process_that_goes_wrong_everywhere_says_nothing_of_the_patient() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WHOLE_PROCESS, "CanaryPatient"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "Canary" not in done.stdout + done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    sources = " ".join(line.get("source", "") for line in lines)
    assert "pydicom/" in sources
    events = [line["event"] for line in lines]
    assert "an exception ended a thread" in events
    assert "an exception was raised where none can be" in events
    assert events[-1] == "an exception ended the process"
    assert lines[-1]["exception"][0] == "KeyError"


def calls_to_loggers() -> Iterator[tuple[str, ast.Call]]:
    for path in sorted((REPOSITORY / "app").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in {"debug", "info", "warning", "error", "exception", "critical"}
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id.lower().strip("_") in {"log", "logger"}
            ):
                yield f"{path.relative_to(REPOSITORY)}:{node.lineno}", node


def test_every_event_in_the_code_is_a_constant_text_with_permitted_keys() -> None:
    faults = []
    for place, call in calls_to_loggers():
        constant = call.args and (isinstance(call.args[0], ast.Constant) or _is_constant_name(call.args[0]))
        if len(call.args) != 1 or not constant:
            faults.append(f"{place}: the event is not one constant text")
        for keyword in call.keywords:
            key = keyword.arg or "**"
            if key not in PERMITTED_KEYS | {"exc_info"} and not key.endswith(("_uid", "_uids")):
                faults.append(f"{place}: '{key}' is not among PERMITTED_KEYS of app/telemetry.py")
    assert faults == []


def _is_constant_name(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id.isupper()


def test_no_permitted_key_is_for_a_patients_data() -> None:
    assert not [key for key in PERMITTED_KEYS if any(word in key for word in ("patient", "birth", "name", "date"))]


def test_what_the_audit_log_may_say_the_diagnostic_log_may_say_too() -> None:
    assert {key for key in DETAIL_KEYS if not key.endswith(("_uid", "_uids"))} <= PERMITTED_KEYS
