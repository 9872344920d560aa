"""A served network of the SAM family as a function from its inputs to its outputs."""

from __future__ import annotations

from collections.abc import Mapping

from app.errors import ImportRefused
from app.exporters.parity import Array
from app.exporters.sam.parity import Answer
from app.settings import Settings
from operators.errors import InferenceFailed
from operators.triton import TritonModel


def asker(settings: Settings, target: str, model: str, version: str = "1") -> Answer:
    """Return the function that asks one version of `model` on the Triton at `target`.

    It raises `ImportRefused`, ``served-failed``, if there is no answer.
    """

    def ask(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        try:
            with TritonModel(
                target,
                model,
                version=version,
                deadline_seconds=settings.triton.request_seconds,
                shared_memory=settings.triton.shared_memory,
            ) as handle:
                return handle.infer(inputs)
        except InferenceFailed as error:
            raise ImportRefused(f"the served {model} does not answer: {error}", code="served-failed") from error

    return ask
