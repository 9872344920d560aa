"""Migrations only add: programs of two versions work on one schema while processes are upgraded one after the other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.jobs.migrations import FOLDER

_FIRST = 6
"""Those before are older than several processes."""
_TAKES_AWAY = {
    "drops a table": r"DROP\s+(TABLE|TYPE|VIEW|FUNCTION)",
    "drops a column": r"DROP\s+(COLUMN|DEFAULT)",
    "changes a type": r"ALTER\s+(COLUMN\s+)?\w+\s+(SET\s+DATA\s+)?TYPE",
    "renames": r"\bRENAME\b",
    "asks for a value that older programs do not give": r"SET\s+NOT\s+NULL",
    "empties": r"\bTRUNCATE\b|\bDELETE\s+FROM\b",
}


def problems(text: str) -> list[str]:
    """Say what a migration does that an older program would not stand."""
    bare = re.sub(r"--[^\n]*", "", text)
    found = [what for what, pattern in _TAKES_AWAY.items() if re.search(pattern, bare, re.IGNORECASE)]
    for column in re.findall(r"ADD\s+COLUMN\s+([^;,]+)", bare, re.IGNORECASE):
        if re.search(r"NOT\s+NULL", column, re.IGNORECASE) and not re.search(r"\bDEFAULT\b", column, re.IGNORECASE):
            found.append("adds a column that older programs would have to fill")
    dropped = set(re.findall(r"DROP\s+CONSTRAINT\s+(?:IF\s+EXISTS\s+)?(\w+)", bare, re.IGNORECASE))
    if dropped - set(re.findall(r"ADD\s+CONSTRAINT\s+(\w+)", bare, re.IGNORECASE)):
        found.append("drops a constraint without a wider one in its place")
    return found


@pytest.mark.parametrize("path", sorted(FOLDER.glob("[0-9]*.sql")), ids=lambda path: path.stem)
def test_a_migration_only_adds(path: Path) -> None:
    if int(path.stem[:3]) >= _FIRST:
        assert problems(path.read_text()) == []


def test_states_only_become_more() -> None:
    """A state that an older program may write must stay allowed."""
    earlier: dict[str, set[str]] = {}
    for one in sorted(FOLDER.glob("[0-9]*.sql")):
        for table, states in _states(one.read_text()):
            assert states >= earlier.get(table, set()), f"{one.name} forbids states of {table} that were allowed"
            earlier[table] = states
    assert set(earlier) >= {"jobs", "deliveries"}


def _states(text: str) -> list[tuple[str, set[str]]]:
    found = re.findall(r"ADD CONSTRAINT (\w+)_state_check CHECK \(state IN \(([^)]*)\)", text)
    return [(table, set(re.findall(r"'([\w-]+)'", states))) for table, states in found]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ALTER TABLE jobs ADD COLUMN note text NOT NULL DEFAULT '';", 0),
        ("ALTER TABLE jobs ADD COLUMN note text;", 0),
        ("CREATE TABLE notes (note text NOT NULL); -- never DROP TABLE", 0),
        ("ALTER TABLE jobs DROP CONSTRAINT c; ALTER TABLE jobs ADD CONSTRAINT c CHECK (true);", 0),
        ("ALTER TABLE jobs DROP COLUMN note;", 1),
        ("alter table jobs alter column note type integer;", 1),
        ("ALTER TABLE jobs RENAME COLUMN note TO remark;", 1),
        ("ALTER TABLE jobs ADD COLUMN note text NOT NULL;", 1),
        ("ALTER TABLE jobs DROP CONSTRAINT c;", 1),
        ("DROP TABLE jobs;", 1),
    ],
)
def test_what_takes_away_is_seen(text: str, found: int) -> None:
    assert len(problems(text)) == found
