"""The network trained on phantoms finds what it is shown there, as no network with drawn weights does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from app.exporters.sam.networks import load_network
from app.exporters.sam.variants import read_variant
from tests.fixtures.sam import trained, untrained
from tests.fixtures.sam.phantoms import BOUND, HELD_OUT, KINDS, Masks, Phantom, box_around, draw_phantom, overlap


@pytest.fixture(scope="module")
def phantoms() -> list[Phantom]:
    return [draw_phantom(HELD_OUT + number) for number in range(20)]


@pytest.fixture(scope="module")
def network() -> Any:
    return load_network(read_variant(str(trained.VARIANT)), trained.WEIGHTS, None)


@pytest.mark.parametrize("kind", KINDS)
def test_it_finds_the_structures_of_phantoms_that_it_never_saw(
    kind: str, network: Any, phantoms: list[Phantom]
) -> None:
    assert trained.overlap_found(network, phantoms, kind) > BOUND


def test_drawn_weights_find_nothing_of_them(phantoms: list[Phantom]) -> None:
    drawn = untrained.make(read_variant(str(trained.VARIANT)))
    assert trained.overlap_found(drawn, phantoms, "box") < BOUND / 2


def test_it_does_better_than_to_fill_the_box(network: Any, phantoms: list[Phantom]) -> None:
    filled = [overlap(_filled(structure), structure) for phantom in phantoms for structure in phantom.structures]
    assert trained.overlap_found(network, phantoms, "box") > np.mean(filled) + 0.1


def _filled(structure: Masks) -> Masks:
    box, filled = box_around(structure), np.zeros_like(structure)
    filled[int(box.top) : int(box.bottom), int(box.left) : int(box.right)] = True
    return filled
