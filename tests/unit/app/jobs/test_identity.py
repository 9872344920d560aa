from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.jobs.entries import JobInput
from app.jobs.identity import GeneralistFacts, ModelFacts, job_id, job_key

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


@pytest.mark.parametrize(
    "changed",
    [
        {"gate": {"policies": {"lossy-compression": "refuse"}}},
        {"gate": {"take": {"AcquisitionNumber": 2}}},
        {"gate": {"take": {"AcquisitionNumber": 3}}},
        {"model": replace(_MODEL, intended_use={"slice_count": [10.0, 20.0]})},
    ],
)
def test_what_the_gate_does_and_what_the_card_states_count(changed: dict[str, object]) -> None:
    inputs = [JobInput("1.2.3", "ab")]
    assert _key(inputs, **changed) != _key(inputs)
    assert _key(inputs, gate={}) == _key(inputs)


_SECOND = GeneralistFacts("sam", "2.0", "c" * 64, Path("/sam"), "soft-tissue", 5.0)


@pytest.mark.parametrize(
    ("generalist", "expected"),
    [
        (None, "ae7dbdb3cc1c5a90b096d3375de4d5c199b7247a64e5dffe768b5aaba63f2b2a"),
        (_SECOND, "2db19a7ac671b36bf6cbdf9f7c3a9df637dd77fb86330c1f8e6baebf918cdbb4"),
    ],
)
def test_where_nothing_new_is_asked_for_the_key_is_what_it_always_was(
    generalist: GeneralistFacts | None, expected: str
) -> None:
    """UIDs of results follow from it: what was sent before an update must be replaced after it, not doubled."""
    model = ModelFacts("liver", "1.0", "a" * 64, Path("/models/liver"), ("CT",), generalist)
    key = job_key(
        [JobInput("1.2.3", "ab")], pipeline="liver", application="app:App", model=model, program_version="0.1.0"
    )
    assert key == expected


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "medsam"},
        {"version": "2.1"},
        {"weights_digest": "d" * 64},
        {"window": "liver"},
        {"box_margin_pixels": 0.0},
        {"windows": {"Lung": "lung"}},
        {"prompts": "points"},
    ],
)
def test_each_fact_of_the_generalist_counts(changed: dict[str, Any]) -> None:
    inputs = [JobInput("1.2.3", "ab")]
    keys = [
        _key(inputs, model=replace(_MODEL, generalist=second))
        for second in (None, _SECOND, replace(_SECOND, **changed), replace(_SECOND, folder=Path("/elsewhere")))
    ]
    assert len(set(keys)) == 3
    assert keys[1] == keys[3]


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


def test_how_a_pipeline_is_prompted_counts() -> None:
    inputs = [JobInput("1.2", "0" * 64)]
    keys = {_key(inputs, prompt=prompt) for prompt in (None, {"reach": "slice"}, {"reach": "volume"})}
    assert len(keys) == 3
