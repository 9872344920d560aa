import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from operators.errors import SeriesRefused
from operators.nnunet.normalisation import NORMALISATIONS, Normalisation, read_normalisation

INTENSITY = {"percentile_00_5": -50, "percentile_99_5": 200, "mean": 90, "std": 40}


def scheme(name: str, *, use_mask: bool = False) -> Normalisation:
    found = read_normalisation(name, use_mask, INTENSITY)
    assert found is not None
    return found


def normalised(
    normalisation: Normalisation, values: list[float], mask: list[bool] | None = None
) -> NDArray[np.float32]:
    image = np.array([[values]], np.float32)
    normalisation.apply(image, None if mask is None else np.array([[mask]]))
    line: NDArray[np.float32] = image[0, 0]
    return line


def test_ct() -> None:
    found = normalised(scheme("CTNormalization"), [-1000, -50, 90, 130, 3000])
    np.testing.assert_allclose(found, [-3.5, -3.5, 0, 1, 2.75])


def test_a_deviation_of_nothing_divides_nothing() -> None:
    flat = read_normalisation("CTNormalization", False, {**INTENSITY, "std": 0.0})
    assert flat is not None
    assert np.isfinite(normalised(flat, [1, 2, 3])).all()
    assert np.isfinite(normalised(scheme("ZScoreNormalization"), [7, 7, 7])).all()
    assert np.isfinite(normalised(scheme("RescaleTo01Normalization"), [7, 7, 7])).all()


@given(values=st.lists(st.integers(-1000, 3000), min_size=2, max_size=20, unique=True))
def test_a_score_has_no_mean_and_a_deviation_of_one(values: list[float]) -> None:
    found = normalised(scheme("ZScoreNormalization"), values)
    np.testing.assert_allclose([found.mean(), found.std()], [0, 1], atol=1e-3)


def test_a_score_inside_a_mask_leaves_the_rest_alone() -> None:
    found = normalised(scheme("ZScoreNormalization", use_mask=True), [0, 10, 20, 0], [False, True, True, False])
    np.testing.assert_allclose(found, [0, -1, 1, 0])


def test_an_empty_mask_changes_nothing() -> None:
    np.testing.assert_array_equal(normalised(scheme("ZScoreNormalization", use_mask=True), [0, 0], [False] * 2), 0)


def test_rescaling_to_one() -> None:
    np.testing.assert_allclose(normalised(scheme("RescaleTo01Normalization"), [-5, 0, 15]), [0, 0.25, 1])


def test_colours() -> None:
    np.testing.assert_allclose(normalised(scheme("RGBTo01Normalization"), [0, 51, 255]), [0, 0.2, 1])


@pytest.mark.parametrize("values", [[-1, 5], [0, 256]])
def test_what_can_be_no_colour_is_refused(values: list[float]) -> None:
    with pytest.raises(SeriesRefused, match="from 0 to 255") as caught:
        normalised(scheme("RGBTo01Normalization"), values)
    assert caught.value.code == "intensity-range"


def test_none_at_all() -> None:
    np.testing.assert_array_equal(normalised(scheme("NoNormalization"), [-3, 4]), [-3, 4])


def test_the_known_names_are_known() -> None:
    assert all(read_normalisation(name, False, INTENSITY) is not None for name in NORMALISATIONS)


def test_an_unknown_name() -> None:
    assert read_normalisation("OtherNormalization", False, {}) is None
