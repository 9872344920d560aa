from typing import Any

import pytest

from operators.errors import ModelPackageError
from operators.nnunet.plans import read_configuration
from tests.unit.operators.nnunet.oracle import demo_package, demo_package_with


def test_the_demonstration_model() -> None:
    configuration = read_configuration(demo_package())
    assert configuration.classes == 3
    assert configuration.patch_size == (16, 128, 128)
    assert configuration.spacing == (3.0, 3.0, 3.0)
    assert configuration.transpose_forward == (0, 1, 2)
    assert configuration.image_resampling.order == 3
    assert configuration.logits_resampling.order == 1
    assert configuration.normalisation.lower < configuration.normalisation.upper


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"configuration": {"patch_size": [128, 128]}}, "two-dimensional"),
        ({"configuration": {"previous_stage": "3d_lowres"}}, "cascade"),
        ({"configuration": {"normalization_schemes": ["ZScoreNormalization"]}}, "ZScoreNormalization"),
        ({"configuration": {"preprocessor_name": "Other"}}, "Other"),
        ({"configuration": {"resampling_fn_data": "resample_torch_fornnunet"}}, "resample_torch_fornnunet"),
        ({"configuration": {"resampling_fn_probabilities_kwargs": {"order": 1, "order_z": 1}}}, "order 1 across"),
        ({"plans": {"configurations": {"3d_lowres": {}}}}, "3d_lowres"),
        ({"plans": {"image_reader_writer": "NibabelIO"}}, "NibabelIO"),
        ({"plans": {"label_manager": "Other"}}, "label_manager Other"),
        ({"dataset": {"channel_names": {"0": "CT", "1": "PET"}, "labels": {"background": 0}}}, "2 input channels"),
        ({"dataset": {"channel_names": {"0": "CT"}, "labels": {"background": 0, "whole": [1, 2]}}}, "regions"),
        ({"dataset": {"channel_names": {"0": "CT"}, "labels": {"background": 0, "ignore": 1}}}, "ignore"),
        (
            {"dataset": {"channel_names": {"0": "CT"}, "labels": {str(number): number for number in range(300)}}},
            "300 labels",
        ),
        ({"card": {"mirroring_axes": [0, 1]}}, "mirroring"),
        ({"card": {"tile_step_size": 0.8}}, "tile step 0.8"),
        ({"card": {"configuration": "3d_cascade_fullres"}}, "3d_cascade_fullres"),
    ],
)
def test_what_is_not_supported_is_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ModelPackageError, match=named) as caught:
        read_configuration(demo_package_with(**change))
    assert caught.value.code == "configuration-unsupported"


@pytest.mark.parametrize(
    "change",
    [
        {"plans": {"transpose_forward": None}},
        {"plans": {"foreground_intensity_properties_per_channel": {}}},
        {"configuration": {"spacing": [1.0, 1.0]}},
        {"dataset": {"labels": {"background": 0}}},
        {"dataset": {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 2}}},
    ],
)
def test_damaged_plans_are_said_to_be_so(change: dict[str, Any]) -> None:
    with pytest.raises(ModelPackageError) as caught:
        read_configuration(demo_package_with(**change))
    assert caught.value.code == "plans-unreadable"


def test_a_configuration_inherits() -> None:
    package = demo_package()
    base = package.plans["configurations"]["3d_fullres"]
    own = {"inherits_from": "base", "patch_size": [8, 64, 64]}
    heir = demo_package_with(plans={"configurations": {"base": base, "3d_fullres": own}})
    configuration = read_configuration(heir)
    assert configuration.patch_size == (8, 64, 64)
    assert configuration.spacing == tuple(base["spacing"])
