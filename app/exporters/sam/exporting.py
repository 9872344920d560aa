"""From a checkpoint of the SAM family to a package on disk, found to compute what was trained. No Triton is needed.

`export_generalist` is the plain function behind `limner models import sam`; it runs in the exporter environment.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.errors import ImportRefused
from app.exporters.exporting import GRAPH
from app.exporters.package import VERSION_FOLDER
from app.exporters.sam.gate import encoder_cases, judge_decoder, judge_encoder
from app.exporters.sam.graphs import StoredTensor, write_decoder, write_encoder
from app.exporters.sam.job import GeneralistJob
from app.exporters.sam.kept import keep_case
from app.exporters.sam.networks import load_network
from app.exporters.sam.package import write_model, write_package
from app.exporters.sam.second import export_sam2
from app.exporters.sam.signatures import Shapes
from app.exporters.sam.variants import Variant

Progress = Callable[[str], None]


def export_generalist(
    job: GeneralistJob, repository: Path, *, progress: Progress = lambda _line: None, gate_folder: Path | None = None
) -> dict[str, list[StoredTensor]]:
    """Write the package of `job` into `repository`, and return what each model's weights file holds.

    Nothing is returned of SAM 2, whose graphs hold their weights themselves.

    Parameters
    ----------
    repository
        Made if missing; the folders that are written must not be there.
    gate_folder
        Where the fixed questions and torch's answers are kept for a later comparison, ``<model>/<number>.npz``.

    Raises
    ------
    ImportRefused
        If the checkpoint, the variant or the parity gate speaks against it; what was written by then is of no use.
    """
    variant = job.read_variant()
    if variant.contract.family == "sam2":
        export_sam2(job, variant, repository, progress, gate_folder)
        return {}
    progress(f"{job.name}: the weights are read and put into {variant.title}")
    network: Any = load_network(variant, Path(job.checkpoint), None if job.adapter is None else Path(job.adapter))
    shapes = _shapes(network, variant)
    graphs = {model: repository / model / VERSION_FOLDER / GRAPH for model in job.models}
    progress(f"{job.name}: encoder and decoder are exported")
    stored = {
        job.encoder: write_encoder(network, shapes.image, graphs[job.encoder]),
        job.decoder: write_decoder(network, graphs[job.decoder]),
    }
    with tempfile.TemporaryDirectory(prefix="limner-gate-") as scratch:
        kept = Path(scratch) if gate_folder is None else gate_folder
        progress(f"{job.name}: the encoder is compared with torch")
        cases = list(encoder_cases(network, variant.contract))
        for case in cases:
            keep_case(case, kept / job.encoder)
        figures = {job.encoder: judge_encoder(f"the encoder {job.encoder}", graphs[job.encoder], cases)}
        progress(f"{job.name}: the decoder is compared with torch, prompt by prompt")
        embeddings = {case.image: case.expected["image_embeddings"] for case in cases}
        figures[job.decoder] = judge_decoder(
            f"the decoder {job.decoder}",
            graphs[job.decoder],
            network,
            variant.contract,
            embeddings,
            kept / job.decoder,
        )
    write_model(repository / job.encoder, shapes.encoder, job.threads)
    write_model(repository / job.decoder, shapes.decoder, job.threads)
    write_package(job, variant, figures, repository)
    return stored


def _shapes(network: Any, variant: Variant) -> Shapes:
    prompts, contract = network.prompt_encoder, variant.contract
    shapes = Shapes(
        image=network.image_encoder.img_size,
        width=prompts.embed_dim,
        grid=prompts.image_embedding_size[0],
        mask=prompts.mask_input_size[0],
        masks=network.mask_decoder.num_mask_tokens,
    )
    said = (contract.image.size, contract.prompts.size, contract.logits.size)
    if said != (shapes.image, shapes.image, shapes.mask):
        raise ImportRefused(
            f"the contract of the variant {variant.name} says that image, prompts and masks have the sides {said}, and "
            f"its architecture has {(shapes.image, shapes.image, shapes.mask)}",
            code="variant-unreadable",
        )
    return shapes
