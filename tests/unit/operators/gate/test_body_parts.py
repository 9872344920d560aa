import pytest
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from operators.gate import body_parts
from operators.gate.body_parts import examined, regions_of


@pytest.mark.parametrize(
    ("one", "other", "fits"),
    [
        ("liver", "ABDOMEN", True),
        ("abdomen", "CHESTABDPELVIS", True),
        ("Chest, Abdomen and Pelvis", "CHESTABDPELVIS", True),
        ("ABDOMEN_PELVIS", "Abdomen Pelvis", True),
        ("abdomen", "WHOLEBODY", True),
        ("abdomen", "CHEST", False),
        ("abdomen", "HEAD", False),
        ("brain", "HEADNECK", True),
        ("knee", "EXTREMITY", True),
    ],
)
def test_terms_fit_where_their_regions_meet(one: str, other: str, fits: bool) -> None:
    assert bool(regions_of(one) & regions_of(other)) is fits


@pytest.mark.parametrize("term", ["", "PARTIALBODY", "UNKNOWN", "???", "and"])
def test_other_terms_say_nothing(term: str) -> None:
    assert regions_of(term) == frozenset()


def _coded(value: str, scheme: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, "Anything"
    header = Dataset()
    header.AnatomicRegionSequence = [code]
    return header


@pytest.mark.parametrize(
    ("value", "scheme", "term"),
    [
        ("818981001", "SCT", "ABDOMEN"),
        ("T-D4000", "SRT", "ABDOMEN"),
        ("T-D3000", "SNM3", "CHEST"),
        ("R-FAB56", "SRT", "CHESTABDPELVIS"),
        ("T-62000", "SRT", "LIVER"),
        ("818981001", "99OURS", None),
        ("1234", "SCT", None),
    ],
)
def test_coded_regions_are_known_by_old_and_new_codes(value: str, scheme: str, term: str | None) -> None:
    assert list(examined(_coded(value, scheme))) == ([] if term is None else [term])


def test_codes_mean_what_the_standard_says() -> None:
    named = {getattr(codes.cid4030, name).value: name for name in codes.cid4030.dir()}
    known = {value: term for value, term in body_parts._TERM_OF_CODE.items() if value in named}
    assert len(known) > 25
    differing = {
        value: (term, named[value])
        for value, term in known.items()
        if regions_of(term) != regions_of(_spaced(named[value]))
    }
    assert differing == {}


def _spaced(name: str) -> str:
    """ChestAbdomenAndPelvis as Chest Abdomen And Pelvis."""
    return "".join(f" {letter}" if letter.isupper() else letter for letter in name)


def test_an_image_without_any_statement() -> None:
    header = Dataset()
    assert examined(header) == {}
    header.BodyPartExamined = ""
    assert examined(header) == {}
