"""What trainings found of intensities, of models as nnU-Net itself wrote their plans."""

from dataclasses import replace
from pathlib import Path

import pytest

from operators.gate.intensity import IntensityRange
from operators.model_package import ModelPackage
from operators.nnunet.fingerprint import intensity_ranges

REPOSITORY = Path(__file__).resolve().parents[4]
FIXTURES = REPOSITORY / "tests/fixtures/nnunet/models"


def test_the_demonstration_models_is_that_of_its_plans() -> None:
    package = ModelPackage.load(REPOSITORY / "triton_models/nnunet_liver_spleen_demo")
    assert intensity_ranges(package) == (IntensityRange(-68.0, 204.0),)


@pytest.mark.parametrize(
    ("name", "has_scale"), [("mr_two_channels", [False, False]), ("ct_cascade", [True]), ("merge", [True])]
)
def test_a_channel_has_a_range_where_it_is_normalised_as_ct(name: str, has_scale: list[bool]) -> None:
    package = ModelPackage.load(FIXTURES / name / "repository" / f"fixture_{name}")
    assert [one is not None for one in intensity_ranges(package)] == has_scale


def test_of_several_networks_the_range_holds_all() -> None:
    package = ModelPackage.load(REPOSITORY / "triton_models/nnunet_liver_spleen_demo")
    (network,) = package.networks
    channels = network.plans["foreground_intensity_properties_per_channel"]
    wider = {"0": {**channels["0"], "percentile_00_5": -100.0, "percentile_99_5": 150.0}}
    plans = {**network.plans, "foreground_intensity_properties_per_channel": wider}
    both = replace(package, networks=(network, replace(network, name="other", plans=plans)))
    assert intensity_ranges(both) == (IntensityRange(-100.0, 204.0),)
