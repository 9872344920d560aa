"""Which rule takes a series: conditions on DICOM keywords, compared, never evaluated.

`app.settings_pipeline.RuleSettings` says what may be written; ``docs/reference/rules.md`` says it with examples.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

from pydicom import Dataset
from pydicom.datadict import dictionary_VR, keyword_dict, tag_for_keyword

from app.errors import SettingsError
from app.routing.patterns import Pattern
from app.routing.values import Values, read_values
from app.settings_pipeline import RuleSettings
from operators.functional_groups import FIRST_FRAME_KEYWORDS, first_frame_header
from operators.headers import read_before_pixels

_NUMERIC = {"DS", "IS", "FL", "FD", "SL", "SS", "SV", "UL", "US", "UV", "US or SS"}
_ASKED_OF_ALL = frozenset((*FIRST_FRAME_KEYWORDS, "PixelRepresentation", "BitsAllocated"))
"""What is looked at whatever the rules say: the last two tell how some numbers are encoded (VR US or SS)."""
_BINARY = {"OB", "OD", "OF", "OL", "OV", "OW", "OB or OW", "UN", "US or OW", "US or SS or OW"}


@dataclass(frozen=True)
class ConditionExplanation:
    """One condition and what it met.

    `expected` and `found` are for a person at the terminal. `found` shows the data set's own values, which can be a
    patient's: it must never be logged or kept.
    """

    keyword: str
    expected: str
    found: str
    holds: bool


@dataclass(frozen=True)
class ChannelExplanation:
    """One channel of a rule and whether the data set fits it. Contains values of the data set: never log or keep it."""

    channel: str
    conditions: tuple[ConditionExplanation, ...]

    @property
    def holds(self) -> bool:
        """Whether all conditions hold."""
        return all(condition.holds for condition in self.conditions)


@dataclass(frozen=True)
class RuleExplanation:
    """One rule and why it takes the data set or not. Contains values of the data set: never log or keep it."""

    rule: str
    taken: bool
    """Whether this rule takes the data set: all its conditions hold, and no earlier rule's did."""
    conditions: tuple[ConditionExplanation, ...]
    channels: tuple[ChannelExplanation, ...] = ()
    urgent_conditions: tuple[ConditionExplanation, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether all conditions hold; if so and not taken, an earlier rule came first."""
        return all(condition.holds for condition in self.conditions)

    @property
    def urgent(self) -> bool:
        """Whether it has conditions for what is urgent, and they all hold."""
        return bool(self.urgent_conditions) and all(condition.holds for condition in self.urgent_conditions)


@dataclass(frozen=True)
class Decision:
    """The rule that takes a data set, or None, and for each rule why."""

    rule: RuleSettings | None
    """With the urgent priority where the data set is urgent."""
    explanations: tuple[RuleExplanation, ...]

    @property
    def urgent(self) -> bool:
        """Whether the rule that takes the data set says that it is urgent."""
        return any(one.urgent for one in self.explanations if one.taken)

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels of the rule that takes the data set whose conditions it fits."""
        return tuple(one.channel for rule in self.explanations if rule.taken for one in rule.channels if one.holds)


class _Condition(Protocol):
    @property
    def expected(self) -> str: ...

    def holds(self, values: Values) -> bool: ...


@dataclass(frozen=True)
class _AnyOf:
    """Equal to one of these; text as text, numbers as numbers."""

    members: tuple[str | float, ...]

    @property
    def expected(self) -> str:
        shown = ", ".join(_shown(member) for member in self.members)
        return shown if len(self.members) == 1 else f"one of {shown}"

    def holds(self, values: Values) -> bool:
        return any(member in (values.texts if isinstance(member, str) else values.numbers) for member in self.members)


@dataclass(frozen=True)
class _Within:
    minimum: float | None
    maximum: float | None

    @property
    def expected(self) -> str:
        if self.maximum is None:
            return f"at least {self.minimum:g}"
        if self.minimum is None:
            return f"at most {self.maximum:g}"
        return f"from {self.minimum:g} to {self.maximum:g}"

    def holds(self, values: Values) -> bool:
        return any(
            (self.minimum is None or number >= self.minimum) and (self.maximum is None or number <= self.maximum)
            for number in values.numbers
        )


@dataclass(frozen=True)
class _Matches:
    pattern: Pattern

    @property
    def expected(self) -> str:
        return f"matches the pattern '{self.pattern.text}'"

    def holds(self, values: Values) -> bool:
        return any(self.pattern.matches(text) for text in values.texts)


@dataclass(frozen=True)
class _Present:
    wanted: bool

    @property
    def expected(self) -> str:
        return "has a value" if self.wanted else "has no value"

    def holds(self, values: Values) -> bool:
        return values.present is self.wanted


_Conditions = dict[str, _Condition]


@dataclass(frozen=True)
class _Rule:
    settings: RuleSettings
    match: _Conditions
    urgent: _Conditions
    channels: dict[str, _Conditions]


class RuleSet:
    """The rules in their order, checked.

    Raises
    ------
    SettingsError
        If a rule names an unknown keyword or a condition that can't be; the message names both.
    """

    def __init__(self, rules: Sequence[RuleSettings]) -> None:
        self._rules = [
            _Rule(
                rule,
                _conditions(f"rule '{rule.name}'", rule.match),
                _conditions(f"rule '{rule.name}', urgent", rule.urgent),
                {
                    channel: _conditions(f"rule '{rule.name}', channel '{channel}'", wanted)
                    for channel, wanted in rule.channels.items()
                },
            )
            for rule in rules
        ]

    @property
    def keywords(self) -> frozenset[str]:
        """All keywords that the rules look at."""
        return frozenset(
            keyword
            for rule in self._rules
            for conditions in (rule.match, rule.urgent, *rule.channels.values())
            for keyword in conditions
        )

    def expected(self, rule: RuleSettings) -> dict[str, str]:
        """Return for each channel of a rule of this set what it looks for, in words."""
        (found,) = (one for one in self._rules if one.settings.name == rule.name)
        return {
            channel: " and ".join(f"{keyword}: {one.expected}" for keyword, one in conditions.items())
            or "any series that the rule takes"
            for channel, conditions in found.channels.items()
        }

    def decide_file(self, path: Path) -> Decision:
        """Return the same as `decide` of a file, of which no more is read than the rules look at.

        Raises
        ------
        OSError, PARSE_ERRORS
            If it can't be read, or is no DICOM file.
        """
        return self.decide(read_before_pixels(path, self.keywords | _ASKED_OF_ALL))

    def decide(self, dataset: Dataset) -> Decision:
        """Return the first rule whose conditions all hold for `dataset`, and for every rule why or why not.

        Attributes of the file meta information are looked up in `dataset.file_meta`, if it has one. What a multi-frame
        CT, MR or PET does not say of itself is looked up in the functional groups of its first frame.
        """
        frame = first_frame_header(dataset)
        taker: RuleSettings | None = None
        explanations = []
        for rule in self._rules:
            explained = _explain(dataset, frame, rule.match)
            taken = taker is None and all(one.holds for one in explained)
            channels = tuple(
                ChannelExplanation(channel, _explain(dataset, frame, conditions))
                for channel, conditions in rule.channels.items()
            )
            urgent = _explain(dataset, frame, rule.urgent)
            explanation = RuleExplanation(rule.settings.name, taken, explained, channels, urgent)
            if taken:
                taker = rule.settings.put_first() if explanation.urgent else rule.settings
            explanations.append(explanation)
        return Decision(taker, tuple(explanations))


def _explain(dataset: Dataset, frame: Dataset, conditions: _Conditions) -> tuple[ConditionExplanation, ...]:
    explained = []
    for keyword, condition in conditions.items():
        values = read_values(dataset if keyword in dataset else frame, keyword)
        explained.append(ConditionExplanation(keyword, condition.expected, values.shown, condition.holds(values)))
    return tuple(explained)


def _conditions(of: str, wanted: Mapping[str, Any]) -> _Conditions:
    conditions = {}
    for keyword, value in wanted.items():
        try:
            conditions[keyword] = _condition(_representation(keyword), value)
        except ValueError as error:
            raise SettingsError(f"{of}, '{keyword}': {error}") from error
    return conditions


def _representation(keyword: str) -> str:
    """Return the value representation of the attribute that a rule may look at; ValueError if it may not."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        close = difflib.get_close_matches(keyword, keyword_dict, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else "; keywords are those of PS3.6, such as 'Modality'"
        raise ValueError(f"this is not a DICOM keyword{hint}")
    representation = dictionary_VR(tag)
    if representation == "SQ":
        raise ValueError("this is a sequence, and sequences can't be matched; choose an attribute that has a value")
    return representation


def _condition(representation: str, wanted: object) -> _Condition:
    if isinstance(wanted, Mapping):
        return _condition_of_table(representation, wanted)
    members = list(wanted) if isinstance(wanted, (list, tuple)) else [wanted]
    if not members:
        raise ValueError("the list is empty, so that nothing could match; name values, or leave the condition out")
    return _AnyOf(tuple(_member(representation, member) for member in members))


def _member(representation: str, member: object) -> str | float:
    if representation in _BINARY:
        raise ValueError("its values are bytes; only { present = true } or { present = false } can be asked")
    if isinstance(member, str):
        return member.strip(" \0")
    number = _number(member)
    if representation not in _NUMERIC:
        raise ValueError(f'its values are text; write the number as text: "{member}"')
    return number


def _condition_of_table(representation: str, table: Mapping[str, Any]) -> _Condition:
    keys = set(table)
    if keys == {"present"} and isinstance(table["present"], bool):
        return _Present(table["present"])
    if representation in _BINARY:
        raise ValueError("its values are bytes; only { present = true } or { present = false } can be asked")
    if keys == {"pattern"} and isinstance(table["pattern"], str):
        try:
            return _Matches(Pattern(table["pattern"]))
        except ValueError as error:
            raise ValueError(f"the pattern can't be used: {error}") from error
    if keys and keys <= {"minimum", "maximum"}:
        if representation not in _NUMERIC:
            raise ValueError("its values are text, which has no minimum and maximum; use a list or a pattern")
        minimum, maximum = (_number(table[key]) if key in table else None for key in ("minimum", "maximum"))
        if minimum is not None and maximum is not None and minimum > maximum:
            raise ValueError(f"the minimum ({minimum:g}) is above the maximum ({maximum:g})")
        return _Within(minimum, maximum)
    raise ValueError(
        'expected { minimum = number, maximum = number }, { pattern = "text" } or { present = true or false }'
    )


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
        raise ValueError(
            f"{value!r} can't be compared with a value; expected text, a number, a list of these, or a table such as "
            "{ present = true }"
        )
    return float(value)


def _shown(member: str | float) -> str:
    return f"'{member}'" if isinstance(member, str) else f"{member:g}"
