"""The figures that the chaos tests show: each is asserted, kept, and printed as a row of one table at the end."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
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


def is_whole(exit_status: int, outcomes: Mapping[str, Sequence[object]]) -> bool:
    """Whether every test of a run passed: one that failed, was skipped or never began has rows missing.

    `outcomes` are pytest's reports by what became of them. A run that was interrupted has none of what is left.
    """
    return exit_status == 0 and not any(outcomes.get(one) for one in ("failed", "error", "skipped", "xfailed"))


def write_page(page: Path, figures: Sequence[Figure]) -> None:
    """Put the figures of a run into the page, in the place of those of the same promises."""
    before, rest = page.read_text().split(BEGIN)
    table, after = rest.split(END)
    kept = [
        Figure(*(cell.strip() for cell in line.strip("|").split("|")))
        for line in table.splitlines()[2:]
        if re.match(r"\| \d", line)
    ]
    fresh = {one.promise for one in figures}
    whole = as_table([*(one for one in kept if one.promise not in fresh), *figures])
    page.write_text(f"{before}{BEGIN}\n{whole}\n{END}{after}")


def _text(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}"
