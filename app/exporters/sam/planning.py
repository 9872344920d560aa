"""What an import of a generalist is to make, with everything checked that can be checked without torch."""

from __future__ import annotations

import re
from pathlib import Path

from app.errors import ImportRefused
from app.exporters.planning import check_name
from app.exporters.sam.job import GeneralistJob
from app.exporters.sam.variants import read_variant

_UNUSABLE = re.compile(r"[^a-z0-9_-]")
"""Some variants have a point or a plus in their name, a model's folder may not."""


def plan_generalist(
    checkpoint: Path,
    variant: str,
    *,
    adapter: Path | None = None,
    name: str | None = None,
    version: str = "1.0.0",
    algorithm_name: str | None = None,
    threads: int = 0,
) -> GeneralistJob:
    """Look at what was named and return what is to be made of it.

    Raises
    ------
    ImportRefused
        ``checkpoint-missing`` if a file is not there, ``name-unusable``, or what `read_variant` raises.
    """
    known = read_variant(variant)
    for path in (checkpoint, adapter):
        if path is not None and not path.is_file():
            raise ImportRefused(f"there is no file {path}", code="checkpoint-missing")
    chosen = name or _UNUSABLE.sub("_", known.name)
    check_name(chosen)
    return GeneralistJob(
        checkpoint=str(checkpoint.resolve()),
        adapter=None if adapter is None else str(adapter.resolve()),
        variant=str(Path(variant).resolve()) if variant.endswith(".json") else variant,
        name=chosen,
        version=version,
        algorithm_name=algorithm_name or known.title,
        threads=threads,
    )
