"""A generalist's folder in the Triton model repository, read and checked as one thing.

::

    triton_models/<name>/
        manifest.json      the contract, the networks by their part, and the digests of their weights
        model_card.md      for people; its YAML front matter names version and algorithm
        config.pbtxt, <n>/model.onnx      the encoder; the other networks lie in folders of their own beside it

    manifest.json:
    {
      "format": 1,
      "family": "sam",
      "variant": "lite_medsam",
      "contract": {…},                              `operators.sam.contract`
      "networks": {
        "encoder": {"model": "lite_medsam", "weights_sha256": "…"},
        "decoder": {"model": "lite_medsam_decoder", "weights_sha256": "…"}
      },
      "exporter": {…}, "parity": {…}                for people: what made it, and how far it strayed from torch
    }

What Triton serves, by part (single precision, n prompts of p points each, L and S the sides of logits and image):

``encoder``
    ``image`` (1, 3, S, S) -> ``image_embeddings`` (1, C, h, w); SAM 2 adds ``high_res_0``, ``high_res_1``.
``decoder``
    all that the encoder gives, ``point_coords`` (n, p, 2), ``point_labels`` (n, p), ``mask_input`` (n, 1, L, L),
    ``has_mask_input`` (n,) -> ``masks`` (n, 4, L, L), ``iou_predictions`` (n, 4); SAM 2 adds ``object_pointers``
    (n, 4, C) and ``object_score_logits`` (n, 1).
``memory_encoder``
    ``image_embeddings``, ``masks`` (n, 1, L, L), ``object_score_logits`` (n, 1), ``is_prompted`` (n,), 1 or 0, ->
    ``memories`` (n, h * w, M).
``memory_attention``
    ``image_embeddings``, ``memories`` (1, m, h * w, M), ``memory_steps`` (1, m), ``pointers`` (1, p, C),
    ``pointer_distances`` (1, p) -> ``conditioned_embeddings``, for the decoder in place of the encoder's
    ``image_embeddings``.

Labels of points are 1 (on it), 0 (not on it), 2 and 3 (a box's upper left and lower right corner), -1 (padding). The
decoder's first mask is the one for an unambiguous prompt; three more are at three scales.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from operators.errors import ModelPackageError
from operators.gate.intended_use import IntendedUse, read_intended_use
from operators.model_folder import card_text, file_digest, newest_version, present, read_card, read_json, weights_files
from operators.model_manifest import FORMAT, MANIFEST_FILE, folder_name
from operators.sam.contract import Contract, read_contract
from operators.sam.memory_contract import read_memory_contract

FAMILIES = ("sam", "sam2")
ENCODER, DECODER = "encoder", "decoder"
MEMORY_ENCODER, MEMORY_ATTENTION = "memory_encoder", "memory_attention"
GENERALIST_KIND = "generalist"
"""What the card of a generalist says that it is."""


@dataclass(frozen=True)
class Part:
    """One network, as one Triton model serves it."""

    model: str
    """Its folder's name."""
    triton_version: str
    """The numbered folder that is served."""
    weights_digest: str
    """SHA-256 of the served weights, 64 hexadecimal digits."""


@dataclass(frozen=True)
class GeneralistPackage:
    """What one generalist is: its networks, how to ask them, and who says so."""

    folder: Path
    name: str
    version: str
    """The model's own version, from its card."""
    algorithm_name: str
    """What results call it (Algorithm Name, PS3.3 10.16)."""
    variant: str
    contract: Contract
    card: Mapping[str, Any]
    parts: Mapping[str, Part]
    """By what they do: ``encoder``, ``decoder``; with memory ``memory_encoder`` and ``memory_attention`` too."""
    intended_use: IntendedUse = IntendedUse()
    """The acquisitions that its card says it is for."""

    @property
    def weights_digest(self) -> str:
        """SHA-256 of the parts' names and digests, 64 hexadecimal digits."""
        listed = "".join(f"{self.parts[part].weights_digest}  {part}\n" for part in sorted(self.parts))
        return hashlib.sha256(listed.encode()).hexdigest()

    @classmethod
    def load(cls, folder: Path) -> GeneralistPackage:
        """Read and check the generalist in `folder`.

        Raises
        ------
        ModelPackageError
            If a file is missing (``file-missing``), can't be read (``file-unreadable``), or is another than the
            manifest says (``file-differs``); if the card states what can't be checked (``card-malformed``).
        """
        folder = folder.resolve()
        content = read_json(present(folder, MANIFEST_FILE))
        try:
            contract, variant = read_contract(content["contract"]), str(content["variant"])
            entries = _entries(content)
            _check_memory(contract, set(entries))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelPackageError(
                f"{folder.name}/{MANIFEST_FILE} is not a manifest as `limner models import sam` writes it: {error}",
                code="file-unreadable",
            ) from error
        card = read_card(folder)
        return cls(
            folder=folder,
            name=folder.name,
            version=card_text(card, "version", folder.name),
            algorithm_name=card_text(card, "algorithm_name", folder.name),
            variant=variant,
            contract=contract,
            card=card,
            parts={part: _part(folder.parent / model, digest) for part, (model, digest) in entries.items()},
            intended_use=read_intended_use(card, folder.name),
        )


def is_generalist(folder: Path) -> bool:
    """Whether the manifest in `folder` is one of this family; False if it can't be read."""
    try:
        return read_json(folder / MANIFEST_FILE).get("family") in FAMILIES
    except ModelPackageError:
        return False


def _entries(content: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Folder and digest of each part."""
    if content["format"] != FORMAT:
        raise ValueError(f"its format is {content['format']!r}, and this Limner reads {FORMAT}")
    entries = {
        part: (folder_name(entry["model"]), str(entry["weights_sha256"])) for part, entry in content["networks"].items()
    }
    if not {ENCODER, DECODER} <= set(entries):
        raise ValueError("its networks must be an encoder and a decoder at least")
    return entries


def _check_memory(contract: Contract, parts: set[str]) -> None:
    if contract.memory is None:
        return
    read_memory_contract(contract.memory)
    if not {MEMORY_ENCODER, MEMORY_ATTENTION} <= parts:
        raise ValueError("its contract has a memory, and its networks lack those that remember")


def _part(folder: Path, digest: str) -> Part:
    present(folder, "config.pbtxt")
    version = newest_version(folder)
    if file_digest(*weights_files(folder / version)) != digest:
        raise ModelPackageError(
            f"{folder.name}/{version}/model.onnx is another file than the manifest names; import the model again",
            code="file-differs",
        )
    return Part(folder.name, version, digest)
