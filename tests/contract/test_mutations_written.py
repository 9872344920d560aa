"""What is harmless stays so to the end: of every odd but sound series a Segmentation is written and proved.

Odd headers are read without harm by one part and can still stop the next, which takes over names, dates and places.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from app.errors import VerificationFailed
from app.jobs.verification import verify_results
from operators.errors import SeriesRefused
from tests.completed_run import completed_run
from tests.mutations.judge import damaged
from tests.mutations.kind import KINDS, Truth
from tests.segmented_phantom import write_segmented

SOUND = [
    kind.name
    for kind in KINDS.values()
    if kind.truth in (Truth.CLEAN, Truth.HARMLESS) and kind.is_due and "MR" in kind.modalities
]

pytestmark = pytest.mark.filterwarnings("ignore")  # pydicom says what it doubts in each of them


def _prove(name: str, folder: Path) -> None:
    (folder / "series").mkdir()
    files, _ = damaged(KINDS[name], "MR", folder / "series")
    written, _, labels = write_segmented(files, folder / "segmentation.dcm")
    verify_results(completed_run(written, labels, folder), folder, files)


@pytest.mark.parametrize("name", SOUND)
def test_a_segmentation_of_it_is_written_and_proved(name: str, tmp_path: Path) -> None:
    _prove(name, tmp_path)


def test_a_slight_tilt_never_gets_out(tmp_path: Path) -> None:
    """Slices that lie elsewhere than on an even grid are found by reading, or at the latest by reading back."""
    with pytest.raises((SeriesRefused, VerificationFailed)):
        _prove("slight-gantry-tilt", tmp_path)
