"""The figures that the chaos tests show: each is asserted, kept, and printed as a row of one table at the end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from pathlib import Path

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
"""Between these lines of the page is what the last long form showed."""


@dataclass(frozen=True)
class Figure:
    """One figure of one promise."""

    promise: str
    """What was done to the server, with its number on the page: `2. Disk full`."""
    what: str
    """What was counted or measured, with its unit."""
    goal: str
    seen: str


class Figures:
    """Shows figures; several processes of one run write to the same file."""

    def __init__(self, path: Path, *, is_full: bool) -> None:
        self._path = path
        self.is_full = is_full

    def of(self, *, short: int, full: int) -> int:
        """Return how often something is done: in the short form that every run of the tests has, or in the long one."""
        return full if self.is_full else short

    def show(
        self,
        promise: str,
        what: str,
        *,
        seen: float,
        most: float | None = None,
        least: float | None = None,
        exactly: float | None = None,
    ) -> None:
        """Keep a figure, then assert that it reaches its goal: exactly one of `most`, `least` and `exactly`."""
        bounds = {"at most": most, "at least": least, "exactly": exactly}
        (word, bound), *others = [(word, bound) for word, bound in bounds.items() if bound is not None]
        assert not others, "a figure has one goal"
        figure = Figure(promise, what, f"{word} {_text(bound)}", _text(seen))
        with self._path.open("a") as file:  # one short line: appended whole, whichever process writes
            file.write(json.dumps(asdict(figure)) + "\n")
        reached = {"at most": seen <= bound, "at least": seen >= bound, "exactly": seen == bound}[word]
        assert reached, f"{promise}: {what}: {figure.seen}, and the goal is {figure.goal}"


def read(path: Path) -> list[Figure]:
    """Return the figures of a run, in the order in which they were shown."""
    if not path.exists():
        return []
    return [Figure(**json.loads(line)) for line in path.read_text().splitlines()]


def as_table(figures: Sequence[Figure]) -> str:
    """Return the figures as a Markdown table, in the order of the promises' numbers."""
    rows = sorted(figures, key=lambda one: int(one.promise.split(".")[0]))
    lines = ["| What was done | Figure | Goal | Seen |", "|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {one.promise} | {one.what} | {one.goal} | {one.seen} |" for one in rows)])


@dataclass(frozen=True)
class Taken:
    """How the figures of a run were taken."""

    tests: int
    minutes: float
    where: str
    """When it began and on what machine, in words."""


def is_whole(exit_status: int, outcomes: Mapping[str, Sequence[object]]) -> bool:
    """Whether every test of a run passed: one that failed, was skipped, left out or never began has rows missing.

    `outcomes` are pytest's reports by what became of them. A run that was interrupted has none of what is left.
    """
    missing = ("failed", "error", "skipped", "xfailed", "deselected")
    return exit_status == 0 and not any(outcomes.get(one) for one in missing)


def is_of_all(asked: Sequence[str], ran: AbstractSet[str], files: AbstractSet[str]) -> bool:
    """Whether a run was of all tests: `ran` are the files that it was of, `files` those that have tests.

    `asked` is what the command line named; a test in a file is named after two colons.
    """
    return ran == files and not any("::" in one for one in asked)


def write_page(page: Path, figures: Sequence[Figure], taken: Taken) -> None:
    """Put the figures of a whole run into the page, and how they were taken, in the place of those of the last."""
    before, rest = page.read_text().split(BEGIN)
    after = rest.split(END)[1]
    how = f"All were taken in one run of {taken.tests} tests, which took {taken.minutes:.0f} minutes: {taken.where}"
    page.write_text(f"{before}{BEGIN}\n{how}\n\n{as_table(figures)}\n{END}{after}")


def _text(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}"
