"""The import's way for SAM 2: four graphs by `app.exporters.sam2`, and the same package around them.

Runs in the exporter environment.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from app.errors import ImportRefused
from app.exporters.checkpoints import load_restricted
from app.exporters.exporting import GRAPH
from app.exporters.package import VERSION_FOLDER
from app.exporters.sam.job import GeneralistJob
from app.exporters.sam.kept import keep_case
from app.exporters.sam.networks import named_weights
from app.exporters.sam.package import write_model, write_package
from app.exporters.sam.parity import Case
from app.exporters.sam.variants import Variant
from app.exporters.sam2.exporting import export_network

if TYPE_CHECKING:
    from app.exporters.sam2.gate import Case as PartCase

_IMAGE = "waves"
"""How refusals call the one image that is drawn for these networks."""


def export_sam2(
    job: GeneralistJob, variant: Variant, repository: Path, progress: Callable[[str], None], gate_folder: Path | None
) -> None:
    """Write the package of `job` into `repository`.

    Raises
    ------
    ImportRefused
        ``adapter-unusable`` if there is one; else as `app.exporters.sam2.exporting.export_network`.
    """
    if job.adapter is not None:
        raise ImportRefused(
            f"an adapter can't be put over {variant.title}; bring a checkpoint that holds all its weights",
            code="adapter-unusable",
        )
    checkpoint = Path(job.checkpoint)
    weights = named_weights(load_restricted(checkpoint))
    parts = job.parts
    progress(f"{job.name}: four networks are exported and compared with torch")
    with tempfile.TemporaryDirectory(prefix="limner-gate-") as scratch:
        kept = Path(scratch) if gate_folder is None else gate_folder

        def keep(case: PartCase) -> None:
            keep_case(Case(case.kind, _IMAGE, case.inputs, case.expected), kept / parts[case.part])

        exported = export_network(
            variant.architecture,
            variant.contract_content,
            weights,
            f"{checkpoint.parent.name}/{checkpoint.name}",
            lambda part: repository / parts[part] / VERSION_FOLDER / GRAPH,
            keep,
        )
    for part, signature in exported.signatures.items():
        write_model(repository / parts[part], signature, job.threads)
    figures = {parts[part]: judged for part, judged in exported.figures.items()}
    write_package(job, replace(variant, contract_content=exported.contract), figures, repository)
