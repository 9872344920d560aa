"""All parts of a generalist with a memory, at a Triton, as what `operators.sam.memory.follow` asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from operators.errors import InferenceFailed
from operators.sam.memory import Array, Infer
from operators.sam.package import ENCODER, GeneralistPackage
from operators.triton import TritonModel

_EMBEDDINGS = "image_embeddings"


@contextmanager
def open_parts(
    package: GeneralistPackage, target: str, *, deadline_seconds: float, shared_memory: bool
) -> Iterator[Infer]:
    """Hold handles on every part of `package` at the Triton at `target`, and give the function that asks them.

    Parameters
    ----------
    target
        Triton's gRPC address, ``host:port`` or ``unix:/path``.
    deadline_seconds
        Longest wait for one answer; the attention to seven memories takes longest.
    shared_memory
        Pass tensors through shared memory where the Triton is on this host.

    Raises
    ------
    InferenceFailed
        ``triton-unreachable``, ``model-missing``; ``model-mismatch`` if a part does not take the encoder's answer.
    """
    with ExitStack() as stack:
        models = {
            part: stack.enter_context(
                TritonModel(
                    target,
                    entry.model,
                    version=entry.triton_version,
                    deadline_seconds=deadline_seconds,
                    shared_memory=shared_memory,
                )
            )
            for part, entry in package.parts.items()
        }
        expected = models[ENCODER].signature.outputs.get(_EMBEDDINGS)
        for part, model in models.items():
            found = model.signature.inputs.get(_EMBEDDINGS)
            if part != ENCODER and found != expected:
                raise InferenceFailed(
                    f"model {package.parts[part].model} is not the one its package describes: expected input "
                    f"{_EMBEDDINGS} to be {expected}, the server has {found or 'none'}",
                    code="model-mismatch",
                )

        def infer(part: str, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
            return models[part].infer(inputs)

        yield infer
