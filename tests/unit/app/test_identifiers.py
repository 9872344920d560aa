"""Names that come from outside, and UIDs derived from facts."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import uid as pydicom_uid
from pydicom.config import IGNORE

from app.identifiers import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    derive_uid,
    derive_uuid,
    parse_ae_title,
    parse_uid,
)

REPOSITORY = Path(__file__).resolve().parents[3]

components = st.one_of(st.just("0"), st.from_regex(r"[1-9][0-9]{0,9}", fullmatch=True))
uids = st.lists(components, min_size=1, max_size=12).map(".".join).filter(lambda text: len(text) <= 64)


@given(uids, st.sampled_from(["", "\0", " ", "\0\0"]))
def test_uids_are_taken_without_their_padding(text: str, padding: str) -> None:
    assert parse_uid(text + padding) == text


@given(st.text())
def test_a_text_is_a_uid_as_pydicom_says_or_is_refused(text: str) -> None:
    try:
        parsed = parse_uid(text)
    except ValueError:
        assert not pydicom_uid.UID(text.rstrip("\0 "), validation_mode=IGNORE).is_valid
    else:
        assert pydicom_uid.UID(parsed).is_valid
        assert re.fullmatch(r"[0-9.]{1,64}", parsed)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ".",
        "1.",
        ".1",
        "1..2",
        "01.2",
        "1.02",
        "1.2a",
        "1/2",
        "../../etc/passwd",
        "1" * 65,
        "1.2\n",
        "١.٢",
        " 1.2",
    ],
)
def test_what_is_no_uid_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="not a DICOM UID") as caught:
        parse_uid(text)
    assert len(text) < 3 or text not in str(caught.value)


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters="\\"), max_size=20))
def test_ae_titles_are_printable_ascii_of_1_to_16_characters(text: str) -> None:
    stripped = text.strip(" ")
    if 1 <= len(stripped) <= 16:
        assert parse_ae_title(text) == stripped
    else:
        with pytest.raises(ValueError, match="application entity title"):
            parse_ae_title(text)


@given(st.text())
def test_no_other_text_passes_as_an_ae_title(text: str) -> None:
    try:
        title = parse_ae_title(text)
    except ValueError:
        return
    assert title.isascii()
    assert title.isprintable()
    assert "\\" not in title
    assert 1 <= len(title) <= 16


@pytest.mark.parametrize("text", ["A\\B", "A\tB", "A\nB", "Ä", "A" * 17, "", "   ", "A\0"])
def test_what_is_no_ae_title_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="application entity title"):
        parse_ae_title(text)


@given(st.lists(st.text(max_size=20), max_size=5))
def test_derived_uids_are_uids_and_the_same_each_time(facts: list[str]) -> None:
    uid = derive_uid(*facts)
    assert parse_uid(uid) == uid
    assert pydicom_uid.UID(uid).is_valid
    assert uid == derive_uid(*facts)
    assert uid == f"2.25.{derive_uuid(*facts).int}"


texts = st.text(st.characters(codec="utf-8", exclude_characters="\x1f"), max_size=10)


@given(st.lists(texts, min_size=1, max_size=4), st.lists(texts, min_size=1, max_size=4))
def test_other_facts_give_another_uid(one: list[str], other: list[str]) -> None:
    assert (derive_uid(*one) == derive_uid(*other)) == (one == other)


def test_derived_uids_are_the_same_on_any_machine_and_in_every_version() -> None:
    assert derive_uid("a", "b") == "2.25.33928280980511054571177805096626847207"
    assert derive_uid("ab") != derive_uid("a", "b") != derive_uid("b", "a")
    code = "from app.identifiers import derive_uid; print(derive_uid('a', 'b'))"
    other = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == derive_uid("a", "b")


def test_what_the_implementation_calls_itself() -> None:
    assert parse_uid(IMPLEMENTATION_CLASS_UID) == IMPLEMENTATION_CLASS_UID
    assert 1 <= len(IMPLEMENTATION_VERSION_NAME) <= 16
