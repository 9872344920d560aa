"""Where the slices lie (PS3.3 C.7.6.2.1.1): positions, orientations and distances that make no even stack."""

from __future__ import annotations

import numpy as np

from tests.mutations.kind import Series, harmful, undetectable
from tests.mutations.kinds.editing import (
    MIDDLE,
    copies,
    decimals,
    each,
    move,
    normal,
    one,
    position,
    set_text,
    some,
    step,
)
from tests.mutations.series import renamed

_LOOKS = "whoever looks at the images; a second model that disagrees"


@harmful("slice-missing")
def one_slice_missing(series: Series) -> Series:
    """One slice inside the stack is missing."""
    return series[:MIDDLE] + series[MIDDLE + 1 :]


@harmful("slice-missing")
def several_slices_missing(series: Series) -> Series:
    """Slices are missing in two places."""
    return [dataset for index, dataset in enumerate(series) if index not in (3, 11, 12)]


@harmful("slice-missing", "uneven-spacing")
def every_third_slice_missing(series: Series) -> Series:
    """Every third slice is missing, so that one distance is as usual as the other."""
    return [dataset for index, dataset in enumerate(series) if index % 3 != 1]


@undetectable("whoever knows how many there should be: the study's rule of completeness, the modality's report")
def last_slices_missing(series: Series) -> Series:
    """The last five slices never came: what is left is an even stack."""
    return series[:15]


@harmful("uneven-spacing")
def two_distances(series: Series) -> Series:
    """Half the stack with one distance between slices, half with another."""
    along = step(series)
    for index in range(10, len(series)):
        move(series[index], along * 0.27 * (index - 9))
    return series


@harmful("uneven-spacing")
def distances_drift(series: Series) -> Series:
    """Each distance is a little more than the one before."""
    along = step(series)
    for index, dataset in enumerate(series):
        move(dataset, along * 0.015 * index**2)
    return series


@harmful("uneven-spacing", "slice-missing")
def one_slice_moved_along(series: Series) -> Series:
    """One slice lies a third of the distance too far along the stack."""
    move(series[MIDDLE], step(series) / 3)
    return series


@harmful("uneven-spacing", "gantry-tilt", "mixed-orientation")
def one_slice_moved_aside(series: Series) -> Series:
    """One slice lies 20 mm beside the others."""
    move(series[MIDDLE], np.array([20.0, 0, 0]))
    return series


def _tilted(series: Series, degrees: float) -> Series:
    length = float(np.linalg.norm(step(series)))
    for index, dataset in enumerate(series):
        move(dataset, np.array([0, index * length * np.tan(np.radians(degrees)), 0]))
    return series


@harmful("gantry-tilt", own_truth=True)
def gantry_tilt(series: Series) -> Series:
    """A gantry tilt of 15 degrees: the stack is sheared."""
    return _tilted(series, 15)


@harmful("gantry-tilt", own_truth=True)
def slight_gantry_tilt(series: Series) -> Series:
    """A gantry tilt of 2.5 degrees: after 20 slices some millimetres, after 300 some centimetres."""
    return _tilted(series, 2.5)


@harmful("gantry-tilt", own_truth=True)
def half_a_pixel_of_tilt(series: Series) -> Series:
    """A tilt so slight that the last slice lies half a pixel beside its place."""
    pixel = float(series[0].PixelSpacing[0])
    length = float(np.linalg.norm(step(series))) * (len(series) - 1)
    return _tilted(series, float(np.degrees(np.arctan(pixel / 2 / length))))


@harmful("uneven-spacing")
def one_slice_moved_aside_by_a_pixel(series: Series) -> Series:
    """One slice lies one pixel beside the others."""
    move(series[MIDDLE], np.array([float(series[0].PixelSpacing[1]), 0, 0]))
    return series


@harmful("uneven-spacing")
def distances_differ_by_little(series: Series) -> Series:
    """Half the stack with distances a little above the mean, half a little below: in the middle they add up."""
    along, middle = step(series), (len(series) - 1) / 2
    for index, dataset in enumerate(series):
        move(dataset, along * 0.03 * (middle - abs(index - middle)))
    return series


@harmful("duplicate-position")
def every_slice_at_one_place(series: Series) -> Series:
    """Every slice has the first one's position."""
    return each(series, ImagePositionPatient=list(series[0].ImagePositionPatient))


@harmful("mixed-orientation")
def one_slice_turned(series: Series) -> Series:
    """One slice is turned by 3 degrees about the normal."""
    angle = np.radians(3)
    return one(
        series, ImageOrientationPatient=decimals([np.cos(angle), np.sin(angle), 0, -np.sin(angle), np.cos(angle), 0])
    )


@harmful("mixed-orientation")
def one_slice_flipped(series: Series) -> Series:
    """One slice's rows and columns point the other way."""
    return one(series, ImageOrientationPatient=[-number for number in map(float, series[0].ImageOrientationPatient)])


@undetectable(_LOOKS)
def every_slice_flipped(series: Series) -> Series:
    """Every slice's rows and columns are said to point the other way: an upside-down patient, without contradiction."""
    return each(series, ImageOrientationPatient=[-number for number in map(float, series[0].ImageOrientationPatient)])


@undetectable(_LOOKS)
def two_positions_swapped(series: Series) -> Series:
    """Two slices have each other's position; each is possible, and the stack is even."""
    first, second = series[4], series[12]
    first.ImagePositionPatient, second.ImagePositionPatient = (
        list(second.ImagePositionPatient),
        list(first.ImagePositionPatient),
    )
    return series


@undetectable("whoever holds the volume against another series of the study")
def everything_shifted(series: Series) -> Series:
    """Every position is 100 mm off."""
    for dataset in series:
        move(dataset, np.array([100.0, 0, 0]))
    return series


@undetectable("whoever knows the scanner's field of view")
def spacing_halved(series: Series) -> Series:
    """A pixel spacing of half what it was, in every slice."""
    return each(series, PixelSpacing=decimals(float(number) / 2 for number in series[0].PixelSpacing))


@harmful("wrong-pixel-spacing")
def spacing_in_micrometres(series: Series) -> Series:
    """A pixel spacing a thousand times too large: no patient is 500 m wide."""
    return each(series, PixelSpacing=decimals(float(number) * 1000 for number in series[0].PixelSpacing))


@harmful("mixed-spacing")
def one_slice_of_another_spacing(series: Series) -> Series:
    """One slice with another pixel spacing."""
    return one(series, PixelSpacing=decimals(float(number) * 1.25 for number in series[0].PixelSpacing))


@harmful("missing-geometry")
def no_position_in_one_slice(series: Series) -> Series:
    """One slice without Image Position (Patient)."""
    return one(series, ImagePositionPatient=None)


@harmful("missing-geometry")
def no_orientation(series: Series) -> Series:
    """No slice with Image Orientation (Patient)."""
    return each(series, ImageOrientationPatient=None)


@harmful("missing-geometry")
def no_pixel_spacing(series: Series) -> Series:
    """No slice with Pixel Spacing."""
    return each(series, PixelSpacing=None)


@harmful("missing-geometry")
def empty_position(series: Series) -> Series:
    """One slice whose position is there, and empty."""
    return one(series, ImagePositionPatient="")


@harmful("missing-geometry")
def two_numbers_of_three(series: Series) -> Series:
    """One slice whose position has two numbers."""
    return one(series, ImagePositionPatient=list(series[MIDDLE].ImagePositionPatient)[:2])


@harmful("missing-geometry")
def orientation_not_of_unit_length(series: Series) -> Series:
    """Direction cosines that are no unit vectors."""
    return each(series, ImageOrientationPatient=[1, 0, 0, 0, 1.2, 0])


@harmful("missing-geometry")
def orientation_not_at_a_right_angle(series: Series) -> Series:
    """Rows and columns that do not stand on each other."""
    return each(series, ImageOrientationPatient=["1", "0", "0", "0.5", "0.866025", "0"])


@harmful("missing-geometry")
def orientation_all_zero(series: Series) -> Series:
    """Direction cosines of zero, as made-up headers have."""
    return each(series, ImageOrientationPatient=[0, 0, 0, 0, 0, 0])


@harmful("missing-geometry")
def spacing_zero(series: Series) -> Series:
    """A pixel spacing of zero."""
    return each(series, PixelSpacing=[0, 0])


@harmful("missing-geometry")
def spacing_negative(series: Series) -> Series:
    """A negative pixel spacing."""
    return each(series, PixelSpacing=decimals(-float(number) for number in series[0].PixelSpacing))


@harmful("missing-geometry", "unreadable-instance")
def position_not_a_number(series: Series) -> Series:
    """One slice whose position is NaN."""
    set_text(series[MIDDLE], "ImagePositionPatient", ["0", "0", "NaN"])
    return series


@harmful("missing-geometry", "unreadable-instance")
def position_infinite(series: Series) -> Series:
    """One slice whose position is infinite."""
    set_text(series[MIDDLE], "ImagePositionPatient", ["0", "0", "inf"])
    return series


@harmful("missing-geometry", "unreadable-instance")
def spacing_with_a_comma(series: Series) -> Series:
    """A pixel spacing with a decimal comma."""
    for dataset in series:
        set_text(dataset, "PixelSpacing", ["0,9765625", "0,9765625"])
    return series


@harmful("missing-geometry", "unreadable-instance")
def position_is_text(series: Series) -> Series:
    """One slice whose position is words."""
    set_text(series[MIDDLE], "ImagePositionPatient", ["left", "back", "up"])
    return series


@harmful("missing-frame-of-reference")
def no_frame_of_reference(series: Series) -> Series:
    """No frame of reference."""
    return each(series, FrameOfReferenceUID=None)


@harmful("mixed-frame-of-reference")
def two_frames_of_reference(series: Series) -> Series:
    """The second half of the stack in another frame of reference, as after the patient got up."""
    return some(series, range(10, len(series)), FrameOfReferenceUID="2.25.99")


@harmful("too-few-slices")
def a_single_slice(series: Series) -> Series:
    """A single slice."""
    return series[:1]


@harmful("wrong-slice-count")
def three_slices(series: Series) -> Series:
    """Three slices, of which no network makes an organ."""
    return series[:3]


@harmful("wrong-slice-spacing")
def slices_far_apart(series: Series) -> Series:
    """Every fifth slice only, evenly: 10 mm apart and more."""
    return series[::5]


@harmful("uneven-spacing", "slice-missing", "duplicate-position")
def a_slice_between_two(series: Series) -> Series:
    """One slice more, half way between two others."""
    (extra,) = copies([series[MIDDLE]])
    move(extra, step(series) / 2)
    return [*series, renamed(extra, "between")]


@harmful("slice-missing", "uneven-spacing")
def one_slice_far_away(series: Series) -> Series:
    """One slice more, 80 mm beyond the end, as a scan of contrast tracking."""
    (extra,) = copies([series[-1]])
    extra.ImagePositionPatient = decimals(
        position(extra) + 81.3 * normal(extra) * np.sign(step(series) @ normal(extra))
    )
    return [*series, renamed(extra, "beyond")]
