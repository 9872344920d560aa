"""LiteMedSAM as Limner serves it, in a repository of the benchmark's own."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.folders import CACHE, REPOSITORY_ROOT

MODEL = "lite_medsam"


def model_repository() -> Path:
    """Return a repository with the model, put together from its public package as `make lite-medsam` does."""
    sys.path.append(str(REPOSITORY_ROOT / "deploy" / "lite_medsam"))
    from lite_medsam import fetch, put

    repository = CACHE / MODEL
    repository.mkdir(parents=True, exist_ok=True)
    put(fetch(CACHE.parent), repository)
    return repository
