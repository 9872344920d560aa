"""`limner models check` of a generalist: does it compute alike by other means, here or where it is served?"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from app.errors import ImportRefused
from app.exporters.parity import DERIVED, Array
from app.exporters.sam.cases import NO_PROMPT, fixed_images, questions, tokens
from app.exporters.sam.parity import Answer, Case, judge
from app.exporters.sam.served import asker
from app.exporters.served import copy_model, serving
from app.settings import Settings
from operators.sam.package import DECODER, ENCODER, GeneralistPackage

Progress = Callable[[str], None]
Figures = Mapping[str, list[dict[str, Any]]]
Networks = Mapping[str, Answer]
"""The served encoder and decoder, by part."""


def check_generalist(
    settings: Settings, package: GeneralistPackage, configuration: str | None, progress: Progress
) -> Figures:
    """Compare a generalist served by other means with itself served by ``config.pbtxt`` on the embedded Triton.

    Parameters
    ----------
    configuration
        One of its ``configs/``, for the embedded Triton; None for the Triton at ``triton.address``.

    Raises
    ------
    ImportRefused
        ``parity-refused``, ``served-failed``, ``configuration-missing`` or ``triton-address-missing``.
    """
    address = next(iter(settings.triton.addresses), None)
    if configuration is None and address is None:
        raise ImportRefused(
            "there is no other Triton to compare with: name its gRPC address in triton.address",
            code="triton-address-missing",
        )
    with tempfile.TemporaryDirectory(prefix="limner-check-") as scratch:
        folder = Path(scratch)
        progress(f"the embedded Triton serves {package.name} by config.pbtxt")
        with _staged(settings, package, folder, None) as networks:
            pictures, asked = _cases(package, networks)
        if configuration is None:
            progress(f"the Triton at {address} is compared with it")
            return _judge(package, pictures, asked, _networks(settings, package, str(address)), f"at {address}")
        progress(f"the embedded Triton serves {package.name} by {configuration}")
        with _staged(settings, package, folder, configuration) as networks:
            return _judge(package, pictures, asked, networks, f"with {configuration}")


def _judge(
    package: GeneralistPackage, pictures: list[Case], asked: list[Case], networks: Networks, how: str
) -> Figures:
    """The decoder sees what the encoder answers by the same means."""
    encoder, decoder = package.parts[ENCODER].model, package.parts[DECODER].model
    seen = {one.image: networks[ENCODER](one.inputs) for one in pictures}
    return {
        encoder: judge(f"the encoder {encoder}, served {how},", pictures, networks[ENCODER], DERIVED, has_masks=False),
        decoder: judge(
            f"the decoder {decoder}, served {how},",
            (one.seeing(seen[one.image]) for one in asked),
            networks[DECODER],
            DERIVED,
            has_masks=True,
        ),
    }


def _cases(package: GeneralistPackage, networks: Networks) -> tuple[list[Case], list[Case]]:
    """The fixed questions with what these networks answer."""
    pictures = []
    for name, image in fixed_images(package.contract).items():
        picture = {"image": image[None]}
        pictures.append(Case(NO_PROMPT, name, picture, networks[ENCODER](picture)))
    embeddings = {one.image: one.expected for one in pictures}
    side = package.contract.logits.size
    asked = []
    for question in questions(package.contract):
        coordinates, labels = tokens(question, package.contract.prompts)
        count = len(question.refined)
        inputs: dict[str, Array] = {
            **embeddings[question.image],
            "point_coords": coordinates,
            "point_labels": labels,
            "mask_input": np.zeros((count, 1, side, side), np.float32),
            "has_mask_input": np.zeros(count, np.float32),
        }
        if any(question.refined):
            first = networks[DECODER](inputs)["masks"][:, :1]
            inputs |= {"mask_input": first, "has_mask_input": np.array(question.refined, np.float32)}
        asked.append(Case(question.kind, question.image, inputs, networks[DECODER](inputs)))
    return pictures, asked


@contextmanager
def _staged(
    settings: Settings, package: GeneralistPackage, folder: Path, configuration: str | None
) -> Iterator[Networks]:
    repository = folder / f"repository-{configuration or 'default'}"
    repository.mkdir()
    for part in package.parts.values():
        copy_model(package.folder.parent / part.model, repository, configuration)
    with serving(settings, repository, folder / "run") as triton:
        yield _networks(settings, package, triton.target)


def _networks(settings: Settings, package: GeneralistPackage, target: str) -> Networks:
    return {name: asker(settings, target, part.model, part.triton_version) for name, part in package.parts.items()}
