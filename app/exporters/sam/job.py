"""What one import of a generalist is to make: put together by the command line, carried out by the exporter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from app.exporters.sam.variants import Variant, read_variant
from operators.sam.package import DECODER, ENCODER, MEMORY_ATTENTION, MEMORY_ENCODER


@dataclass(frozen=True)
class GeneralistJob:
    """One package: an encoder and a decoder, and what remembers."""

    checkpoint: str
    adapter: str | None
    variant: str
    """A variant's name, or the path of its file."""
    name: str
    version: str
    algorithm_name: str
    threads: int = 0
    """Of one instance on the CPU; 0 for as many as there are cores."""

    @property
    def encoder(self) -> str:
        """The encoder's Triton model; its folder is the package."""
        return self.name

    @property
    def decoder(self) -> str:
        """The decoder's Triton model."""
        return f"{self.name}_decoder"

    @property
    def parts(self) -> dict[str, str]:
        """The Triton model of each part; those that remember are there where the variant has a memory."""
        parts = {ENCODER: self.encoder, DECODER: self.decoder}
        if self.read_variant().contract.memory is not None:
            parts |= {part: f"{self.name}_{part}" for part in (MEMORY_ENCODER, MEMORY_ATTENTION)}
        return parts

    @property
    def models(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(self.parts.values())

    def read_variant(self) -> Variant:
        """Return the variant; raises as `app.exporters.sam.variants.read_variant`."""
        return read_variant(self.variant)


def job_as_json(job: GeneralistJob) -> dict[str, Any]:
    """Return `job` as what JSON can hold."""
    return asdict(job)


def job_from_json(content: Mapping[str, Any]) -> GeneralistJob:
    """Return the job that `job_as_json` described."""
    return GeneralistJob(**content)
