"""dicom3tools' judgement of the objects that the tests of prompts are made of: they are what a viewer may store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from tests.judges import run_dciodvfy
from tests.peers import require
from tests.phantom import Phantom
from tests.prompt_objects import (
    in_patient,
    line_report,
    presentation_state,
    rectangle,
    region_group,
    report,
    structure_set,
)

PHANTOM = Phantom()
OUTLINE = rectangle(2, 1.5, 9, 7)
LINE = np.array([[2.0, 3.0], [9.0, 5.0]])
CASES = {
    "presentation state": presentation_state(PHANTOM, 1, [("POLYLINE", OUTLINE)], texts=["lesion"]),
    "report": report(PHANTOM, [region_group(PHANTOM, 1, "POLYLINE", OUTLINE)]),
    "report in the patient": report(PHANTOM, [region_group(PHANTOM, 1, "POLYGON", in_patient(PHANTOM, 1, OUTLINE))]),
    "report of lines": line_report(PHANTOM, 1, [LINE]),
    "structure set": structure_set(PHANTOM, [("liver", [("CLOSED_PLANAR", in_patient(PHANTOM, 1, OUTLINE[:-1]))])]),
}


@pytest.mark.parametrize("name", CASES)
def test_no_error_in_it(name: str, tmp_path: Path) -> None:
    require("dciodvfy")
    dataset: Dataset = CASES[name]
    path = tmp_path / "object.dcm"
    dataset.save_as(path, enforce_file_format=True)
    assert run_dciodvfy(path) == []
