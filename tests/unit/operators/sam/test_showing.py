"""What the generalist is shown of a series: what suits the modality, or what settings ask for, for each segment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.settings_pipeline import GeneralistSettings
from operators.errors import PromptRefused
from operators.sam.showing import shown_segments
from operators.series_volume import SeriesVolume, read_series
from tests.phantom import Phantom

LUNG, LIVER = 3, 1


@pytest.fixture
def ct(tmp_path: Path) -> SeriesVolume:
    return read_series(Phantom().write(tmp_path))


@pytest.fixture
def mr(ct: SeriesVolume) -> SeriesVolume:
    """The slices as an MR has them: numbers without a scale, far above what soft tissue has in a CT."""
    values = np.linspace(300, 2000, ct.volume.array.size, dtype=np.float32).reshape(ct.volume.array.shape)
    for dataset in ct.datasets:
        dataset.Modality = "MR"
    return replace(ct, channels=(ct.volume.with_array(values),))


def test_without_a_word_mr_is_shown_by_its_own_values(mr: SeriesVolume) -> None:
    shown = shown_segments(mr, {LIVER: GeneralistSettings(model="sam").window})[LIVER]
    assert (shown[0].min(), shown[len(shown) - 1].max()) == (0, 255)
    assert len(np.unique(shown[2])) > 20  # the window of soft tissue would show it all white
    assert len(np.unique(shown_segments(mr, {LIVER: "soft-tissue"})[LIVER][2])) == 1


def test_without_a_word_ct_is_shown_as_soft_tissue(ct: SeriesVolume) -> None:
    shown = shown_segments(ct, {LIVER: "", LUNG: "soft-tissue"})
    assert all(np.array_equal(shown[LIVER][index], shown[LUNG][index]) for index in range(len(shown[LIVER])))


def test_segments_with_the_same_window_share_what_is_shown(ct: SeriesVolume) -> None:
    shown = shown_segments(ct, {LIVER: "", LUNG: "lung", 7: ""})
    assert shown[LIVER] is shown[7]
    assert shown[LUNG] is not shown[7]


def test_a_window_that_is_none_is_refused(ct: SeriesVolume) -> None:
    with pytest.raises(PromptRefused) as raised:
        shown_segments(ct, {LIVER: "", LUNG: "soft"})
    assert raised.value.code == "window-unknown"
