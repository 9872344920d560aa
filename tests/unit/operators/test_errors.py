import pickle

import pytest

from operators.errors import InferenceFailed, ModelPackageError, OperatorError, SeriesRefused


@pytest.mark.parametrize("kind", [SeriesRefused, ModelPackageError, InferenceFailed])
def test_an_error_keeps_its_code_across_processes(kind: type[OperatorError]) -> None:
    error = pickle.loads(pickle.dumps(kind("what was expected", code="some-code")))  # noqa: S301
    assert type(error) is kind
    assert (str(error), error.code) == ("what was expected", "some-code")


def test_only_a_failed_inference_may_be_tried_again() -> None:
    assert InferenceFailed("", code="x").retryable
    assert not SeriesRefused("", code="x").retryable
    assert not ModelPackageError("", code="x").retryable
