"""dicom3tools' judgement of our Segmentations: no error in the object, none between it and its source series."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from operators.derived_uids import generalist_identity
from operators.results.finding import PromptingObject
from tests.judges import run_dcentvfy, run_dciodvfy
from tests.peers import require
from tests.phantom import CORONAL, OBLIQUE, Phantom, setting
from tests.segmented_phantom import ALGORITHM, MANY_SEGMENTS, SEGMENTS, many_labels, no_labels, write_segmented
from tests.written_segmentation import write_segmentation

PHANTOM = Phantom()
CASES = {
    "axial": PHANTOM,
    "coronal": replace(PHANTOM, orientation=CORONAL),
    "oblique": replace(PHANTOM, orientation=OBLIQUE, against_normal=True),
    "japanese": replace(
        PHANTOM, character_set=["", "ISO 2022 IR 87"], patient_name="Yamada^Tarou=山田^太郎=やまだ^たろう"
    ),
    "korean": replace(PHANTOM, character_set=["", "ISO 2022 IR 149"], patient_name="Hong^Gildong=洪^吉洞=홍^길동"),
    "utf-8": replace(PHANTOM, character_set="ISO_IR 192", patient_name="Wang^XiaoDong=王^小東"),
}


@pytest.fixture(autouse=True)
def _judges() -> None:
    require("dciodvfy", "dcentvfy")


@pytest.mark.parametrize("name", CASES)
def test_no_error_in_a_phantoms_segmentation(name: str, tmp_path: Path) -> None:
    files = CASES[name].write(tmp_path / "ct")
    written, _, _ = write_segmented(files, tmp_path / "seg.dcm")
    assert run_dciodvfy(written.path) == []
    assert run_dcentvfy([*files, written.path]) == ""


def test_no_error_in_the_real_cts_segmentation(abdominal_ct: list[Path], tmp_path: Path) -> None:
    written, _, _ = write_segmented(abdominal_ct, tmp_path / "seg.dcm")
    assert run_dciodvfy(written.path) == []
    assert run_dcentvfy([*abdominal_ct, written.path]) == ""


def test_no_error_in_an_empty_one(tmp_path: Path) -> None:
    files = PHANTOM.write(tmp_path / "ct")
    written, _, _ = write_segmented(files, tmp_path / "seg.dcm", paint=no_labels)
    assert run_dciodvfy(written.path) == []
    assert run_dcentvfy([*files, written.path]) == ""


def test_no_error_in_one_of_more_segments_than_a_byte_counts(tmp_path: Path) -> None:
    files = PHANTOM.write(tmp_path / "ct")
    written, _, _ = write_segmented(files, tmp_path / "seg.dcm", paint=many_labels, segments=MANY_SEGMENTS)
    assert run_dciodvfy(written.path) == []
    assert run_dcentvfy([*files, written.path]) == ""


def test_no_error_from_a_source_that_lacks_type_2_attributes(tmp_path: Path) -> None:
    edit = setting(
        PatientBirthDate=None, PatientSex=None, AccessionNumber=None, StudyID=None, StudyTime=None, StudyDate=None
    )
    written, _, _ = write_segmented(PHANTOM.write(tmp_path / "ct", edit=edit), tmp_path / "seg.dcm")
    assert run_dciodvfy(written.path) == []


def test_no_error_in_one_that_names_the_segmentation_that_prompted_it(tmp_path: Path) -> None:
    files = PHANTOM.write(tmp_path / "ct")
    first, series, labels = write_segmented(files, tmp_path / "seg.dcm")
    prompted = write_segmentation(
        labels,
        series,
        SEGMENTS,
        ALGORITHM,
        identity=generalist_identity("identity"),
        series_description="organs",
        path=tmp_path / "prompted.dcm",
        prompted_by=[PromptingObject.of("identity")],
    )
    assert run_dciodvfy(prompted.path) == []
    assert run_dcentvfy([*files, first.path, prompted.path]) == ""
