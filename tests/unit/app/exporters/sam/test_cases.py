"""The fixed questions cover what a decoder can be asked, in the frame and the order that the contract says."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from app.exporters.sam.cases import BOX, POINT, POINTS, POINTS_AND_BOX, SIZES, fixed_images, questions, tokens
from app.exporters.sam.variants import read_variant


@pytest.mark.parametrize("name", ["sam_vit_b", "medsam", "lite_medsam", "sam_med2d"])
def test_images_fill_what_the_contract_shows_and_nothing_beyond(name: str) -> None:
    contract = read_variant(name).contract
    images = fixed_images(contract)
    assert set(images) == set(SIZES)
    for image, values in images.items():
        rows, columns = contract.image.shown(*SIZES[image])
        assert values.shape == (3, contract.image.size, contract.image.size)
        assert np.ptp(values[:, :rows, :columns]) > 0.5
        assert not values[:, rows:].any()
        assert not values[:, :, columns:].any()
    shapes = {contract.image.shown(*size) for size in SIZES.values()}
    assert len(shapes) == (1 if contract.image.fit == "square" else 3)


def test_every_prompt_lies_within_the_image_in_the_frame_of_prompts() -> None:
    contract = read_variant("lite_medsam").contract
    asked = list(questions(contract))
    assert len({(one.kind, one.image) for one in asked}) == len(asked) == 24
    for question in asked:
        coordinates, labels = tokens(question, contract.prompts)
        rows, columns = contract.image.shown(*SIZES[question.image])
        assert len(coordinates) == len(labels) == len(question.refined)
        assert (coordinates >= 0).all()
        assert (coordinates <= [columns, rows]).all()


def test_padding_and_the_place_of_a_box_are_the_contracts() -> None:
    contract = read_variant("sam_vit_b").contract
    by_kind = {one.kind: one for one in questions(contract)}

    def labels(kind: str, **prompts: str) -> list[float]:
        changed = dataclasses.replace(contract.prompts, **prompts)  # type: ignore[arg-type]
        return list(tokens(by_kind[kind], changed)[1][0])

    assert labels(BOX) == [2, 3]
    assert labels(POINT) == [1, -1]
    assert labels(POINTS) == [1, 1, 0, -1]
    assert labels(POINTS_AND_BOX) == [1, 1, 0, 2, 3]
    assert labels(POINTS_AND_BOX, box="first", padding="always") == [2, 3, 1, 1, 0, -1]
    assert labels(POINT, padding="never") == [1]
