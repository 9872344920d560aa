"""Every error the image path raises on purpose. The operators know no server, so they have a tree of their own.

::

    OperatorError
    ├── SeriesRefused       the series can't be processed, now or later: a missing slice, two orientations, no image
    ├── PromptRefused       the prompt can't be followed: it shows nothing, or what is not there
    ├── ModelPackageError   the model's folder is incomplete, contradicts itself or asks for what is not supported
    └── InferenceFailed     Triton did not answer, or not with what was asked; the same request may succeed later

Every error has a ``code``: short, stable, in kebab-case, safe for logs and metrics. Its message says what was expected,
what came and what to do, and never holds a patient's name, identifier or date.
"""

from __future__ import annotations


class OperatorError(Exception):
    """Root of the tree.

    Parameters
    ----------
    message
        For people: what was expected, what came, what to do.
    code
        For programs: a stable kebab-case name such as ``slice-missing``.
    """

    code: str
    retryable: bool = False
    """Whether the same attempt may succeed later without anybody doing something."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[object, ...]:
        # keyword-only arguments are lost by the default, and errors cross from the graph's process to the server's
        return _rebuild, (type(self), str(self), self.code)


def _rebuild(kind: type[OperatorError], message: str, code: str) -> OperatorError:
    return kind(message, code=code)


class SeriesRefused(OperatorError):
    """The series can't be processed; the same instances would be refused again."""


class PromptRefused(OperatorError):
    """The prompt can't be followed; the same one would be refused again."""


class ModelPackageError(OperatorError):
    """The model's folder can't be used as it is."""


class InferenceFailed(OperatorError):
    """Triton could not be reached, did not answer in time, or answered with an error."""

    retryable = True
