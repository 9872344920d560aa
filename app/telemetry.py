"""The diagnostic log on standard error: for finding faults. What happened to a study is the audit log's.

No data of a patient gets into it, by four fences:

- a closed list of keys: what a line may say beside its event; others are left out and named under ``left_out``;
- events are constant texts in the code (a test looks at every call), never made from values;
- of exceptions, types and places are written, and messages of this project's own errors only;
- what libraries log or warn of is written as its place in their source, without their text.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO, cast

import structlog
from structlog.typing import Processor

from app.errors import LimnerError
from app.settings import LoggingSettings
from operators.errors import OperatorError

PERMITTED_KEYS = frozenset(
    {
        "address",
        "again",
        "archive",
        "arguments",
        "association_id",
        "attempt",
        "bytes",
        "called_ae_title",
        "calling_ae_title",
        "category",
        "channels",
        "code",
        "count",
        "cut_bytes",
        "deadline_seconds",
        "delivered",
        "destination",
        "digest",
        "error",
        "event",
        "exception",
        "exit_code",
        "failures",
        "files",
        "flag",
        "generalist",
        "generalist_digest",
        "generalist_version",
        "held",
        "host",
        "input_notes",
        "inputs_digest",
        "instances",
        "job_id",
        "job_key",
        "kind",
        "kinds",
        "left_out",
        "level",
        "limit_bytes",
        "log_id",
        "logger",
        "maximum_attempts",
        "model",
        "model_version",
        "object_digest",
        "pause_seconds",
        "person",
        "pid",
        "pipeline",
        "port",
        "priority",
        "process_id",
        "queue",
        "queues",
        "reason",
        "roles",
        "rule",
        "seconds",
        "segments",
        "series",
        "session",
        "settings_digest",
        "size_bytes",
        "slot",
        "slots",
        "source",
        "source_host",
        "state",
        "status",
        "step",
        "studies",
        "superseded_by",
        "target",
        "task",
        "tasks",
        "thread",
        "timestamp",
        "version",
        "weights_digest",
        "what",
        "why",
        "worker",
    }
)
"""Keys that a line may have. Those that end in ``_uid`` or ``_uids`` also may, where the settings allow identifiers."""

WITHHELD = "a library's message, withheld because it can hold data of a patient; its source says which it is"
"""The event of lines that libraries log."""
WARNED = "a library's warning, withheld because it can hold data of a patient; its source says which it is"
"""The event of warnings that libraries raise."""

_QUIET = ("asyncio", "highdicom", "holoscan", "monai", "procrastinate", "psycopg", "pydicom", "pynetdicom")
_OWN = ("app", "operators")
_NAME = re.compile(r"[A-Za-z_][\w.-]{0,127}")
_META = ("_record", "_from_structlog")  # structlog's own, removed before a line is written
_LONGEST_TEXT = 1000

_Event = MutableMapping[str, Any]


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger called `name`: ``__name__``."""
    return cast(structlog.stdlib.BoundLogger, structlog.get_logger(name))


def configure_logging(settings: LoggingSettings, stream: TextIO | None = None) -> None:
    """Send all logs, warnings and uncaught exceptions of this process to `stream`, standard error by default.

    Child processes need it once each. May be called again, with other settings.
    """
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    redaction = _Redaction(identifiers=settings.identifiers)
    handler.setFormatter(_formatter(settings, redaction))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in _QUIET:
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
        library.setLevel(logging.WARNING)
    for name in _OWN:
        logging.getLogger(name).setLevel(settings.level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            *_common(),
            redaction,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    logging.setLogRecordFactory(_WithheldRecord)
    _install_hooks()


def _formatter(settings: LoggingSettings, redaction: Processor) -> logging.Formatter:
    json_lines, text = structlog.processors.JSONRenderer(), structlog.dev.ConsoleRenderer(colors=False)
    renderer: Processor = json_lines if settings.format == "json" else text
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[_unfold, *_common(), redaction],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            renderer,
        ],
    )


def _common() -> list[Processor]:
    return [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _describe_exception,
    ]


class _Redaction:
    """A processor that leaves out what a line may not say."""

    def __init__(self, *, identifiers: bool) -> None:
        self._identifiers = identifiers

    def __call__(self, _logger: object, _method: str, event: _Event) -> _Event:
        line: _Event = {}
        left_out = []
        for key, value in event.items():
            if key in _META:
                line[key] = value
            elif key.endswith(("_uid", "_uids")):
                if self._identifiers:
                    line[key] = _plain(value)
            elif key == "error" and not (isinstance(value, str) and _NAME.fullmatch(value)):
                line[key] = type(value).__name__ if isinstance(value, BaseException) else "withheld: not a name"
            elif key in PERMITTED_KEYS:
                line[key] = _plain(value)
            else:
                left_out.append(key)
        if left_out:
            line["left_out"] = sorted(left_out)
        return line


def _plain(value: object) -> object:
    """Return numbers and shortened text; of other things, data sets among them, only what kind they are."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return value if len(value) <= _LONGEST_TEXT else f"{value[:_LONGEST_TEXT]}…"
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return f"({type(value).__name__})"


class _WithheldRecord(logging.LogRecord):
    """A record that, if a library made it, lost its text at birth, so that no handler, whoever set it up, writes it.

    (The MONAI Deploy SDK replaces the handlers of the process it starts an application in.)
    """

    def __init__(self, name: str, level: int, pathname: str, lineno: int, msg: object, *rest: Any, **more: Any) -> None:
        super().__init__(name, level, pathname, lineno, msg, *rest, **more)
        if isinstance(msg, dict) and name.split(".")[0] in _OWN:
            return  # structlog's, already redacted
        self.msg, self.args = WITHHELD, ()
        self.place = _place(pathname, lineno)
        error = self.exc_info[1] if self.exc_info else None
        self.exception = list(describe_exception(error)) if error is not None else None
        self.exc_info = self.exc_text = self.stack_info = None


def _unfold(_logger: object, _method: str, event: _Event) -> _Event:
    """Say of a library's message where it is in the source, and what exception came with it."""
    record = event["_record"]
    event["event"] = WITHHELD
    event["source"] = getattr(record, "place", None) or _place(record.pathname, record.lineno)
    if getattr(record, "exception", None):
        event["exception"] = record.exception
    return event


def _describe_exception(_logger: object, _method: str, event: _Event) -> _Event:
    given = event.pop("exc_info", None)
    if isinstance(given, BaseException):
        error: BaseException | None = given
    elif isinstance(given, tuple):
        error = given[1]
    else:
        error = sys.exc_info()[1] if given else None
    if error is not None:
        event["exception"] = list(describe_exception(error))
    return event


def describe_exception(error: BaseException) -> Iterator[str]:
    """Yield lines that say what `error` and its causes are and where they were raised, without anything from a study.

    Messages are given for this project's own errors, which never hold data of a patient; of others, the type only.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        name = type(current).__qualname__
        yield f"{name}: {current}" if isinstance(current, (LimnerError, OperatorError)) else name
        for frame in traceback.extract_tb(current.__traceback__):
            yield f"  {_place(frame.filename, frame.lineno)} {frame.name}"
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _place(path: str, line: int | None) -> str:
    """Return the last parts of a source file's path: enough to find it, nothing of the machine."""
    return f"{'/'.join(Path(path).parts[-3:])}:{line}"


def _install_hooks() -> None:
    """Send warnings and uncaught exceptions the same way: Python's own hooks would write their messages."""
    logger = get_logger("app.telemetry")

    def show_warning(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object, **__: object
    ) -> None:
        logger.warning(WARNED, category=category.__name__, source=_place(filename, lineno))

    def show_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
        else:
            logger.error("an exception ended the process", exc_info=error)

    def show_thread_exception(given: threading.ExceptHookArgs) -> None:
        logger.error("an exception ended a thread", exc_info=given.exc_value)

    def show_unraisable(given: Any) -> None:
        logger.error("an exception was raised where none can be", exc_info=given.exc_value)

    warnings.showwarning = show_warning
    sys.excepthook = show_exception
    threading.excepthook = show_thread_exception
    sys.unraisablehook = show_unraisable
