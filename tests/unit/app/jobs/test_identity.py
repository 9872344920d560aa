from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.jobs.identity import ModelFacts, job_id, job_key

_MODEL = ModelFacts(name="liver", version="1.0", weights_digest="a" * 64, folder=Path("/models/liver"))
_pairs = st.lists(st.tuples(st.text("0123456789.", min_size=1), st.text("0123456789abcdef", min_size=1)), min_size=1)


def _key(inputs: list[tuple[str, str]], **changed: object) -> str:
    facts: dict[str, object] = {
        "pipeline": "liver",
        "application": "app.app:SegmentationApp",
        "model": _MODEL,
        "program_version": "0.1.0",
    }
    return job_key(inputs, **(facts | changed))  # type: ignore[arg-type]


@given(inputs=_pairs, seed=st.randoms())
def test_the_order_of_arrival_does_not_count(inputs: list[tuple[str, str]], seed: object) -> None:
    shuffled = list(inputs)
    seed.shuffle(shuffled)  # type: ignore[attr-defined]
    assert _key(inputs) == _key(shuffled)
    assert len(_key(inputs)) == 64


@given(first=_pairs, second=_pairs)
def test_other_instances_are_another_job(first: list[tuple[str, str]], second: list[tuple[str, str]]) -> None:
    assert (_key(first) == _key(second)) == (set(first) == set(second))


@pytest.mark.parametrize(
    "changed",
    [
        {"pipeline": "spleen"},
        {"application": "other:App"},
        {"program_version": "0.1.1"},
        {"model": replace(_MODEL, name="spleen")},
        {"model": replace(_MODEL, version="1.1")},
        {"model": replace(_MODEL, weights_digest="b" * 64)},
    ],
)
def test_each_fact_counts(changed: dict[str, object]) -> None:
    inputs = [("1.2.3", "ab")]
    assert _key(inputs, **changed) != _key(inputs)


def test_where_the_model_lies_does_not_count() -> None:
    inputs = [("1.2.3", "ab")]
    assert _key(inputs, model=replace(_MODEL, folder=Path("/elsewhere"))) == _key(inputs)


def test_the_id_follows_from_the_key() -> None:
    assert job_id("a" * 64) == job_id("a" * 64)
    assert job_id("a" * 64) != job_id("b" * 64)
