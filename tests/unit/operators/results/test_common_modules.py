"""Whose an object is is the source's, whatever that holds or lacks, in every kind of picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest

from operators.results.capture import write_captures
from operators.results.common_modules import display_rgb
from operators.results.finding import Finding, WrittenObject
from operators.results.notice_page import write_notice_page
from operators.results.presentation_state import write_presentation_state
from operators.results.structure_set import write_structure_set
from operators.sam.windowing import Window
from operators.source_identity import IDENTITY_KEYWORDS
from tests.phantom import setting
from tests.pictured_phantom import PHANTOM, pictured
from tests.segmented_phantom import ALGORITHM, LIVER, SPLEEN


def _notice(finding: Finding, path: Path) -> WrittenObject:
    return write_notice_page(
        finding.series.datasets,
        path,
        study_instance_uid=str(finding.source.StudyInstanceUID),
        series_instance_uid=str(finding.source.SeriesInstanceUID),
        identity=finding.identity,
        pipeline="organs",
        algorithm=ALGORITHM,
        outcome="failed",
        code="timeout",
        reason="it took too long",
    )


KINDS: dict[str, Callable[[Finding, Path], WrittenObject]] = {
    "structure set": write_structure_set,
    "presentation state": write_presentation_state,
    "capture": lambda finding, path: write_captures(finding, path.parent, Window(40, 400))[0],
    "notice page": _notice,
}
JAPANESE = "Yamada^Tarou=山田^太郎=やまだ^たろう"


@pytest.mark.parametrize("kind", KINDS)
def test_names_in_every_character_set_come_through(kind: str, tmp_path: Path) -> None:
    phantom = replace(PHANTOM, character_set=["", "ISO 2022 IR 87"], patient_name=JAPANESE)
    dataset = pydicom.dcmread(KINDS[kind](pictured(tmp_path / "ct", phantom).finding, tmp_path / "object.dcm").path)
    assert list(dataset.SpecificCharacterSet) == ["", "ISO 2022 IR 87"]
    assert str(dataset.PatientName) == JAPANESE


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_source_lacks_is_empty_and_what_it_has_is_the_same(kind: str, tmp_path: Path) -> None:
    lacking = ("PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyTime", "StudyDate")
    edit = setting(**dict.fromkeys(lacking), IssuerOfPatientID="HOSPITAL", PatientAge="063Y")
    one = pictured(tmp_path / "ct", edit=edit)
    dataset = pydicom.dcmread(KINDS[kind](one.finding, tmp_path / "object.dcm").path)
    for keyword in IDENTITY_KEYWORDS:
        assert dataset[keyword].value == ("" if keyword in lacking else one.finding.source[keyword].value) or (
            keyword in lacking and dataset[keyword].value is None
        )
    assert (dataset.IssuerOfPatientID, dataset.PatientAge) == ("HOSPITAL", "063Y")
    assert dataset.StudyInstanceUID == one.finding.source.StudyInstanceUID


@pytest.mark.parametrize("kind", KINDS)
def test_labels_in_other_letters_make_it_utf_8(kind: str, tmp_path: Path) -> None:
    segments = (replace(LIVER, label="肝臓"), *pictured(tmp_path / "ct").finding.segments[1:])
    one = pictured(tmp_path / "again", segments=segments)
    dataset = pydicom.dcmread(KINDS[kind](one.finding, tmp_path / "object.dcm").path)
    assert (dataset.get("SpecificCharacterSet") == "ISO_IR 192") == (kind != "notice page")


@pytest.mark.parametrize("kind", KINDS)
def test_neither_clock_nor_chance_is_in_it(kind: str, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(KINDS[kind](pictured(tmp_path / "ct").finding, tmp_path / "object.dcm").path)
    times = {
        str(element.value)
        for element in dataset.iterall()
        if element.VR in ("DA", "TM", "DT") and element.keyword not in ("PatientBirthDate", "StudyDate", "StudyTime")
    }
    assert times <= {"20240305", "101500", "20240305101500"}


def test_colours_that_could_be_taken_for_the_image_are_replaced() -> None:
    assert display_rgb(LIVER, 1) == LIVER.rgb
    for segment in (SPLEEN, replace(SPLEEN, rgb=(200, 200, 200))):
        red, green, blue = display_rgb(segment, 3)
        assert max(red, green, blue) - min(red, green, blue) > 40
