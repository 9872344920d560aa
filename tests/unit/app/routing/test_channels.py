"""Rules with channels: what a series fits, what they may say, and whether they suit the model."""

from __future__ import annotations

from typing import Any

import pytest
from pydicom import Dataset

from app.errors import SettingsError
from app.routing.channels import check_channels
from app.routing.rules import RuleSet
from app.settings_pipeline import RuleSettings

_BRAIN = {
    "T1": {"SeriesDescription": {"pattern": ".*T1.*"}, "EchoTime": {"maximum": 20}},
    "FLAIR": {"SeriesDescription": {"pattern": ".*FLAIR.*"}},
}


def _rule(channels: dict[str, Any], **changed: Any) -> RuleSettings:
    facts = {"name": "brain", "pipeline": "brain", "destinations": (), "after": "study", "match": {"Modality": "MR"}}
    return RuleSettings.model_validate({**facts, "channels": channels, **changed})


def _header(description: str, *, modality: str = "MR", echo_time: str = "3") -> Dataset:
    dataset = Dataset()
    dataset.Modality, dataset.SeriesDescription, dataset.EchoTime = modality, description, echo_time
    return dataset


@pytest.mark.parametrize(
    ("header", "channels"),
    [
        (_header("AX T1"), ("T1",)),
        (_header("AX FLAIR"), ("FLAIR",)),
        (_header("AX T1", echo_time="90"), ()),
        (_header("T1 FLAIR"), ("T1", "FLAIR")),
        (_header("LOCALIZER"), ()),
        (_header("AX T1", modality="CT"), ()),  # the rule does not take it
    ],
)
def test_the_channels_that_a_series_fits(header: Dataset, channels: tuple[str, ...]) -> None:
    assert RuleSet([_rule(_BRAIN)]).decide(header).channels == channels


def test_only_the_channels_of_the_rule_that_takes_it_count() -> None:
    first = _rule({"CT": {}}, name="first", match={"Modality": "CT"})
    decision = RuleSet([first, _rule(_BRAIN)]).decide(_header("AX T1"))
    assert decision.channels == ("T1",)
    assert decision.rule is not None
    assert decision.rule.name == "brain"


def test_each_condition_of_each_channel_is_explained() -> None:
    (explained,) = RuleSet([_rule(_BRAIN)]).decide(_header("AX T1", echo_time="90")).explanations
    assert [(one.channel, one.holds) for one in explained.channels] == [("T1", False), ("FLAIR", False)]
    shown = [(one.keyword, one.expected, one.found, one.holds) for one in explained.channels[0].conditions]
    assert shown == [
        ("SeriesDescription", "matches the pattern '.*T1.*'", "'AX T1'", True),
        ("EchoTime", "at most 20", "'90'", False),
    ]


def test_what_a_channel_looks_for_in_words() -> None:
    rule = _rule({**_BRAIN, "T2": {}})
    assert RuleSet([_rule({}, name="other"), rule]).expected(rule) == {
        "T1": "SeriesDescription: matches the pattern '.*T1.*' and EchoTime: at most 20",
        "FLAIR": "SeriesDescription: matches the pattern '.*FLAIR.*'",
        "T2": "any series that the rule takes",
    }


def test_the_keywords_of_channels_are_known_too() -> None:
    assert RuleSet([_rule(_BRAIN)]).keywords == {"Modality", "SeriesDescription", "EchoTime"}


def test_a_condition_that_cannot_be_names_rule_channel_and_keyword() -> None:
    with pytest.raises(SettingsError, match=r"^rule 'brain', channel 'T1', 'Modalty': .* did you mean 'Modality'\?"):
        RuleSet([_rule({"T1": {"Modalty": "MR"}})])


@pytest.mark.parametrize("channels", [("T1", "FLAIR"), ("FLAIR", "T1")])
def test_the_models_channels_in_any_order(channels: tuple[str, ...]) -> None:
    check_channels(_rule(_BRAIN), "brain_model", channels)


def test_a_model_of_one_channel_may_be_bound_or_not() -> None:
    check_channels(_rule({}), "liver_model", ("CT",))
    check_channels(_rule({"CT": {}}), "liver_model", ("CT",))


@pytest.mark.parametrize(
    ("bound", "channels", "messages"),
    [
        ({}, ("T1", "FLAIR"), ["binds no channels", "the model brain_model has 2: T1, FLAIR"]),
        (_BRAIN, ("T1", "T2"), ["binds the channels T1, FLAIR", "the model brain_model has T1, T2"]),
        (_BRAIN, ("T1",), ["binds the channels T1, FLAIR", "has T1"]),
        ({"T1": {}}, ("T1", "FLAIR"), ["binds the channels T1;", "has T1, FLAIR"]),
        ({"t1": {}, "flair": {}}, ("T1", "FLAIR"), ["binds the channels t1, flair;", "has T1, FLAIR"]),
        ({"MRI": {}}, ("MRI", "MRI"), ["MRI, MRI", "a name of its own"]),
        (_BRAIN, ("T1", ""), ["a name of its own"]),
    ],
)
def test_other_channels_than_the_models_are_refused(
    bound: dict[str, Any], channels: tuple[str, ...], messages: list[str]
) -> None:
    with pytest.raises(SettingsError) as caught:
        check_channels(_rule(bound), "brain_model", channels)
    for message in ("rule 'brain'", *messages):
        assert message in str(caught.value)
