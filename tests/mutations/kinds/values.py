"""What the stored values mean (PS3.3 C.11.1): rescale slopes and intercepts that are missing, impossible or wrong."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset

from tests.mutations.kind import Series, harmful, notable, repairable, undetectable
from tests.mutations.kinds.editing import MIDDLE, each, one, set_text
from tests.mutations.series import rescaled, store

_SCALE = "whoever knows the values of air and tissue"


@harmful("missing-rescale", only="CT")
def no_rescale(series: Series) -> Series:
    """No rescale slope and intercept: stored values instead of Hounsfield units."""
    return each(series, RescaleSlope=None, RescaleIntercept=None)


@harmful("missing-rescale", only="CT")
def no_intercept_in_one_slice(series: Series) -> Series:
    """One slice without rescale intercept."""
    return one(series, RescaleIntercept=None)


@harmful("missing-rescale", only="MR")
def rescale_missing_in_one_slice(series: Series) -> Series:
    """Every slice has a rescale slope, as scaled MR have, but one."""
    for dataset in series:
        store(dataset, rescaled(dataset) * 4)
        dataset.RescaleSlope, dataset.RescaleIntercept = "0.25", "0"
    return one(series, RescaleSlope=None, RescaleIntercept=None)


@harmful("missing-rescale", only="MR")
def slope_is_no_number(series: Series) -> Series:
    """A rescale slope that is no number, in every slice."""
    for dataset in series:
        store(dataset, rescaled(dataset) * 4)
        set_text(dataset, "RescaleSlope", "NaN")
        dataset.RescaleIntercept = "0"
    return series


@harmful("missing-rescale", only="CT")
def slope_zero(series: Series) -> Series:
    """A rescale slope of zero."""
    return each(series, RescaleSlope="0")


@harmful("missing-rescale", "unreadable-instance", only="CT")
def intercept_infinite(series: Series) -> Series:
    """A rescale intercept that is infinite."""
    for dataset in series:
        set_text(dataset, "RescaleIntercept", "-inf")
    return series


@harmful("missing-rescale")
def lookup_table_instead(series: Series) -> Series:
    """A modality lookup table in place of slope and intercept."""
    table = Dataset()
    table.add_new(0x00283002, "US", [4, 0, 16])
    table.ModalityLUTType = "HU"
    table.add_new(0x00283006, "US", [0, 100, 300, 900])
    return each(series, RescaleSlope=None, RescaleIntercept=None, RescaleType=None, ModalityLUTSequence=[table])


@notable("intensity-far", only="CT")
def intercept_of_the_wrong_sign(series: Series) -> Series:
    """A rescale intercept of +1024: air of +1024 HU."""
    return each(series, RescaleIntercept="1024")


@notable("intensity-far", only="CT")
def intercept_of_zero(series: Series) -> Series:
    """A rescale intercept of 0 over values that are 1024 too high, as some archives write it."""
    return each(series, RescaleIntercept="0")


@notable("rescale-negative")
def slope_negative(series: Series) -> Series:
    """A rescale slope of -1, which the Standard does not forbid: dark is bright."""
    return each(series, RescaleSlope="-1", RescaleIntercept=str(series[0].get("RescaleIntercept", "0")))


@undetectable(_SCALE, only="CT")
def intercept_of_one_slice_wrong(series: Series) -> Series:
    """One slice with an intercept that is 100 too high."""
    return one(series, RescaleIntercept="-924")


@undetectable(_SCALE)
def slope_doubled_in_one_slice(series: Series) -> Series:
    """One slice with a slope of 2 over values that are right with 1, as all others have."""
    each(series, RescaleSlope="1", RescaleIntercept=str(series[MIDDLE].get("RescaleIntercept", "0")))
    return one(series, RescaleSlope="2")


@repairable()
def padding_far_below_air(series: Series) -> Series:
    """Where nothing was measured a value that is said (PS3.3 C.7.5.1.1.2), far below air and below all signal."""
    nothing = -1024.0 if series[0].Modality == "CT" else 0.0
    for dataset in series:
        values = rescaled(dataset)
        store(dataset, np.where(values == nothing, -3000, values))
        dataset.RescaleSlope, dataset.RescaleIntercept = "1", "0"
        dataset.add_new(0x00280120, "SS", -3000)
    return series
