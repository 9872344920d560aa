"""Rules: what each condition means, which rule takes a data set, and what is said of settings that can't be used."""

import datetime
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from app.errors import SettingsError
from app.routing.rules import RuleSet
from app.settings import load_settings
from app.settings_pipeline import URGENT_PRIORITY, RuleSettings
from operators.headers import LONGEST_BYTES
from tests.multi_frame import enhanced
from tests.phantom import Phantom


def rule(name: str = "rule", **match: Any) -> RuleSettings:
    return RuleSettings(name=name, pipeline="pipeline", destinations=("archive",), match=match)


def ct() -> Dataset:
    dataset = Dataset()
    dataset.Modality = "CT"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SeriesDescription = "Abdomen venous  "
    dataset.SliceThickness = "1.50"
    dataset.SeriesNumber = "4"
    dataset.PixelSpacing = ["0.7", "0.8"]
    dataset.Rows = 512
    dataset.StudyInstanceUID = "1.2.3"
    dataset.PatientName = "Yamada^Tarou=山田^太郎"
    dataset.StationName = ""
    dataset.PatientComments = " leading"
    dataset.EthnicGroup = None
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.add_new("PixelData", "OW", b"\0\0")
    encoded = BytesIO()
    dataset.save_as(encoded, implicit_vr=False, little_endian=True)
    encoded.seek(0)
    return dcmread(encoded, force=True)  # as it comes: padded, and each value still to be converted


def takes(**match: Any) -> bool:
    return RuleSet([rule(**match)]).decide(ct()).rule is not None


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ({}, True),
        ({"Modality": "CT"}, True),
        ({"Modality": "ct"}, False),
        ({"Modality": "CT "}, True),
        ({"Modality": ["MR", "CT"]}, True),
        ({"Modality": ["MR", "PT"]}, False),
        ({"ImageType": "PRIMARY"}, True),
        ({"ImageType": "PRIM"}, False),
        ({"SeriesDescription": "Abdomen venous"}, True),
        ({"SeriesDescription": {"pattern": "(?i)abdomen.*"}}, True),
        ({"SeriesDescription": {"pattern": "Abdomen"}}, False),
        ({"ImageType": {"pattern": "AX.*|COR.*"}}, True),
        ({"SliceThickness": 1.5}, True),
        ({"SliceThickness": "1.50"}, True),
        ({"SliceThickness": "1.5"}, False),
        ({"SliceThickness": {"minimum": 1.5}}, True),
        ({"SliceThickness": {"maximum": 1.5}}, True),
        ({"SliceThickness": {"minimum": 1.6, "maximum": 3}}, False),
        ({"SeriesNumber": 4}, True),
        ({"SeriesNumber": [1, 4.0]}, True),
        ({"PixelSpacing": {"minimum": 0.75}}, True),
        ({"PixelSpacing": {"minimum": 0.85}}, False),
        ({"Rows": 512}, True),
        ({"Rows": "512"}, True),
        ({"Rows": {"pattern": "51."}}, True),
        ({"StudyInstanceUID": "1.2.3"}, True),
        ({"PatientName": "Yamada^Tarou=山田^太郎"}, True),
        ({"PatientComments": "leading"}, False),
        ({"PatientComments": {"pattern": " leading"}}, True),
        ({"StationName": {"present": False}}, True),
        ({"StationName": {"present": True}}, False),
        ({"StationName": ""}, False),
        ({"EthnicGroup": {"present": False}}, True),
        ({"BodyPartExamined": {"present": False}}, True),
        ({"BodyPartExamined": "LIVER"}, False),
        ({"Modality": {"present": True}}, True),
        ({"PixelData": {"present": True}}, True),
        ({"TransferSyntaxUID": {"present": False}}, True),
        ({"Modality": "CT", "SliceThickness": {"maximum": 1}}, False),
    ],
)
def test_conditions(match: dict[str, Any], expected: bool) -> None:
    assert takes(**match) is expected


def test_file_meta_information_is_looked_at() -> None:
    dataset = ct()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    assert RuleSet([rule(TransferSyntaxUID="1.2.840.10008.1.2.1")]).decide(dataset).rule is not None


def test_the_first_rule_takes_it_and_the_others_are_explained() -> None:
    rules = [rule("mr", Modality="MR"), rule("thin", Modality="CT", SliceThickness={"maximum": 2}), rule("any")]
    decision = RuleSet(rules).decide(ct())
    assert decision.rule is rules[1]
    assert [(one.rule, one.taken, one.holds) for one in decision.explanations] == [
        ("mr", False, False),
        ("thin", True, True),
        ("any", False, True),
    ]
    shown = [(one.keyword, one.expected, one.found, one.holds) for one in decision.explanations[1].conditions]
    assert shown == [("Modality", "'CT'", "'CT'", True), ("SliceThickness", "at most 2", "'1.50'", True)]
    assert decision.explanations[0].conditions[0].expected == "'MR'"


def test_no_rule_applies() -> None:
    decision = RuleSet([rule(Modality="MR")]).decide(ct())
    assert decision.rule is None
    assert [one.taken for one in decision.explanations] == [False]
    assert RuleSet([]).decide(ct()).explanations == ()


@pytest.mark.parametrize(
    ("match", "expected", "found"),
    [
        ({"ImageType": ["A", "B"]}, "one of 'A', 'B'", "'ORIGINAL', 'PRIMARY', 'AXIAL'"),
        ({"SliceThickness": {"minimum": 0.5, "maximum": 3}}, "from 0.5 to 3", "'1.50'"),
        ({"SliceThickness": {"minimum": 0.5}}, "at least 0.5", "'1.50'"),
        ({"Modality": {"pattern": "C."}}, "matches the pattern 'C.'", "'CT'"),
        ({"StationName": {"present": True}}, "has a value", "no value"),
        ({"BodyPartExamined": {"present": False}}, "has no value", "not in the data set"),
        ({"PixelData": {"present": True}}, "has a value", "a value that can't be read"),
    ],
)
def test_explanations_are_words_for_people(match: dict[str, Any], expected: str, found: str) -> None:
    condition = RuleSet([rule(**match)]).decide(ct()).explanations[0].conditions[0]
    assert (condition.expected, condition.found) == (expected, found)


def test_long_values_are_shortened() -> None:
    dataset = Dataset()
    dataset.TextValue = "x" * 5000
    condition = RuleSet([rule(TextValue="y")]).decide(dataset).explanations[0].conditions[0]
    assert len(condition.found) < 100


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, with the values
@pytest.mark.parametrize(
    ("keyword", "representation", "value"),
    [
        ("SliceThickness", "DS", b"1.x "),
        ("SeriesNumber", "IS", b"four"),
        ("Rows", "US", b"123"),
        ("PixelBandwidth", "DS", b"\xff\xfe"),
        ("SliceThickness", "UN", b"1.50"),
        ("SliceThickness", "DS", b"nan "),
    ],
)
def test_values_that_break_their_representation_are_no_numbers_and_no_error(
    keyword: str, representation: str, value: bytes
) -> None:
    dataset = Dataset()
    tag = Tag(keyword)
    dataset[tag] = RawDataElement(tag, representation, len(value), value, 0, False, True)
    conditions: list[dict[str, Any]] = [{keyword: {"minimum": -1e300}}, {keyword: {"present": True}}]
    rules = RuleSet([rule(**condition) for condition in conditions])
    number, present = rules.decide(dataset).explanations
    assert present.holds
    assert number.holds is (representation == "UN")  # pydicom takes the keyword's own representation for it


@pytest.mark.parametrize(
    ("match", "message"),
    [
        ({"Modalty": "CT"}, "did you mean 'Modality'?"),
        ({"xxxxxxxx": "CT"}, "not a DICOM keyword"),
        ({"ReferencedSeriesSequence": {"present": True}}, "sequences can't be matched"),
        ({"Modality": 3}, 'write the number as text: "3"'),
        ({"Modality": True}, "can't be compared"),
        ({"Modality": []}, "the list is empty"),
        ({"Modality": ["CT", ["MR"]]}, "can't be compared"),
        ({"Modality": {}}, "expected { minimum"),
        ({"Modality": {"patern": "CT"}}, "expected { minimum"),
        ({"Modality": {"present": "yes"}}, "expected { minimum"),
        ({"Modality": {"pattern": "CT", "present": True}}, "expected { minimum"),
        ({"Modality": {"minimum": 3}}, "no minimum and maximum"),
        ({"SliceThickness": {"minimum": "3"}}, "can't be compared"),
        ({"SliceThickness": {"minimum": 3, "maximum": 2}}, "above the maximum"),
        ({"SliceThickness": float("nan")}, "can't be compared"),
        ({"PixelData": "a"}, "its values are bytes"),
        ({"PixelData": {"pattern": "a"}}, "its values are bytes"),
        ({"StudyDate": datetime.date(2026, 1, 1)}, "can't be compared"),
        ({"Modality": {"pattern": "("}}, "not a regular expression"),
        ({"Modality": {"pattern": "a" * 257}}, "257 characters"),
        ({"Modality": {"pattern": "(a+)+b"}}, "repeats a group"),
        ({"Modality": {"pattern": ".*.*.*.*.*"}}, "5 repeats"),
    ],
)
def test_what_cannot_be_used_is_said_with_rule_and_keyword(match: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        RuleSet([rule("good", Modality="CT"), rule("bad-one", **match)])
    assert str(caught.value).startswith(f"rule 'bad-one', '{next(iter(match))}': ")
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["(a|b)*", "((a)*b)*", "(?:a{2,})+", "(a|a){20}", "(x+x+)+y", r"(?i:\w+\s?)*"])
def test_patterns_that_could_run_for_hours_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="for hours"):
        RuleSet([rule(Modality={"pattern": text})])


@pytest.mark.parametrize(
    "text",
    [
        r"[+*(|)]{3}",
        r"(ab)+",
        r"\(a+\)+",
        "(?#a+)b+",
        "[]a+]+",
        r"(CT|MR)",
        r"\d{4}(-\d{2})?",
        "(?i).*liver.*",
        "a{b",
        "{a}",
    ],
)
def test_plain_patterns_are_taken(text: str) -> None:
    RuleSet([rule(Modality={"pattern": text})])


def test_the_worst_permitted_pattern_ends_soon() -> None:
    rules = RuleSet(
        [
            rule("two", TextValue={"pattern": ".*a.*ab"}),
            rule("four", TextValue={"pattern": ".*a.*a.*a.*ab"}),
        ]
    )
    for length in (256, 1024, 100_000):
        dataset = Dataset()
        dataset.TextValue = "a" * length
        start = time.monotonic()
        rules.decide(dataset)
        assert time.monotonic() - start < 60


@pytest.mark.parametrize(("urgent", "expected"), [({"Modality": "CT"}, True), ({"Modality": "MR"}, False), ({}, False)])
def test_what_is_urgent_has_the_priority_before_all_others(urgent: dict[str, Any], expected: bool) -> None:
    wanted = rule("wanted").model_copy(update={"urgent": urgent, "priority": 100})
    decision = RuleSet([rule("mr", Modality="MR").model_copy(update={"urgent": {"Modality": "CT"}}), wanted]).decide(
        ct()
    )
    assert decision.rule is not None
    assert (decision.rule.name, decision.urgent) == ("wanted", expected)
    assert decision.rule.priority == (URGENT_PRIORITY if expected else 100)
    assert [one.keyword for one in decision.explanations[1].urgent_conditions] == list(urgent)


def test_what_cannot_be_urgent_is_said_with_its_rule() -> None:
    with pytest.raises(SettingsError, match="rule 'rule', urgent, 'Modalty': .* did you mean 'Modality'"):
        RuleSet([rule().model_copy(update={"urgent": {"Modalty": "CT"}})])


def test_the_keywords_looked_at_are_known() -> None:
    assert RuleSet([rule("a", Modality="CT"), rule("b", Rows=1, Modality="MR")]).keywords == {"Modality", "Rows"}


def test_rules_as_written_in_a_settings_file(tmp_path: Path) -> None:
    (tmp_path / "limner.toml").write_text("""
        pipeline = [{ name = "liver", model = "nnunet_liver" }]
        destination = [{ name = "archive", ae_title = "ARCHIVE", host = "127.0.0.1", port = 104 }]
        [[rule]]
        name = "abdomen"
        pipeline = "liver"
        destinations = ["archive"]
        [rule.match]
        Modality = "CT"
        ImageType = ["ORIGINAL", "DERIVED"]
        SliceThickness = { minimum = 0.5, maximum = 3.0 }
        SeriesDescription = { pattern = "(?i).*venous.*" }
        StationName = { present = false }
    """)
    decision = RuleSet(load_settings(tmp_path / "limner.toml").rule).decide(ct())
    assert decision.rule is not None
    assert decision.rule.name == "abdomen"


@given(
    st.floats(-1e6, 1e6).map(lambda number: round(number, 4)),
    st.floats(-1e6, 1e6).map(lambda number: round(number, 4)),
    st.floats(-1e6, 1e6).map(lambda number: round(number, 4)),
)
def test_ranges_include_their_ends(number: float, one: float, other: float) -> None:
    low, high = sorted((one, other))
    dataset = Dataset()
    dataset.SliceLocation = number
    taken = RuleSet([rule(SliceLocation={"minimum": low, "maximum": high})]).decide(dataset).rule is not None
    assert taken == (low <= number <= high)
    assert RuleSet([rule(SliceLocation={"minimum": number, "maximum": number})]).decide(dataset).rule is not None


@given(
    st.lists(st.text("ABC_ 0123", min_size=1, max_size=8).map(str.strip).filter(bool), min_size=1, max_size=5),
    st.data(),
)
def test_any_of_several_values_matches_any_of_several_members(values: list[str], data: st.DataObject) -> None:
    members = data.draw(st.lists(st.text("ABC_ 0123", min_size=1, max_size=2).map(str.strip).filter(bool), min_size=1))
    dataset = Dataset()
    dataset.ImageType = values
    taken = RuleSet([rule(ImageType=members)]).decide(dataset).rule is not None
    assert taken == bool(set(values) & set(members))


@pytest.mark.parametrize(
    ("match", "holds"),
    [
        ({"SliceThickness": {"maximum": 3.0}}, True),
        ({"SliceThickness": {"maximum": 2.0}}, False),
        ({"FrameType": "DERIVED", "Modality": "CT", "NumberOfFrames": 4}, True),
        ({"RescaleType": "HU"}, True),
        ({"TransferSyntaxUID": str(ExplicitVRLittleEndian)}, True),
        ({"SamplingFrequency": {"present": False}}, True),
    ],
)
def test_an_enhanced_image_is_asked_of_its_first_frame_too(tmp_path: Path, match: dict[str, Any], holds: bool) -> None:
    dataset = enhanced(Phantom(), range(4))
    rules = RuleSet([rule(**match)])
    assert (rules.decide(dataset).rule is not None) == holds
    dataset.save_as(tmp_path / "enhanced.dcm", enforce_file_format=True)
    assert rules.decide_file(tmp_path / "enhanced.dcm") == rules.decide(dataset)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_a_file_is_decided_on_as_its_header_is(tmp_path: Path, syntax: UID) -> None:
    dataset = Phantom().dataset(0)
    dataset.add_new("SmallestImagePixelValue", "SS", -5)  # in Implicit VR something else says whether it has a sign
    dataset.PixelRepresentation = 1
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(tmp_path / "one.dcm", enforce_file_format=True)
    rules = RuleSet([rule(SmallestImagePixelValue=-5, Modality="CT", PatientName={"present": True})])
    decision = rules.decide_file(tmp_path / "one.dcm")
    assert decision.rule is not None
    assert decision == rules.decide(dcmread(tmp_path / "one.dcm", stop_before_pixels=True))


def test_a_very_long_value_is_present_and_not_read(tmp_path: Path) -> None:
    dataset = Phantom().dataset(0)
    dataset.add_new("EncapsulatedDocument", "OB", bytes(LONGEST_BYTES + 2))
    dataset.TextValue = "long" * LONGEST_BYTES
    dataset.save_as(tmp_path / "long.dcm", enforce_file_format=True)
    rules = RuleSet([rule(EncapsulatedDocument={"present": True}), rule(TextValue={"pattern": "(long)+"})])
    present, text = rules.decide_file(tmp_path / "long.dcm").explanations
    assert (present.holds, text.holds) == (True, False)
    assert text.conditions[0].found == "a value that is too long to be compared"


def test_an_enhanced_image_without_functional_groups_is_asked_of_itself() -> None:
    dataset = enhanced(Phantom(), range(4))
    del dataset.PerFrameFunctionalGroupsSequence
    assert RuleSet([rule(SliceThickness={"maximum": 3.0})]).decide(dataset).rule is None
    assert RuleSet([rule(Modality="CT")]).decide(dataset).rule is not None
