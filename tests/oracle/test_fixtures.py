"""What is committed under tests/fixtures/nnunet/models is what nnU-Net's predictor answers."""

from __future__ import annotations

import pytest

from tests.fixtures.nnunet.make_models import MODELS, RECIPES, verify
from tests.nnunet_fixtures import NAMES


def test_every_recipe_has_its_folder_and_every_folder_its_recipe() -> None:
    assert sorted(RECIPES) == list(NAMES)


@pytest.mark.filterwarnings("ignore:Detected old nnU-Net plans format")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", sorted(RECIPES))
def test_fixture_is_what_nnunet_answers(name: str) -> None:
    shares = verify(RECIPES[name], MODELS / name)
    assert shares
