"""nnU-Net's own predictor on one case. Runs in the exporter environment.

    python -m benchmarks.nnunet.reference REQUEST

REQUEST is JSON: ``results`` (nnU-Net's folder), ``image`` (``.npy``, z, y, x), ``spacing`` (z, y, x), ``threads``,
``replaced`` (whether a cheap function answers in the network's place), ``labels`` and ``labels_single`` (where the
labels go: as nnU-Net gives them, and as it does when its sums are in single precision).
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from app.exporters.nnunet import define_torchvision_operators
from benchmarks.nnunet.cases import SINGLE
from benchmarks.nnunet.volumes import cheap_answer
from benchmarks.worker import Clock, Figures, own_output, serve

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what torch and nnU-Net say while they are imported
    define_torchvision_operators()
    import nnunetv2.inference.predict_from_raw_data as predicting
    import torch
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

_PREPROCESSING = (DefaultPreprocessor, "run_case_npy")
_SLIDING = (predicting.nnUNetPredictor, "predict_logits_from_preprocessed_data")
_FORWARD = (predicting.nnUNetPredictor, "_internal_maybe_mirror_and_predict")
_TO_LABELS = (predicting, "convert_predicted_logits_to_segmentation_with_correct_shape")


class Reference:
    """The predictor, with clocks at the borders of its stages."""

    def __init__(self, request: Figures) -> None:
        torch.set_num_threads(request["threads"] or len(os.sched_getaffinity(0)))
        self._spacing = [float(step) for step in request["spacing"]]
        self._predictor = predicting.nnUNetPredictor(
            tile_step_size=0.5,
            use_mirroring=False,
            perform_everything_on_device=False,
            device=torch.device("cpu"),
            allow_tqdm=False,
        )
        self._predictor.initialize_from_trained_model_folder(request["results"], (0,), "checkpoint_final.pth")
        self._classes = int(self._predictor.label_manager.num_segmentation_heads)
        self._replaced = bool(request["replaced"])

    def labels(self, image: NDArray[np.float32], *, single: bool = False) -> tuple[NDArray[Any], Figures]:
        """Return nnU-Net's labels (z, y, x) of one image, and what each stage took.

        With `single`, its sums are in single precision in place of half.
        """
        clock = Clock()
        precision = mock.patch("nnunetv2.inference.predict_from_raw_data.torch.half", torch.float32)
        with precision if single else contextlib.nullcontext(), self._instrumented(clock), clock.stage("total"):
            labels = self._predictor.predict_single_npy_array(
                image[None], {"spacing": self._spacing}, None, None, save_or_return_probabilities=False
            )
        return np.asarray(labels), {"cpu": _stages(clock.cpu), "wall": _stages(clock.wall), "server_cpu": 0.0}

    @contextlib.contextmanager
    def _instrumented(self, clock: Clock) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for name, (owner, attribute) in (
                ("preprocessing", _PREPROCESSING),
                ("sliding", _SLIDING),
                ("forward", _FORWARD),
                ("to labels", _TO_LABELS),
            ):
                original = getattr(owner, attribute)
                function = self._cheap if name == "forward" and self._replaced else original
                stack.enter_context(mock.patch.object(owner, attribute, _as_method(clock.timed(name, function))))
            yield

    def _cheap(self, _predictor: Any, tiles: Any) -> Any:
        return torch.from_numpy(cheap_answer(tiles.numpy(), self._classes))


def _as_method(function: Callable[..., Any]) -> Callable[..., Any]:
    """A plain function, which a class binds as its method; inference mode is what nnU-Net's own have."""

    def call(*arguments: Any, **options: Any) -> Any:
        with torch.inference_mode():
            return function(*arguments, **options)

    return call


def _stages(seconds: dict[str, float]) -> dict[str, float]:
    return {
        "preprocessing": seconds["preprocessing"],
        "forward": seconds["forward"],
        "blending": seconds["sliding"] - seconds["forward"],
        "to labels": seconds["to labels"],
        "total": seconds["total"],
    }


def main() -> None:
    """Serve the driver."""
    output = own_output()
    request = json.loads(sys.argv[1])
    image = np.load(request["image"]).astype(np.float32)
    reference = Reference(request)
    if not request["replaced"]:
        reference.labels(image[: image.shape[0] // 3, : image.shape[1] // 3, : image.shape[2] // 3])

    def run(word: str) -> Figures:
        labels, figures = reference.labels(image, single=word == SINGLE)
        np.save(Path(request["labels_single" if word == SINGLE else "labels"]), labels)
        return figures

    serve({"torch": torch.__version__}, run, output)


if __name__ == "__main__":
    main()
