"""Every error the server raises on purpose, in one tree.

::

    LimnerError
    ├── SettingsError              the settings can't be used as they are
    ├── ReceiveError               an instance could not be kept; carries the C-STORE status
    │   ├── OutOfResources         0xA700: the sender should try again later
    │   ├── DataSetMismatch        0xA900: the data set is not what the command said
    │   └── CannotUnderstand       0xC000: the data set can't be read; sending it again won't help
    ├── JobError                   a job can't go on
    │   ├── GraphFailed            the graph crashed, hung, ran out of memory or left no record
    │   ├── VerificationFailed     a result read back is not what was computed
    │   └── InputMissing           an instance that a job needs is no longer in the spool
    ├── DeliveryError              a destination did not take a result
    │   └── DeliveryRefused        the destination refused for good; the same bytes would be refused again
    ├── ServingError               Triton or PostgreSQL could not be started or reached
    ├── StorageError               the storage that hosts share can't be reached, or refuses
    ├── RequestRefused             a request to the API can't be followed; carries the HTTP status
    │   └── SessionLost            a session's process crashed, hung or grew too large; the session is over
    ├── ImportRefused              a trained model can't be imported, or the import does not compute what was trained
    └── AuditError                 the audit log can't be written or does not verify

Refusals of the image path (a missing slice, an unreadable instance) are ``operators.errors.OperatorError``.

Every error has a ``code``: short, stable, safe for logs and metrics. Its message says what was expected, what came and
what to do, and never holds a patient's name, identifier or date.
"""

from __future__ import annotations


class LimnerError(Exception):
    """Root of the tree."""

    code: str = "error"
    """Stable name for logs, records and pages."""
    retryable: bool = False
    """Whether the same attempt may succeed later without anybody doing something."""

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class SettingsError(LimnerError):
    """The settings can't be used as they are."""

    code = "settings"


class ReceiveError(LimnerError):
    """An instance could not be kept. ``dimse_status`` is the C-STORE status to answer (PS3.4 B.2.3)."""

    code = "receive"
    dimse_status: int = 0xC000


class OutOfResources(ReceiveError):
    """The disk is below its watermark or the ledger can't be written: the sender should try again later."""

    code = "out-of-resources"
    dimse_status = 0xA700
    retryable = True


class DataSetMismatch(ReceiveError):
    """The data set's SOP Class or Instance UID is not the one the C-STORE command named."""

    code = "data-set-mismatch"
    dimse_status = 0xA900


class CannotUnderstand(ReceiveError):
    """The data set can't be read or lacks what identifies it; sending it again won't help."""

    code = "cannot-understand"
    dimse_status = 0xC000


class JobError(LimnerError):
    """A job can't go on."""

    code = "job"


class GraphFailed(JobError):
    """The graph crashed, hung, ran out of memory or ended without its completion record."""

    code = "graph-failed"


class VerificationFailed(JobError):
    """A result, read back, is not what the graph computed."""

    code = "verification-failed"


class InputMissing(JobError):
    """An instance that a job needs is no longer in the spool."""

    code = "input-missing"


class DeliveryError(LimnerError):
    """A destination did not take a result; it may later."""

    code = "delivery"
    retryable = True
    retry_after_seconds: float | None = None
    """When the destination asked to be tried again, if it said so."""


class DeliveryRefused(DeliveryError):
    """A destination refused a result for good: the same bytes would be refused again."""

    code = "delivery-refused"
    retryable = False


class ServingError(LimnerError):
    """Triton or PostgreSQL could not be started or reached."""

    code = "serving"
    retryable = True


class StorageError(LimnerError):
    """The storage that hosts share can't be reached, or refuses; what was asked of it may be asked again."""

    code = "shared-storage-away"
    retryable = True


class RequestRefused(LimnerError):
    """A request to the API can't be followed. ``http_status`` is the status to answer (RFC 9110)."""

    code = "request-refused"

    def __init__(self, message: str, *, code: str | None = None, http_status: int = 422) -> None:
        super().__init__(message, code=code)
        self.http_status = http_status


class SessionLost(RequestRefused):
    """A session's process crashed, hung or grew too large; the session is over, and a new one can be opened."""

    code = "session-crashed"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message, code=code, http_status=500)


class ImportRefused(LimnerError):
    """A trained model can't be imported, or what was made of it does not compute what was trained."""

    code = "import"


class AuditError(LimnerError):
    """The audit log can't be written, or does not verify."""

    code = "audit"
