"""Tampering in every way is found, and the record is named."""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.audit.chain import HEAD_NAME, LOG_NAME, Link, chain, compose
from app.audit.events import AuditEvent, Outcome
from app.audit.log import AuditLog
from app.audit.verification import verify
from app.errors import AuditError

COUNT = 12


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[bytes], bytes]:
    folder = tmp_path_factory.mktemp("written")
    with AuditLog(folder) as log:
        for number in range(COUNT):
            log.append(AuditEvent.JOB_CREATED, instances=number, reason="ü" * (number % 4))
    return (folder / LOG_NAME).read_bytes().splitlines(keepends=True), (folder / HEAD_NAME).read_bytes()


@pytest.fixture(scope="module")
def problems(
    tmp_path_factory: pytest.TempPathFactory, written: tuple[list[bytes], bytes]
) -> Callable[[list[bytes]], tuple[str, ...]]:
    """Return what `verify` finds in a log of these lines beside the untouched head."""

    def find(lines: list[bytes]) -> tuple[str, ...]:
        folder = tmp_path_factory.mktemp("tampered")
        (folder / LOG_NAME).write_bytes(b"".join(lines))
        (folder / HEAD_NAME).write_bytes(written[1])
        report = verify(folder)
        assert report.ok == (not report.problems)
        return report.problems

    return find


def rehashed(line: bytes, **changes: object) -> bytes:
    """Return a record with changes and a hash of its own that is right."""
    record = json.loads(line) | changes
    place = Link(record.pop("sequence") - 1, record.pop("previous"))
    record.pop("hash")
    return chain(record, place)[0]


def named(problems: tuple[str, ...]) -> set[int]:
    """Return the numbers of all records that the problems are about."""
    found: set[int] = set()
    for problem in problems:
        for first, last in re.findall(r"^records? (\d+)(?: to (\d+))?", problem):
            found |= set(range(int(first), int(last or first) + 1))
    return found


Problems = Callable[[list[bytes]], tuple[str, ...]]
Written = tuple[list[bytes], bytes]


def test_an_untouched_log_is_right(problems: Problems, written: Written) -> None:
    assert problems(written[0]) == ()


@settings(max_examples=200)
@given(data=st.data())
def test_an_edited_byte_is_found(problems: Problems, written: Written, data: st.DataObject) -> None:
    lines = list(written[0])
    index = data.draw(st.integers(0, COUNT - 1))
    line = bytearray(lines[index])
    position = data.draw(st.integers(0, len(line) - 2))  # the line feed is looked at below
    line[position] ^= data.draw(st.integers(1, 255))
    lines[index] = bytes(line)
    assert index + 1 in named(problems(lines))
    if b"\n" not in line[:-1]:
        assert problems(lines) == (f"record {index + 1} (line {index + 1}) was edited: it no longer has its hash",)


@pytest.mark.parametrize("index", range(COUNT))
def test_a_lost_line_feed_is_found(problems: Problems, written: Written, index: int) -> None:
    lines = list(written[0])
    lines[index] = lines[index][:-1] + b" "
    found = problems(lines)
    assert named(found) & {index + 1, index + 2}
    if index == COUNT - 1:
        assert any("incomplete" in problem for problem in found)


@settings(max_examples=60)
@given(first=st.integers(0, COUNT - 1), count=st.integers(1, COUNT))
def test_deleted_records_are_named(problems: Problems, written: Written, first: int, count: int) -> None:
    lines = list(written[0])
    gone = set(range(first + 1, min(first + count, COUNT) + 1))
    del lines[first : first + count]
    found = problems(lines)
    assert named(found) == gone
    at_end = first + count >= COUNT
    assert len(found) == 1
    assert found[0].endswith("the end of the log was cut off" if at_end else "deleted")


@settings(max_examples=80)
@given(pair=st.sets(st.integers(0, COUNT - 1), min_size=2, max_size=2))
def test_swapped_records_are_named(problems: Problems, written: Written, pair: set[int]) -> None:
    one, other = sorted(pair)
    lines = list(written[0])
    lines[one], lines[other] = lines[other], lines[one]
    found = problems(lines)
    assert any("wrong place" in problem for problem in found)
    assert named(found) <= {one + 1, other + 1} or other - one == 2  # of three, either end may be taken as moved
    assert named(found)


@settings(max_examples=60)
@given(data=st.data())
def test_inserted_records_are_found(problems: Problems, written: Written, data: st.DataObject) -> None:
    lines = list(written[0])
    index = data.draw(st.integers(0, COUNT - 1))  # in front of this line
    source = data.draw(st.integers(0, COUNT - 1))
    forged = data.draw(
        st.sampled_from(
            [
                lines[source],  # an old one again
                rehashed(lines[index], outcome=8),  # one that continues the chain here
                rehashed(lines[source], sequence=data.draw(st.integers(1, 1 << 40))),
                b"{}\n",
                b"not JSON\n",
                b"\n",
                b"[" * 5000 + b"\n",
            ]
        )
    )
    lines.insert(index, forged)
    found = problems(lines)
    if lines[index] == lines[index + 1]:
        assert index + 1 in named(found)
    assert any("insert" in problem or "wrong place" in problem for problem in found), found


def test_a_record_inserted_at_the_end_is_found(problems: Problems, written: Written) -> None:
    lines = list(written[0])
    record = compose(AuditEvent.JOB_CLOSED, Outcome.SUCCESS, {})
    forged, _ = chain(record, Link(COUNT, json.loads(lines[-1])["hash"]))
    assert f"records after {COUNT}, up to {COUNT + 1}" in problems([*lines, forged])[0]


@pytest.mark.parametrize("index", range(COUNT))
def test_an_edited_record_with_a_new_hash_is_named(problems: Problems, written: Written, index: int) -> None:
    lines = list(written[0])
    lines[index] = rehashed(lines[index], outcome=8)
    assert problems(lines) == (
        f"record {index + 1} (line {index + 1}) was replaced: it is not the one the chain names",
    )


def test_all_rewritten_from_a_record_on_contradicts_the_head(problems: Problems, written: Written) -> None:
    lines = list(written[0])
    link = Link(4, json.loads(lines[3])["hash"])
    for index in range(4, COUNT):
        record = json.loads(lines[index])
        for member in ("sequence", "previous", "hash"):
            record.pop(member)
        lines[index], link = chain(record | {"outcome": 8}, link)
    assert named(problems(lines)) == {COUNT}


def test_a_chain_that_begins_elsewhere_is_found(problems: Problems, written: Written) -> None:
    lines = list(written[0])
    lines[0] = rehashed(lines[0], previous="f" * 64)
    assert 1 in named(problems(lines))


def test_several_edits_are_all_named(problems: Problems, written: Written) -> None:
    lines = list(written[0])
    for index in (1, 5, 6, 11):
        lines[index] = lines[index].replace(b'"outcome":0', b'"outcome":4')
    del lines[8]
    assert named(problems(lines)) == {2, 6, 7, 9, 12}


def test_random_tampering_is_always_found(problems: Problems, written: Written) -> None:
    random.seed(7)
    for _ in range(150):
        lines = list(written[0])
        for _ in range(random.randint(1, 3)):
            index = random.randrange(len(lines))
            act = random.choice(["edit", "delete", "move", "repeat"])
            if act == "edit":
                lines[index] = lines[index].replace(b"JOB_CREATED", b"JOB_CLOSED ", 1)
            elif act == "delete":
                del lines[index]
            elif act == "move":
                lines.insert(random.randrange(len(lines)), lines.pop(index))
            else:
                lines.insert(random.randrange(len(lines)), lines[index])
        assert bool(problems(lines)) == (lines != written[0])


def test_a_long_list_of_problems_is_shortened(tmp_path: Path) -> None:
    with AuditLog(tmp_path) as log:
        log.append(AuditEvent.JOB_CREATED)
    (tmp_path / LOG_NAME).write_bytes(b"x\n" * 1000)
    found = verify(tmp_path).problems
    assert len(found) == 101
    assert found[-1] == "and 900 problems more"


def test_no_log_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="there is no audit log in"):
        verify(tmp_path)


def test_a_new_log_is_right_and_empty(tmp_path: Path) -> None:
    with AuditLog(tmp_path):
        pass
    assert (verify(tmp_path).ok, verify(tmp_path).records) == (True, 0)
