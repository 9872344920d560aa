"""Random plans, and what nnU-Net v2's own functions make of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from numpy.typing import NDArray

from operators.label_scheme import read_label_scheme
from operators.model_package import Network
from operators.nnunet.plans import Configuration, read_configuration

CONFIGURATION = "3d_fullres"
TRANSPOSES = ([0, 1, 2], [1, 0, 2], [2, 0, 1], [1, 2, 0])
PLAIN_LABELS = {"background": 0, "a": 1, "b": 2, "c": 3}
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "edge": 3}
SCHEMES = (
    "CTNormalization",
    "ZScoreNormalization",
    "RescaleTo01Normalization",
    "RGBTo01Normalization",
    "NoNormalization",
)


class Planned:
    """One network's plans, as nnU-Net's managers and as ours."""

    def __init__(self, plans: dict[str, Any], dataset: dict[str, Any]) -> None:
        self.plans, self.dataset = plans, dataset
        self.manager = PlansManager(plans)
        self.planned = self.manager.get_configuration(CONFIGURATION)
        self.labels = self.manager.get_label_manager(dataset)

    @property
    def network(self) -> Network:
        previous = None
        if self.planned.previous_stage_name is not None:
            previous = Network(
                "previous", "1", "", self.plans, self.dataset, read_label_scheme(self.dataset), "3d_lowres"
            )
        return Network(
            name="drawn",
            triton_version="1",
            weights_digest="",
            plans=self.plans,
            dataset=self.dataset,
            labels=read_label_scheme(self.dataset),
            configuration=CONFIGURATION,
            previous_stage=previous,
        )

    @property
    def configuration(self) -> Configuration:
        return read_configuration(self.network)

    def preprocessed(
        self, image: NDArray[Any], spacing: tuple[float, ...], labels: NDArray[Any] | None = None
    ) -> tuple[NDArray[Any], NDArray[Any], dict[str, Any]]:
        data, seg, properties = DefaultPreprocessor(verbose=False).run_case_npy(
            image, labels, {"spacing": list(spacing)}, self.manager, self.planned, self.dataset
        )
        return np.asarray(data), np.asarray(seg), properties


@st.composite
def drawn_plans(draw: st.DrawFn, *, labels: dict[str, Any] | None = None, cascade: bool = False) -> Planned:
    """Plans of one configuration; axes, spacings, schemes and label kinds as they come."""
    is_2d = draw(st.booleans()) and not cascade
    axes = 2 if is_2d else 3
    spacing = draw(st.lists(st.sampled_from([0.7, 1.0, 1.5, 2.3, 6.0]), min_size=axes, max_size=axes))
    schemes = draw(st.lists(st.sampled_from(SCHEMES), min_size=1, max_size=2))
    transpose = draw(st.sampled_from(TRANSPOSES))
    separate = draw(st.sampled_from([None, None, False, True]))
    chosen = labels if labels is not None else draw(st.sampled_from([PLAIN_LABELS, REGIONS]))

    def resampling(order: int, *, is_seg: bool) -> dict[str, Any]:
        return {"is_seg": is_seg, "order": order, "order_z": 0, "force_separate_z": separate}

    configuration: dict[str, Any] = {
        "preprocessor_name": "DefaultPreprocessor",
        "patch_size": [8] * axes,
        "spacing": spacing,
        "normalization_schemes": schemes,
        "use_mask_for_norm": [draw(st.booleans()) for _ in schemes],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling(draw(st.sampled_from([3, 1])), is_seg=False),
        "resampling_fn_seg_kwargs": resampling(draw(st.sampled_from([1, 1, 0])), is_seg=True),
        "resampling_fn_probabilities_kwargs": resampling(draw(st.sampled_from([1, 1, 0])), is_seg=False),
        "architecture": {},
        "previous_stage": "3d_lowres" if cascade else None,
    }
    intensity = {"mean": 60.0, "std": 40.0, "percentile_00_5": -20.0, "percentile_99_5": 190.0}
    plans = {
        "transpose_forward": transpose,
        "transpose_backward": list(np.argsort(transpose)),
        "image_reader_writer": "SimpleITKIO",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(number): intensity for number in range(len(schemes))},
        "configurations": {CONFIGURATION: configuration},
    }
    dataset = {
        "channel_names": {str(number): f"channel {number}" for number in range(len(schemes))},
        "labels": chosen,
        "regions_class_order": [1, 2, 3],
    }
    return Planned(plans, dataset)


@st.composite
def drawn_images(draw: st.DrawFn, channels: int) -> tuple[NDArray[np.float32], tuple[float, float, float]]:
    """An image (channel, z, y, x) of values 0 to 255 with an empty border and a hole, and its spacing."""
    sizes = st.integers(3, 14)
    shape = (draw(sizes), draw(sizes), draw(sizes))
    seed = draw(st.integers(0, 1 << 16))
    generator = np.random.default_rng(seed)
    image = np.rint(generator.uniform(1, 255, (channels, *shape))).astype(np.float32)
    if draw(st.booleans()):
        image[:, :1], image[:, :, :, -1:] = 0, 0
        image[:, 1 + shape[0] // 3, shape[1] // 2, shape[2] // 2] = 0
    spacing = draw(st.tuples(*[st.sampled_from([0.6, 0.9, 1.7, 4.0, 7.5])] * 3))
    return image, spacing
