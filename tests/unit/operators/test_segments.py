"""dcmqi's metainfo JSON as segments, and as highdicom's descriptions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from highdicom import AlgorithmIdentificationSequence
from pydicom.sr.codedict import codes

from operators.errors import ModelPackageError
from operators.segments import Code, load_segments, load_series_description

REPOSITORY = Path(__file__).resolve().parents[3]
ANATOMY = {"CodeValue": "123037004", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Anatomical Structure"}
KIDNEY = {"CodeValue": "64033007", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Kidney"}
LEFT = {"CodeValue": "7771000", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Left"}


def _entry(**changes: Any) -> dict[str, Any]:
    entry = {
        "labelID": 1,
        "SegmentLabel": "Kidney",
        "SegmentAlgorithmName": "planted",
        "SegmentedPropertyCategoryCodeSequence": ANATOMY,
        "SegmentedPropertyTypeCodeSequence": KIDNEY,
        "recommendedDisplayRGBValue": [255, 0, 0],
    }
    return {key: value for key, value in (entry | changes).items() if value is not None}


def _write(folder: Path, *entries: dict[str, Any]) -> Path:
    path = folder / "segments.json"
    path.write_text(json.dumps({"SeriesDescription": "Kidneys", "segmentAttributes": [list(entries)]}))
    return path


def _algorithm() -> AlgorithmIdentificationSequence:
    return AlgorithmIdentificationSequence("planted", codes.DCM.ArtificialIntelligence, "1")


def test_the_demo_models_segments() -> None:
    path = REPOSITORY / "triton_models" / "nnunet_liver_spleen_demo" / "segments.json"
    liver, spleen = load_segments(path)
    assert (liver.label_value, liver.label, liver.rgb) == (1, "Liver", (221, 130, 101))
    assert liver.category == Code("123037004", "SCT", "Anatomical Structure")
    assert str(spleen.type) == '(78961009, SCT, "Spleen")'
    assert spleen.modifier is None
    assert load_series_description(path).startswith("Liver and spleen")


def test_segments_come_by_label_value_whatever_their_order(tmp_path: Path) -> None:
    path = _write(tmp_path, _entry(labelID=65535), _entry(labelID=52), _entry(labelID=5))
    assert [segment.label_value for segment in load_segments(path)] == [5, 52, 65535]


def test_the_modifier_goes_into_the_type_code(tmp_path: Path) -> None:
    path = _write(tmp_path, _entry(SegmentedPropertyTypeModifierCodeSequence=LEFT, SegmentLabel=None))
    (kidney,) = load_segments(path)
    assert kidney.label == "Kidney, Left"
    described = kidney.description(1, _algorithm(), "1.2.3")
    (modifier,) = described.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence
    assert (modifier.CodeValue, modifier.CodeMeaning) == ("7771000", "Left")


def test_a_description_has_number_colour_algorithm_and_tracking(tmp_path: Path) -> None:
    described = load_segments(_write(tmp_path, _entry()))[0].description(3, _algorithm(), "1.2.3")
    assert (described.SegmentNumber, described.SegmentAlgorithmType) == (3, "AUTOMATIC")
    assert (described.TrackingUID, described.TrackingID) == ("1.2.3", "Kidney")
    assert described.RecommendedDisplayCIELabValue[0] > 0
    assert described.SegmentAlgorithmName == "planted"


def test_a_segment_may_have_no_colour(tmp_path: Path) -> None:
    (kidney,) = load_segments(_write(tmp_path, _entry(recommendedDisplayRGBValue=None)))
    assert "RecommendedDisplayCIELabValue" not in kidney.description(1, _algorithm(), "1.2.3")


@pytest.mark.parametrize(
    ("entries", "code"),
    [
        ([_entry(SegmentedPropertyTypeCodeSequence=None)], "file-unreadable"),
        ([_entry(SegmentedPropertyTypeCodeSequence=KIDNEY | {"CodeValue": ""})], "file-unreadable"),
        ([_entry(SegmentLabel="x" * 65)], "file-unreadable"),
        ([_entry(recommendedDisplayRGBValue=[1, 2])], "file-unreadable"),
        ([_entry(labelID="one")], "file-unreadable"),
        ([], "labels-differ"),
        ([_entry(labelID=0)], "labels-differ"),
        ([_entry(labelID=65536)], "labels-differ"),
        ([_entry(), _entry()], "labels-differ"),
    ],
)
def test_what_can_not_be_used_is_refused(entries: list[dict[str, Any]], code: str, tmp_path: Path) -> None:
    with pytest.raises(ModelPackageError) as caught:
        load_segments(_write(tmp_path, *entries))
    assert caught.value.code == code


def test_a_file_that_is_no_json(tmp_path: Path) -> None:
    path = tmp_path / "segments.json"
    path.write_text("{")
    with pytest.raises(ModelPackageError) as caught:
        load_segments(path)
    assert caught.value.code == "file-unreadable"
