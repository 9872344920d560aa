"""DCMTK, another code base, has no objection to presentation states, and shows pictures as they were drawn."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from operators.results.capture import write_captures
from operators.results.presentation_state import write_presentation_state
from operators.sam.windowing import Window
from tests.peers import program, require
from tests.pictured_phantom import AS_MR, ORIENTED, PHANTOM, intricate_labels, pictured
from tests.segmented_phantom import no_labels

CASES = ORIENTED | {"rescaled otherwise slice by slice": replace(PHANTOM, slopes=(1.0, 2.0))}


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("name", CASES)
def test_dcmpschk_passes_presentation_states(name: str, modality: str, tmp_path: Path) -> None:
    require("dcmpschk")
    for paint in (intricate_labels, no_labels):
        one = pictured(tmp_path / "series", CASES[name], edit=AS_MR if modality == "MR" else None, paint=paint)
        path = write_presentation_state(one.finding, tmp_path / "state.dcm").path
        checked = subprocess.run([program("dcmpschk"), str(path)], capture_output=True, text=True, check=False)
        said = (checked.stdout + checked.stderr).splitlines()
        assert (checked.returncode, said[-1:]) == (0, ["W: Test passed."]), said


def test_dcm2pnm_shows_the_pictures_that_were_drawn(tmp_path: Path) -> None:
    require("dcm2pnm")
    one = pictured(tmp_path / "ct")
    for written in write_captures(one.finding, tmp_path, Window(40, 400)):
        shown = tmp_path / "shown.png"
        subprocess.run([program("dcm2pnm"), "--write-png", str(written.path), str(shown)], check=True)
        with Image.open(shown) as picture:
            assert np.array_equal(np.asarray(picture), pydicom.dcmread(written.path).pixel_array)
