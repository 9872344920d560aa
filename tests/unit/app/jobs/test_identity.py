from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.jobs.entries import JobInput
from app.jobs.identity import ModelFacts, job_id, job_key

_MODEL = ModelFacts(
    name="liver", version="1.0", weights_digest="a" * 64, folder=Path("/models/liver"), channels=("CT",)
)
_inputs = st.lists(
    st.builds(
        JobInput,
        st.text("0123456789.", min_size=1),
        st.text("0123456789abcdef", min_size=1),
        st.sampled_from(["", "T1", "FLAIR"]),
    ),
    min_size=1,
)


def _key(inputs: list[JobInput], **changed: object) -> str:
    facts: dict[str, object] = {
        "pipeline": "liver",
        "application": "app.app:SegmentationApp",
        "model": _MODEL,
        "program_version": "0.1.0",
    }
    return job_key(inputs, **(facts | changed))  # type: ignore[arg-type]


@given(inputs=_inputs, seed=st.randoms())
def test_the_order_of_arrival_does_not_count(inputs: list[JobInput], seed: object) -> None:
    shuffled = list(inputs)
    seed.shuffle(shuffled)  # type: ignore[attr-defined]
    assert _key(inputs) == _key(shuffled)
    assert len(_key(inputs)) == 64


@given(first=_inputs, second=_inputs)
def test_other_instances_are_another_job(first: list[JobInput], second: list[JobInput]) -> None:
    assert (_key(first) == _key(second)) == (set(first) == set(second))


@pytest.mark.parametrize(
    "changed",
    [
        {"pipeline": "spleen"},
        {"application": "other:App"},
        {"program_version": "0.1.1"},
        {"refusal": "channel-missing"},
        {"model": replace(_MODEL, name="spleen")},
        {"model": replace(_MODEL, version="1.1")},
        {"model": replace(_MODEL, weights_digest="b" * 64)},
    ],
)
def test_each_fact_counts(changed: dict[str, object]) -> None:
    inputs = [JobInput("1.2.3", "ab")]
    assert _key(inputs, **changed) != _key(inputs)


def test_where_the_model_lies_does_not_count() -> None:
    inputs = [JobInput("1.2.3", "ab")]
    assert _key(inputs, model=replace(_MODEL, folder=Path("/elsewhere"))) == _key(inputs)


def test_the_id_follows_from_the_key() -> None:
    assert job_id("a" * 64) == job_id("a" * 64)
    assert job_id("a" * 64) != job_id("b" * 64)


def test_the_channel_of_an_instance_counts() -> None:
    t1, flair = JobInput("1.2.3", "ab", "T1"), JobInput("1.2.4", "cd", "FLAIR")
    swapped = [JobInput("1.2.3", "ab", "FLAIR"), JobInput("1.2.4", "cd", "T1")]
    unbound = [JobInput("1.2.3", "ab"), JobInput("1.2.4", "cd")]
    assert len({_key([t1, flair]), _key(swapped), _key(unbound), _key([t1])}) == 4
