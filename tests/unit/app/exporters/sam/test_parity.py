"""A refusal names the network, the prompt, what parts, and what agrees."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from app.errors import ImportRefused
from app.exporters.parity import DERIVED, Array
from app.exporters.sam.kept import keep_case, kept_cases
from app.exporters.sam.parity import NEAR, Case, judge


def case(kind: str, image: str, seed: int) -> Case:
    generator = np.random.default_rng(seed)
    masks = generator.normal(0, 5, (1, 4, 16, 16)).astype(np.float32)
    inputs = {"seed": np.array([seed], np.float32)}
    return Case(kind, image, inputs, {"masks": masks, "quality": generator.normal(0, 1, (1, 4)).astype(np.float32)})


CASES = [case("a box", "wide", 0), case("a box", "tall", 1), case("a point", "wide", 2)]


def answers(**changes: Array) -> Mapping[int, dict[str, Array]]:
    """What is expected, but for the outputs of the second case."""
    return {int(one.inputs["seed"][0]): {**one.expected, **(changes if one is CASES[1] else {})} for one in CASES}


def refusal(found: Mapping[int, dict[str, Array]], limits: object = NEAR) -> str:
    with pytest.raises(ImportRefused) as caught:
        judge(
            "the decoder", CASES, lambda inputs: found[int(inputs["seed"][0])], limits, has_masks=True,  # type: ignore[arg-type]
            explain=lambda one, _found: f"it is the {one.image} one",
        )  # fmt: skip
    assert caught.value.code == "parity-refused"
    return str(caught.value)


def test_figures_are_by_the_kind_of_prompt_at_their_worst() -> None:
    masks = CASES[1].expected["masks"]
    found = answers(masks=masks + np.float32(1e-5))
    figures = judge("the decoder", CASES, lambda inputs: found[int(inputs["seed"][0])], NEAR, has_masks=True)
    assert [(one["prompt"], one["image"]) for one in figures] == [("a box", "tall"), ("a point", "wide")]
    assert figures[0]["largest_error"] == pytest.approx(1e-5, rel=0.1)
    assert figures[0]["relative_error"] == pytest.approx(1e-5 / np.ptp(masks), rel=0.1)
    assert figures[1]["relative_error"] == 0
    assert all(one["finite"] for one in figures)


def test_a_value_that_strays_is_refused_with_its_prompt_and_image() -> None:
    masks = CASES[1].expected["masks"].copy()
    masks[0, 2, 3, 4] += 1
    said = refusal(answers(masks=masks))
    assert "the decoder does not compute what was trained, and nothing is published" in said
    assert "Asked with a box on the image 'tall': a value is off by 1, " in said
    assert "it is the tall one. 1 questions part, on the images tall; all agree that ask with a point" in said


def test_a_quality_that_strays_is_refused_too() -> None:
    assert "a value is off by" in refusal(answers(quality=CASES[1].expected["quality"] + np.float32(0.1)))


def test_what_is_not_finite_or_of_another_shape_is_refused() -> None:
    masks = CASES[1].expected["masks"]
    assert "not a finite number" in refusal(answers(masks=np.where(masks > 9, np.nan, masks).astype(np.float32)))
    assert "masks is [1, 1, 16, 16], and must be [1, 4, 16, 16]" in refusal(answers(masks=masks[:, :1]))
    without = {seed: {"masks": one["masks"]} for seed, one in answers().items()}
    assert "there is no output quality" in refusal(without)


def test_what_is_derived_is_judged_by_its_masks_alone() -> None:
    masks = CASES[1].expected["masks"]
    found = answers(masks=masks * np.float32(1.1))
    assert judge("the decoder", CASES, lambda inputs: found[int(inputs["seed"][0])], DERIVED, has_masks=True)
    assert "of the masks agree" in refusal(answers(masks=masks + np.float32(0.2)), DERIVED)


def test_cases_are_kept_as_they_were(tmp_path: Path) -> None:
    for one in CASES:
        keep_case(one, tmp_path / "kept")
    for one, other in zip(CASES, kept_cases(tmp_path / "kept"), strict=True):
        assert (one.kind, one.image) == (other.kind, other.image)
        for mine, theirs in ((one.inputs, other.inputs), (one.expected, other.expected)):
            assert list(mine) == list(theirs)
            assert all(np.array_equal(mine[name], theirs[name]) for name in mine)
