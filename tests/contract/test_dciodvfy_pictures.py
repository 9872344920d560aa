"""dicom3tools' judgement of structure sets, pictures, presentation states and notice pages: no error in any.

dcentvfy says of every structure set that the study it refers to is missing among the instances: Referenced SOP Instance
UID of RT Referenced Study Sequence is a study's UID (PS3.3 C.8.8.5). That line alone is left out.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from operators.results.capture import write_captures
from operators.results.finding import Finding, PromptingObject
from operators.results.notice_page import write_notice_page
from operators.results.presentation_state import write_presentation_state
from operators.results.structure_set import write_structure_set
from operators.sam.windowing import Window
from tests.judges import run_dcentvfy, run_dciodvfy
from tests.peers import require
from tests.phantom import setting
from tests.pictured_phantom import AS_MR, ORIENTED, PHANTOM, Pictured, intricate_labels, pictured
from tests.segmented_phantom import ALGORITHM, no_labels
from tests.written_segmentation import write_segmentation

CASES = ORIENTED | {
    "japanese": replace(
        PHANTOM, character_set=["", "ISO 2022 IR 87"], patient_name="Yamada^Tarou=山田^太郎=やまだ^たろう"
    ),
    "rescaled otherwise slice by slice": replace(PHANTOM, slopes=(1.0, 2.0)),
}


@pytest.fixture(autouse=True)
def _judges() -> None:
    require("dciodvfy", "dcentvfy")


def _notice(finding: Finding, headers: list[Dataset], path: Path) -> Path:
    return write_notice_page(
        headers,
        path,
        study_instance_uid=str(finding.source.StudyInstanceUID),
        series_instance_uid=str(finding.source.SeriesInstanceUID),
        identity="identity",
        pipeline="organs",
        algorithm=ALGORITHM,
        outcome="refused",
        code="slice-missing",
        reason="expected a slice every 2.50 mm, and one is missing; send the whole series",
    ).path


def _all_kinds(one: Pictured, folder: Path) -> list[Path]:
    finding = one.finding
    return [
        write_structure_set(finding, folder / "structures.dcm").path,
        write_presentation_state(finding, folder / "state.dcm").path,
        *(each.path for each in write_captures(finding, folder, Window(40, 400))[:2]),
        _notice(finding, list(finding.series.datasets), folder / "notice.dcm"),
    ]


def _entity_errors(one: Pictured, paths: list[Path]) -> list[str]:
    said = run_dcentvfy([*one.files, *paths]).splitlines()
    study = f"Missing SOPInstanceUID that was referenced - {one.finding.source.StudyInstanceUID} "
    return [line for line in said if study not in line]


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("name", CASES)
def test_no_error_in_any_kind(name: str, modality: str, tmp_path: Path) -> None:
    one = pictured(tmp_path / "series", CASES[name], edit=AS_MR if modality == "MR" else None)
    paths = _all_kinds(one, tmp_path)
    assert {path.name: run_dciodvfy(path) for path in paths} == {path.name: [] for path in paths}
    assert _entity_errors(one, paths) == []


@pytest.mark.parametrize("paint", [no_labels, intricate_labels])
def test_no_error_where_nothing_was_found_or_the_source_lacks_type_2_attributes(paint: object, tmp_path: Path) -> None:
    edit = setting(
        PatientBirthDate=None, PatientSex=None, AccessionNumber=None, StudyID=None, StudyTime=None, StudyDate=None
    )
    one = pictured(tmp_path / "ct", edit=edit, paint=no_labels if paint is no_labels else intricate_labels)
    for path in _all_kinds(one, tmp_path):
        assert run_dciodvfy(path) == []


def test_no_error_beside_the_segmentation_that_prompted_them(tmp_path: Path) -> None:
    one = pictured(tmp_path / "ct")
    finding = one.finding
    first = write_segmentation(
        finding.labels,
        finding.series,
        finding.segments,
        ALGORITHM,
        identity="first",
        series_description="organs",
        path=tmp_path / "first.dcm",
    )
    prompted = replace(one, finding=replace(finding, prompted_by=[PromptingObject.of("first")], is_automatic=False))
    paths = _all_kinds(prompted, tmp_path)
    assert [run_dciodvfy(path) for path in paths] == [[]] * len(paths)
    assert _entity_errors(one, [*paths, first.path]) == []


def test_no_error_in_a_notice_page_of_a_series_that_can_not_be_read(tmp_path: Path) -> None:
    header = PHANTOM.dataset(0)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "FrameOfReferenceUID", "Rows"):
        del header[keyword]
    one = pictured(tmp_path / "ct")
    assert run_dciodvfy(_notice(one.finding, [header], tmp_path / "bad.dcm")) == []
    assert run_dciodvfy(_notice(one.finding, [Dataset()], tmp_path / "worse.dcm")) == []


def test_no_error_in_those_of_the_real_ct(abdominal_ct: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "objects"
    folder.mkdir()
    one = pictured(tmp_path / "ct")  # for its segments
    from operators.series_volume import read_series

    series = read_series(abdominal_ct)
    labels = series.volume.with_array(intricate_labels(series.volume.spatial_shape))
    real = Pictured(replace(one.finding, series=series, labels=labels), abdominal_ct, one.record)
    paths = _all_kinds(real, folder)
    assert [run_dciodvfy(path) for path in paths] == [[]] * len(paths)
    assert _entity_errors(real, paths) == []
    assert pydicom.dcmread(paths[0]).Modality == "RTSTRUCT"
