"""docs/reference/audit.md says what app/audit does."""

import re
from pathlib import Path

from app.audit.chain import GENESIS, chain, compose
from app.audit.events import DETAIL_KEYS, AuditEvent, Code, Outcome

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs/reference/audit.md").read_text()


def rows_of(section: str) -> list[list[str]]:
    """Return the cells of the table under a heading, without its head."""
    text = PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return rows[2:]


def shown(code: Code | None) -> str:
    return "" if code is None else f"{code.code} {code.scheme}, {code.meaning}"


def test_the_events_are_those_of_the_code() -> None:
    expected = [
        [f"`{event.name}`", shown(event.event_id), shown(event.event_type), event.written] for event in AuditEvent
    ]
    assert rows_of("Events") == expected


def test_the_detail_keys_are_those_of_the_code() -> None:
    assert rows_of("Detail") == [[f"`{key}`", meaning] for key, meaning in DETAIL_KEYS.items()]


def test_every_member_of_a_record_is_described() -> None:
    line, _ = chain(compose(AuditEvent.JOB_CREATED, Outcome.SUCCESS, {}), GENESIS)
    described = {name for row in rows_of("A record") for name in re.findall(r"`(\w+)`", row[0])}
    assert described == set(re.findall(r'"(\w+)":', line.decode())) - {"code", "scheme", "meaning"}


def test_the_outcomes_are_those_of_the_code() -> None:
    for outcome in Outcome:
        assert f"{outcome.value} {outcome.name.lower().replace('_', ' ')}" in PAGE
