from dataclasses import replace
from typing import Any

import pytest

from operators.errors import ModelPackageError
from operators.nnunet.normalisation import (
    CTNormalisation,
    NoNormalisation,
    RescaleTo01Normalisation,
    RGBTo01Normalisation,
    ZScoreNormalisation,
)
from operators.nnunet.plans import Resampling, read_configuration
from tests.unit.operators.nnunet.oracle import demo_network


def test_the_demonstration_model() -> None:
    configuration = read_configuration(demo_network())
    assert configuration.labels.heads == 3
    assert configuration.channels == 1
    assert configuration.patch_size == (16, 128, 128)
    assert configuration.spacing == (3.0, 3.0, 3.0)
    assert configuration.transpose_forward == (0, 1, 2)
    assert configuration.image_resampling == Resampling(order=3, separate_z=None)
    assert configuration.logits_resampling == Resampling(order=1, separate_z=None)
    (normalisation,) = configuration.normalisations
    assert isinstance(normalisation, CTNormalisation)
    assert normalisation.lower < normalisation.upper
    assert not configuration.is_2d


def test_a_two_dimensional_configuration() -> None:
    configuration = read_configuration(
        demo_network(configuration={"patch_size": [96, 80], "spacing": [1.0, 1.5]}, mirroring_axes=(0, 1))
    )
    assert configuration.is_2d
    assert configuration.spacing == (1.0, 1.5)


def test_every_normalisation() -> None:
    schemes = ["ZScoreNormalization", "RescaleTo01Normalization", "RGBTo01Normalization", "NoNormalization"]
    channels = {str(number): f"image {number}" for number in range(len(schemes))}
    masks = [True, False, True, False]
    network = demo_network(
        configuration={"normalization_schemes": schemes, "use_mask_for_norm": masks},
        dataset={"channel_names": channels},
    )
    configuration = read_configuration(network)
    # only one scheme heeds the mask
    assert configuration.normalisations == (
        ZScoreNormalisation(needs_mask=True),
        RescaleTo01Normalisation(),
        RGBTo01Normalisation(),
        NoNormalisation(),
    )
    assert configuration.channels == len(schemes)


def test_a_cascade_sees_the_labels_before_it() -> None:
    network = demo_network(configuration={"previous_stage": "3d_lowres"}, previous_stage=demo_network())
    configuration = read_configuration(network)
    assert configuration.sees_labels
    assert configuration.channels == 1 + 2


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"configuration": {"normalization_schemes": ["OtherNormalization"]}}, "OtherNormalization of its channel CT"),
        ({"configuration": {"preprocessor_name": "Other"}}, "Other"),
        ({"configuration": {"resampling_fn_data": "resample_torch_fornnunet"}}, "resample_torch_fornnunet"),
        ({"configuration": {"resampling_fn_probabilities_kwargs": {"order": 1, "order_z": 1}}}, "order 1 across"),
        (
            {"configuration": {"resampling_fn_probabilities_kwargs": {"order": 3}}},
            "probabilities by splines of order 3",
        ),
        ({"configuration": {"patch_size": [1, 2, 3, 4], "spacing": [1, 1, 1, 1]}}, "tiles of 4 axes"),
        ({"plans": {"image_reader_writer": "NaturalImage2DIO"}}, "NaturalImage2DIO"),
        ({"plans": {"label_manager": "Other"}}, "label_manager Other"),
    ],
)
def test_what_is_not_supported_is_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ModelPackageError, match=named) as caught:
        read_configuration(demo_network(**change))
    assert caught.value.code == "configuration-unsupported"


def test_a_configuration_that_was_not_planned_is_named_with_those_that_were() -> None:
    with pytest.raises(ModelPackageError, match="needs the configuration 3d_lowres, and its plans have") as caught:
        read_configuration(replace(demo_network(), configuration="3d_lowres"))
    assert caught.value.code == "configuration-missing"


@pytest.mark.parametrize(
    "change",
    [
        {"plans": {"transpose_forward": None}},
        {"plans": {"foreground_intensity_properties_per_channel": {}}},
        {"configuration": {"spacing": [1.0, 1.0]}},
        {"configuration": {"use_mask_for_norm": []}},
        {"configuration": {"inherits_from": "3d_fullres"}},
        {"configuration": {"previous_stage": "3d_lowres"}},
        {"mirroring_axes": (3,)},
        {"dataset": {"channel_names": {"0": "CT", "1": "PET"}}},
    ],
)
def test_damaged_plans_are_said_to_be_so(change: dict[str, Any]) -> None:
    with pytest.raises(ModelPackageError) as caught:
        read_configuration(demo_network(**change))
    assert caught.value.code == "plans-unreadable"


def test_a_configuration_inherits() -> None:
    network = demo_network()
    base = network.plans["configurations"]["3d_fullres"]
    own = {"inherits_from": "base", "patch_size": [8, 64, 64]}
    heir = replace(network, plans={**network.plans, "configurations": {"base": base, "3d_fullres": own}})
    configuration = read_configuration(heir)
    assert configuration.patch_size == (8, 64, 64)
    assert configuration.spacing == tuple(base["spacing"])
