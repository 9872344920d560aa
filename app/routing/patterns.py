"""Regular expressions from the settings, checked so that no received value can make one run for minutes.

Python's engine backtracks: ``(a+)+b`` on thirty letters takes hours. The patterns of rules are short and plain, so that
those that can do so are refused, rather than a second engine taken in.
"""

from __future__ import annotations

import re

MAXIMUM_PATTERN_LENGTH = 256
MAXIMUM_VALUE_LENGTH = 1024
"""Longer values match no pattern."""
MAXIMUM_VALUE_LENGTH_MANY = 256
"""The same for patterns with more than two repeats: time grows with the length to the power of their number."""
MAXIMUM_REPEATS = 4

_TOKEN = re.compile(
    r"""\\.                          # an escaped character
      | \[\^?\]?(?:\\.|[^\]\\])*\]   # a character class; a ']' that comes first belongs to it
      | \((?:\?\#[^)]*\))            # a comment
      | \( | \) | \|
      | (?:[*+]|\{\d*,\d*\}|\{\d+\})[?+]?  # a repeat, lazy or possessive too
      | .                            # anything else
    """,
    re.VERBOSE | re.DOTALL,
)


class Pattern:
    """A regular expression that must match a whole value.

    Raises
    ------
    ValueError
        If it is not one, is longer than 256 characters, repeats a group that itself repeats or branches, or has more
        than four repeats (``*``, ``+``, ``{2,5}``).
    """

    def __init__(self, text: str) -> None:
        if len(text) > MAXIMUM_PATTERN_LENGTH:
            raise ValueError(f"it has {len(text)} characters, and {MAXIMUM_PATTERN_LENGTH} are allowed")
        try:
            self._compiled = re.compile(text)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"it is not a regular expression: {error}") from error
        self.text = text
        repeats = _count_repeats(text)
        if repeats > MAXIMUM_REPEATS:
            raise ValueError(f"it has {repeats} repeats (such as '*' and '+'), and {MAXIMUM_REPEATS} are allowed")
        self._longest = MAXIMUM_VALUE_LENGTH if repeats <= 2 else MAXIMUM_VALUE_LENGTH_MANY

    def matches(self, value: str) -> bool:
        """Whether the whole of `value` matches; never for values of more than 1024 (or 256) characters."""
        return len(value) <= self._longest and self._compiled.fullmatch(value) is not None


def _count_repeats(text: str) -> int:
    """Count the repeats in a pattern that compiles; refuse those of groups that repeat or branch inside."""
    repeats = 0
    inside = [False]  # for each open group: whether it repeats or branches so far
    closed = False  # the same for the group that has just been closed
    for part in _TOKEN.findall(text):
        if part[0] in "*+" or (part[0] == "{" and len(part) > 1):
            if closed:
                raise ValueError("it repeats a group that repeats or branches inside, which can run for hours")
            if "," in part or part[0] != "{":  # {4} alone leaves nothing to try
                repeats += 1
                inside[-1] = True
        elif part == "|":
            inside[-1] = True
        closed = False
        if part == "(":
            inside.append(False)
        elif part == ")" and len(inside) > 1:
            closed = inside.pop()
            inside[-1] = inside[-1] or closed
    return repeats
