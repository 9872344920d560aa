"""LiteMedSAM's script, with its own class in torch. Runs in the exporter environment.

    python -m benchmarks.sam.reference REQUEST

REQUEST is JSON: ``images`` (``.npy``, slice, row, column, 0 to 255), ``prompts`` (slice, left, top, right, bottom),
``threads``, ``masks`` (where the masks go).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.sam import script
from benchmarks.sam.rounds import DECODER, ENCODER, IMAGE, Boxed, read_prompts, stages, take_round
from benchmarks.worker import Clock, Figures, own_output, serve


class Reference:
    """The script; the embedding of the last slice is kept, as SAM's own predictor keeps it."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._images = images
        self._script = script.Script(script.load_lite_medsam())

    def masks(self, prompts: list[Boxed]) -> tuple[NDArray[np.uint8], Figures]:
        """Return the masks of all prompts (`take_round`), and what it took to find them."""
        clock = Clock()
        prepared, encoded = clock.timed(IMAGE, self._script.prepared), clock.timed(ENCODER, self._script.encoded)
        current, embedding = -1, torch.empty(0)

        def ask(prompt: Boxed) -> NDArray[np.bool_]:
            nonlocal current, embedding
            image = self._images[prompt.slice_index]
            if prompt.slice_index != current:
                current, embedding = prompt.slice_index, encoded(prepared(image))
            box = self._script.first_box(np.array(prompt.corners), image.shape)
            return self._script.found(embedding, box, image.shape).astype(bool)

        with mock.patch.object(script, "decoded", clock.timed(DECODER, script.decoded)):
            found, seconds = take_round(prompts, ask, clock)
        details = {"seconds": seconds}
        return found, {"cpu": stages(clock.cpu), "wall": stages(clock.wall), "server_cpu": 0.0, "details": details}


def main() -> None:
    """Serve the driver."""
    output = own_output()
    request = json.loads(sys.argv[1])
    torch.set_num_threads(request["threads"] or len(os.sched_getaffinity(0)))
    reference, prompts = Reference(np.load(request["images"])), read_prompts(request)

    def run(_word: str) -> Figures:
        found, figures = reference.masks(prompts)
        np.save(Path(request["masks"]), found)
        return figures

    serve({"torch": torch.__version__}, run, output)


if __name__ == "__main__":
    main()
