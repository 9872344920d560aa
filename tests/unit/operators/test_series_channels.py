"""Several series as one input: every channel's voxels lie where they lie in the patient, on the grid of the first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from operators.errors import SeriesRefused
from operators.series_volume import read_channels, read_series
from tests.phantom import AXIAL, ORIENTATIONS, Edit, Phantom, setting, value_at, without

PRIMARY = Phantom(slices=7, rows=16, columns=14, row_spacing=2.0, column_spacing=2.5, slice_spacing=5.0)
FLAIR = replace(PRIMARY, series="flair")
_ROUNDING = 0.51
"""Stored values are integers, and float32 adds little."""
_GRADIENT = 9.2
"""Hounsfield units per mm, at most: how much one mm of misplacement would show."""


def _around(phantom: Phantom, centre: NDArray[np.float64]) -> Phantom:
    """The same series with its middle at `centre`."""
    shape = (phantom.slices, phantom.rows, phantom.columns)
    half = sum(axis * (number - 1) / 2 for axis, number in zip(phantom.axes, shape, strict=True))
    x, y, z = (float(number) for number in np.round(centre - half, 6))
    return replace(phantom, origin=(x, y, z))


def _middle(phantom: Phantom) -> NDArray[np.float64]:
    middle: NDArray[np.float64] = np.array(phantom.slice_positions(0)).reshape(-1, 3).mean(axis=0)
    return middle + phantom.axes[0] * (phantom.slices - 1) / 2


def _places(volume: highdicom.Volume) -> NDArray[np.float64]:
    indices = np.stack(np.meshgrid(*map(np.arange, volume.spatial_shape), indexing="ij"), axis=-1).reshape(-1, 3)
    places: NDArray[np.float64] = volume.map_indices_to_reference(indices)
    return places


@settings(max_examples=40)
@given(
    orientation=st.sampled_from(sorted(ORIENTATIONS)),
    primary=st.sampled_from(sorted(ORIENTATIONS)),
    spacings=st.tuples(*(st.floats(1.5, 6.0),) * 3),
    matrix=st.tuples(*(st.integers(6, 16),) * 3),
    against_normal=st.booleans(),
    shift=st.tuples(*(st.floats(-6, 6),) * 3),
)
def test_every_voxel_of_another_series_lands_where_it_is(
    orientation: str,
    primary: str,
    spacings: tuple[float, float, float],
    matrix: tuple[int, int, int],
    against_normal: bool,
    shift: tuple[float, float, float],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    first = replace(PRIMARY, orientation=ORIENTATIONS[primary])
    second = Phantom(
        slices=matrix[0],
        rows=matrix[1],
        columns=matrix[2],
        slice_spacing=round(spacings[0], 3),
        row_spacing=round(spacings[1], 3),
        column_spacing=round(spacings[2], 3),
        orientation=ORIENTATIONS[orientation],
        against_normal=against_normal,
        series="flair",
    )
    second = _around(second, _middle(first) + np.array(shift))
    folder = tmp_path_factory.mktemp("channels")
    inputs = {"T1": first.write(folder / "t1"), "FLAIR": second.write(folder / "flair")}
    series = read_channels(inputs)

    alone = read_series(inputs["T1"])
    assert np.array_equal(series.volume.array, alone.volume.array)
    assert series.datasets == alone.datasets
    assert series.channels[0] is series.volume
    moved = series.channels[1]
    assert np.array_equal(moved.affine, series.volume.affine)
    assert moved.dtype == np.float32

    places = _places(series.volume)
    steps = np.array(second.axes)
    inside = (places - second.position(0)) @ np.linalg.inv(steps)  # in voxels of the second series
    beyond = np.maximum(-inside, inside - (np.array(matrix) - 1)).max(axis=1)  # of its outer voxels' centres
    values, truth = moved.array.reshape(-1), value_at(places)
    between = beyond <= -1e-4
    assert np.abs(values - truth)[between].max(initial=0) < _ROUNDING  # a linear phantom is interpolated exactly
    half_a_voxel = np.linalg.norm(steps, axis=1).sum() / 2
    assert np.abs(values - truth)[beyond < 0.499].max(initial=0) < _ROUNDING + _GRADIENT * half_a_voxel
    assert not values[beyond > 0.501].any()


def test_equal_grids_are_taken_as_they_are(tmp_path: Path) -> None:
    rescaled = replace(FLAIR, intercepts=(-1000.0,))
    series = read_channels({"T1": PRIMARY.write(tmp_path / "1"), "FLAIR": rescaled.write(tmp_path / "2")})
    assert np.array_equal(series.channels[1].array, read_series(rescaled.write(tmp_path / "3")).volume.array)


def test_progress_counts_the_instances_of_all_channels(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    files = PRIMARY.write(tmp_path / "1"), FLAIR.write(tmp_path / "2")
    read_channels({"T1": files[0], "FLAIR": files[1]}, lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[0] == (0, 14)
    assert seen[-1] == (14, 14)


@pytest.mark.parametrize(
    ("second", "edit", "code"),
    [
        (replace(FLAIR, slices=1), None, "too-few-slices"),
        (FLAIR, without(3), "slice-missing"),
        (FLAIR, setting(FrameOfReferenceUID="1.2.3"), "mixed-frame-of-reference"),
        (FLAIR, setting(PatientID="PHANTOM-2"), "mixed-patient"),
        (FLAIR, setting(StudyInstanceUID="1.2.3"), "mixed-series"),
        (replace(FLAIR, origin=(-20.0, -15.0, 300.0)), None, "channel-elsewhere"),
    ],
)
def test_what_is_wrong_with_one_channel_is_said_with_its_name(
    second: Phantom, edit: Edit | None, code: str, tmp_path: Path
) -> None:
    files = PRIMARY.write(tmp_path / "1"), second.write(tmp_path / "2", edit=edit)
    with pytest.raises(SeriesRefused, match=r"^channel FLAIR: expected ") as caught:
        read_channels({"T1": files[0], "FLAIR": files[1]})
    assert caught.value.code == code
    for secret in ("Phantom^Limner", "PHANTOM-", "1960", "1.2.826"):
        assert secret not in str(caught.value)


def test_the_first_channel_is_named_too(tmp_path: Path) -> None:
    assert PRIMARY.orientation == AXIAL
    files = PRIMARY.write(tmp_path / "1", edit=without(2)), FLAIR.write(tmp_path / "2")
    with pytest.raises(SeriesRefused, match=r"^channel T1: ") as caught:
        read_channels({"T1": files[0], "FLAIR": files[1]})
    assert caught.value.code == "slice-missing"


def test_no_channel(tmp_path: Path) -> None:
    with pytest.raises(SeriesRefused) as caught:
        read_channels({})
    assert caught.value.code == "no-images"
