"""Headers that are odd or wrong where the volume does not come from: it must be read all the same."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

from tests.mutations.kind import Files, Series, harmless, repairable, undetectable
from tests.mutations.kinds.editing import MIDDLE, decimals, each, one, position, set_text, some

_TYPE_2 = (
    *("PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID"),
    *("AccessionNumber", "SeriesNumber", "AcquisitionNumber", "InstanceNumber", "ContentDate", "ContentTime"),
    *("Manufacturer", "PatientPosition", "PositionReferenceIndicator", "SliceThickness", "KVP"),
)


@harmless()
def files_in_any_order(series: Series) -> Series:
    """Files in an order that says nothing."""
    return [series[index] for index in np.random.default_rng(1).permutation(len(series))]


@harmless()
def instance_numbers_reversed(series: Series) -> Series:
    """Instance Numbers that run the other way."""
    for number, dataset in enumerate(reversed(series), start=1):
        dataset.InstanceNumber = number
    return series


@harmless()
def instance_numbers_all_equal(series: Series) -> Series:
    """Every slice with the Instance Number 1."""
    return each(series, InstanceNumber=1)


@harmless()
def instance_number_is_no_number(series: Series) -> Series:
    """An Instance Number that is a word."""
    return _verbatim(series, "InstanceNumber", "CS", "FIRST")


@harmless()
def type_2_attributes_missing(series: Series) -> Series:
    """All that may be empty and must be there (Type 2) is not there: names, dates, numbers, thickness."""
    return each(series, **dict.fromkeys(_TYPE_2))


@harmless()
def type_2_attributes_empty(series: Series) -> Series:
    """All that may be empty (Type 2) is empty."""
    return each(series, **dict.fromkeys(_TYPE_2, ""))


@harmless()
def no_patient_id(series: Series) -> Series:
    """No Patient ID, as in emergencies."""
    return each(series, PatientID=None)


@harmless()
def private_attributes(series: Series) -> Series:
    """Private blocks of several vendors, of known and unknown value representation, with a nested sequence."""
    for dataset in series:
        block = dataset.private_block(0x0099, "LIMNER TEST 1", create=True)
        block.add_new(0x01, "UN", bytes(range(256)))
        block.add_new(0x02, "DS", "1.5")
        inner = Dataset()
        inner.add_new(0x00990010, "LO", "LIMNER TEST 1")
        inner.add_new(0x00991003, "UT", "x" * 70000)
        block.add_new(0x04, "SQ", DicomSequence([inner, inner]))
    return series


@harmless()
def utf_8(series: Series) -> Series:
    """Names in Greek, Arabic and Chinese, in UTF-8."""
    return each(series, SpecificCharacterSet="ISO_IR 192", PatientName="Διονυσιος^قباني=王^小東")


@harmless()
def japanese(series: Series) -> Series:
    """Names in three representations with ISO 2022 escape sequences, as in Japan."""
    sets = ["", "ISO 2022 IR 87"]
    return each(series, SpecificCharacterSet=sets, PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう")


@harmless()
def character_set_unknown(series: Series) -> Series:
    """A Specific Character Set that there is not."""
    return each(series, SpecificCharacterSet="ISO_IR 999")


@repairable("mixed-patient")
def the_same_name_written_otherwise(series: Series) -> Series:
    """One slice has the patient's name with empty components at its end, which mean nothing (PS3.5 section 6.2)."""
    return one(series, PatientName=f"{series[0].PatientName}^^^")


@harmless()
def invalid_dates(series: Series) -> Series:
    """Dates and times in the writing of another standard."""
    return _verbatim(_verbatim(series, "StudyDate", "LO", "2022-12-08"), "StudyTime", "LO", "14:03:52")


@harmless()
def slice_location_contradicts(series: Series) -> Series:
    """Slice Locations of another examination; where a slice lies is said by Image Position (Patient) alone."""
    for index, dataset in enumerate(series):
        dataset.SliceLocation = decimals([900.0 - 7 * (index % 5)])[0]
    return series


@harmless()
def slice_thickness_contradicts(series: Series) -> Series:
    """A slice thickness unlike the distance of the slices."""
    return each(series, SliceThickness="0.625")


@harmless()
def spacing_between_slices_contradicts(series: Series) -> Series:
    """A Spacing Between Slices unlike the distance of their positions."""
    return each(series, SpacingBetweenSlices="9")


@harmless()
def patient_position_contradicts(series: Series) -> Series:
    """A Patient Position (feet first) that orientation and position do not show; it is for annotation only."""
    return each(series, PatientPosition="FFS")


@harmless()
def positions_jitter(series: Series) -> Series:
    """Positions of the inner slices off by a hundredth of a millimetre, as rounding makes them."""
    for index in range(1, len(series) - 1):
        x, y, z = position(series[index])
        series[index].ImagePositionPatient = decimals([x, y, z + (0.01 if index % 2 else -0.01)])
    return series


@harmless()
def positions_jitter_aside(series: Series) -> Series:
    """Positions of the inner slices off by a tenth of a pixel within their plane."""
    for index in range(1, len(series) - 1):
        x, y, z = position(series[index])
        off = (0.1 if index % 2 else -0.1) * float(series[index].PixelSpacing[0])
        series[index].ImagePositionPatient = decimals([x + off, y - off, z])
    return series


@harmless()
def measured_times_jitter(series: Series) -> Series:
    """Echo times and tube voltages as they were measured, slice by slice."""
    for index, dataset in enumerate(series):
        if dataset.Modality == "MR":
            dataset.EchoTime = f"{10 + 0.01 * (index % 3)}"
        else:
            dataset.KVP = f"{120 + 0.2 * (index % 3)}"
    return series


@harmless()
def padding_stated_and_nowhere(series: Series) -> Series:
    """A Pixel Padding Value that no pixel has."""
    for dataset in series:
        dataset.add_new(0x00280120, "SS", -30000)
    return series


@harmless()
def long_decimal_strings(series: Series) -> Series:
    """Decimal Strings of more than the 16 characters that are allowed."""
    for dataset in series:
        set_text(dataset, "ImagePositionPatient", [f"{number:.14f}" for number in position(dataset)])
    return series


@harmless()
def decimal_strings_with_exponents(series: Series) -> Series:
    """Decimal Strings with signs, exponents and spaces around them."""
    for dataset in series:
        set_text(dataset, "ImagePositionPatient", [f" {number:+.10E} " for number in position(dataset)])
    return series


@harmless()
def known_attributes_as_unknown(series: Series) -> Series:
    """Position, orientation and spacing with the value representation UN, as archives write that once did not know."""
    for dataset in series:
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
            text = "\\".join(str(number) for number in dataset[keyword].value)
            tag = dataset[keyword].tag
            del dataset[tag]
            dataset.add_new(tag, "UN", text.encode() + b" " * (len(text) % 2))
    return series


@harmless()
def display_settings_wrong(series: Series) -> Series:
    """Windows of no width and a lookup table for display: they are for the eye only."""
    table = Dataset()
    table.add_new(0x00283002, "US", [2, 0, 16])
    table.add_new(0x00283006, "US", [65535, 0])
    return each(series, WindowCenter="0", WindowWidth="0", VOILUTSequence=[table])


@harmless()
def no_window(series: Series) -> Series:
    """No window at all."""
    return each(series, WindowCenter=None, WindowWidth=None)


@harmless()
def overlays(series: Series) -> Series:
    """An overlay plane beside the pixels."""
    for dataset in series:
        rows, columns = int(dataset.Rows), int(dataset.Columns)
        size = (rows * columns + 7) // 8
        for element, representation, value in (
            (0x0010, "US", rows),
            (0x0011, "US", columns),
            (0x0040, "CS", "G"),
            (0x0050, "SS", [1, 1]),
            (0x0100, "US", 1),
            (0x0102, "US", 0),
            (0x3000, "OW", b"\x55" * (size + size % 2)),
        ):
            dataset.add_new((0x6000, element), representation, value)
    return series


@harmless()
def group_lengths(series: Series) -> Series:
    """Group Length attributes, retired, with wrong values."""
    for dataset in series:
        for group in (0x0008, 0x0010, 0x0020, 0x0028):
            dataset.add_new((group, 0x0000), "UL", 12)
    return series


@harmless()
def image_type_derived(series: Series) -> Series:
    """An Image Type that calls the slices derived."""
    return each(series, ImageType=["DERIVED", "SECONDARY", "REFORMATTED"])


@harmless(on_files=True)
def trailing_padding(files: Files) -> Files:
    """Data Set Trailing Padding after the pixel data."""
    padding = b"\xfc\xff\xfc\xffOB\x00\x00" + (1000).to_bytes(4, "little") + bytes(1000)
    return [content + padding for content in files]


@undetectable("whoever compares the date with the order; the volume is the same")
def another_study_date_in_one_slice(series: Series) -> Series:
    """One slice with another Study Date under the same study."""
    return some(series, [MIDDLE], StudyDate="20010101")


def _verbatim(series: Series, keyword: str, representation: str, text: str) -> Series:
    """Write text where its value representation forbids it."""
    for dataset in series:
        element = dataset[keyword]
        dataset.add_new(element.tag, representation, text)
    return series
