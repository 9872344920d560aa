"""A real embedded Triton for tests: `running_triton()`; one of them serves a whole test run."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.serving.triton import EmbeddedTriton

REPOSITORY_ROOT = Path(__file__).resolve().parent.parent
TRITON_PYTHON = REPOSITORY_ROOT / ".triton" / "bin" / "python"
MODEL_REPOSITORY = REPOSITORY_ROOT / "triton_models"
START_SECONDS = 180.0


def triton_python() -> Path:
    """The interpreter of Triton's environment. A test run without it can't say anything: it fails, never skips."""
    if not TRITON_PYTHON.exists():
        pytest.fail("Triton's environment is missing: `make environment` makes it from requirements/triton.txt")
    return TRITON_PYTHON


def fixture_repository(folder: Path) -> Path:
    """Fill `folder` with the models of the project and those that only tests serve."""
    return joined_repository(folder, MODEL_REPOSITORY, REPOSITORY_ROOT / "tests" / "fixtures" / "triton")


def joined_repository(folder: Path, *repositories: Path) -> Path:
    """Fill `folder` with the models of all these repositories."""
    for repository in repositories:
        for configuration in repository.glob("*/config.pbtxt"):
            (folder / configuration.parent.name).symlink_to(configuration.parent)
    return folder


@contextmanager
def running_triton(
    repository: Path = MODEL_REPOSITORY, *, probe_seconds: float = 1.0, model_configuration: str | None = None
) -> Iterator[EmbeddedTriton]:
    """A Triton that serves `repository`."""
    with tempfile.TemporaryDirectory(prefix="limner-test-") as folder:
        triton = EmbeddedTriton(
            triton_python(),
            repository,
            Path(folder),
            start_seconds=START_SECONDS,
            probe_seconds=probe_seconds,
            model_configuration=model_configuration,
        )
        with triton:
            yield triton
