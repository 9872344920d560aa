"""Pixel data and the attributes that say how to read it (PS3.3 C.7.6.3) contradict each other."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset

from tests.mutations.kind import Series, harmful, harmless, notable, undetectable
from tests.mutations.kinds.editing import MIDDLE, each, one
from tests.mutations.series import rescaled, restore, store, stored

_EIGHT_BITS = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
_WIDTH = "whoever looks at the images: they are torn"


@harmful("unreadable-instance")
def pixel_data_too_short(series: Series) -> Series:
    """One slice whose pixel data ends too early, in a file that is whole."""
    return one(series, PixelData=series[MIDDLE].PixelData[: len(series[MIDDLE].PixelData) // 2])


@harmful("unreadable-instance")
def empty_pixel_data(series: Series) -> Series:
    """One slice with empty pixel data."""
    return one(series, PixelData=b"")


@harmful("unreadable-instance")
def no_pixel_data(series: Series) -> Series:
    """One slice without pixel data."""
    return one(series, PixelData=None)


@harmful("unreadable-instance", "no-images")
def no_pixel_data_anywhere(series: Series) -> Series:
    """Headers only, as of a query."""
    return each(series, PixelData=None)


@harmless()
def pixel_data_padded(series: Series) -> Series:
    """Two bytes of padding after the pixels."""
    for dataset in series:
        dataset.PixelData += b"\0\0"
    return series


@harmful("unreadable-instance")
def bits_allocated_halved(series: Series) -> Series:
    """16 bits a pixel in the data, 8 in the header: twice as much data as is said."""
    return each(series, **_EIGHT_BITS)


@harmful("unreadable-instance")
def bits_allocated_halved_in_one_slice(series: Series) -> Series:
    """16 bits a pixel in the data, 8 in the header of one slice."""
    return one(series, **_EIGHT_BITS)


@harmful("unreadable-instance")
def bits_allocated_doubled(series: Series) -> Series:
    """16 bits a pixel in the data, 32 in the header."""
    return each(series, BitsAllocated=32, BitsStored=32, HighBit=31)


@harmful("unreadable-instance")
def bits_allocated_impossible(series: Series) -> Series:
    """13 bits allocated."""
    return each(series, BitsAllocated=13)


@harmful("unreadable-instance")
def no_bits_allocated(series: Series) -> Series:
    """No Bits Allocated."""
    return each(series, BitsAllocated=None)


@harmful("unreadable-instance")
def no_pixel_representation(series: Series) -> Series:
    """No Pixel Representation: whether values are signed is not said."""
    return each(series, PixelRepresentation=None)


@harmful("unreadable-instance")
def rows_halved(series: Series) -> Series:
    """Half as many rows in the header as in the data, in every slice."""
    return each(series, Rows=int(series[0].Rows) // 2)


@harmful("unreadable-instance")
def rows_too_few(series: Series) -> Series:
    """Three quarters as many rows in the header as in the data, in every slice: the lowest would be lost."""
    return each(series, Rows=int(series[0].Rows) * 3 // 4)


@harmful("unreadable-instance")
def one_row_too_few(series: Series) -> Series:
    """One row less in the header than in the data, in every slice."""
    return each(series, Rows=int(series[0].Rows) - 1)


@harmful("mixed-matrix", "unreadable-instance")
def rows_halved_in_one_slice(series: Series) -> Series:
    """Half as many rows in the header as in the data, in one slice."""
    return one(series, Rows=int(series[0].Rows) // 2)


@harmful("mixed-matrix")
def another_matrix_in_one_slice(series: Series) -> Series:
    """One slice of half the rows and columns, whole in itself."""
    dataset = series[MIDDLE]
    restore(dataset, stored(dataset)[::2, ::2])
    return series


@undetectable(_WIDTH, only="MR")
def rows_and_columns_swapped(series: Series) -> Series:
    """Rows and Columns swapped in the header of a matrix that is not square: as many pixels as before."""
    return each(series, Rows=int(series[0].Columns), Columns=int(series[0].Rows))


@harmful("unreadable-instance")
def no_rows(series: Series) -> Series:
    """No Rows."""
    return each(series, Rows=None)


@harmful("colour")
def colour(series: Series) -> Series:
    """Colour images."""
    for dataset in series:
        grey = np.clip(stored(dataset) / 8, 0, 255).astype(np.uint8)
        dataset.PixelData = np.stack([grey] * 3, axis=-1).tobytes()
    return each(series, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0, **_EIGHT_BITS)


@harmful("not-monochrome2", "colour")
def palette_colour(series: Series) -> Series:
    """Values that index a palette."""
    return each(series, PhotometricInterpretation="PALETTE COLOR")


@harmful("not-monochrome2", "unreadable-instance")
def no_photometric_interpretation(series: Series) -> Series:
    """No Photometric Interpretation."""
    return each(series, PhotometricInterpretation=None)


@harmful("multi-frame-unsupported", "unreadable-instance")
def frames_that_are_not_there(series: Series) -> Series:
    """A Number of Frames of 3 in single-frame images."""
    return each(series, NumberOfFrames=3)


@notable("lossy-compression")
def lossy(series: Series) -> Series:
    """Values that a lossy compression once changed, and that say so."""
    for dataset in series:
        values = np.rint(stored(dataset) / 16) * 16
        restore(dataset, values)
    return each(series, LossyImageCompression="01", LossyImageCompressionRatio="12")


@undetectable("nobody but who holds it against the original")
def lossy_and_silent(series: Series) -> Series:
    """Values that a lossy compression once changed, and that do not say so."""
    for dataset in series:
        values = np.rint(stored(dataset) / 16) * 16
        restore(dataset, values)
    return series


@undetectable("whoever looks at the images")
def a_blank_slice(series: Series) -> Series:
    """One slice all of zeros, as after a failed reconstruction."""
    return one(series, PixelData=bytes(len(series[MIDDLE].PixelData)))


@undetectable(_WIDTH)
def bytes_swapped(series: Series) -> Series:
    """Pixels in the other byte order than the transfer syntax says, in one slice."""
    return one(series, PixelData=np.frombuffer(series[MIDDLE].PixelData, "<u2").byteswap().tobytes())


@notable("bits-beyond-stored")
def bits_stored_too_few(series: Series) -> Series:
    """8 bits stored in the header, and values of more: what is above is no value (PS3.5 section 8.1.1), and cut off."""
    return each(series, BitsStored=8, HighBit=7)


@harmful("unreadable-instance")
def high_bit_elsewhere(series: Series) -> Series:
    """12 bits stored, said to be the highest of 16, as the Standard once allowed: readers take some or others."""
    for dataset in series:
        _twelve_bits(dataset)
        dataset.PixelData = (np.frombuffer(dataset.PixelData, "<u2") << 4).tobytes()
    return each(series, HighBit=15)


@undetectable("whoever knows that nothing is below air")
def unsigned_called_signed(series: Series) -> Series:
    """Unsigned values of 12 bits that the header calls signed: the bright ones turn dark."""
    for dataset in series:
        _twelve_bits(dataset)
    return each(series, PixelRepresentation=1)


@harmless()
def sign_copied_into_unused_bits(series: Series) -> Series:
    """Signed values of 13 bits, and the three bits above copies of the sign."""
    for dataset in series:
        store(dataset, rescaled(dataset))
        dataset.BitsStored, dataset.HighBit = 13, 12
        dataset.RescaleSlope, dataset.RescaleIntercept = "1", "0"
    return series


def _twelve_bits(dataset: Dataset) -> None:
    """The slice with 12 unsigned bits, spread so that its brightest values need the twelfth."""
    values = rescaled(dataset) + 1024
    spread = 1.0 if dataset.Modality == "CT" else 2.0
    store(dataset, np.minimum(values * spread, 4095), bits=12, signed=False)
    dataset.RescaleSlope, dataset.RescaleIntercept = f"{1 / spread:g}", "-1024"
