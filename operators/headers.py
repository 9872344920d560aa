"""Reading the header of a file, however large it is: a Raw Data object may have a private value of gigabytes there.

It is apart from `operators.instances`, which looks at images, so that those who ask for a few attributes of anything
need nothing else.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian

LONGEST_BYTES = 1 << 16
"""Longer values are not read at once. In Explicit VR most representations can't have them (PS3.5 section 7.1.2)."""


def read_before_pixels(path: Path, keywords: Collection[str] = ()) -> pydicom.FileDataset:
    """Return the data set before its pixel data. Values that are longer than `LONGEST_BYTES` are not in memory.

    Each of them is read when it is asked for (as functional groups and what was drawn are), which needs the file still
    to be there. `is_unread` tells which they are. Who keeps the data set, or goes through all of it, is to take them
    out before: `without_unread`.

    Parameters
    ----------
    keywords
        The only attributes to be read; all if there are none.

    Raises
    ------
    OSError, PARSE_ERRORS
        If it can't be read, or is no DICOM file.
    """
    with path.open("rb") as file:
        return before_pixels(file, keywords)


def before_pixels(file: BinaryIO, keywords: Collection[str] = ()) -> pydicom.FileDataset:
    """Do the same with an open file of the disk, which is then at its pixel data."""
    wanted = sorted(keywords) or None
    dataset = pydicom.dcmread(file, stop_before_pixels=True, defer_size=LONGEST_BYTES, specific_tags=wanted)
    if dataset.file_meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        # it is in memory as a whole once it is inflated, and nothing of it can be read from its place in the file
        file.seek(0)
        return pydicom.dcmread(file, stop_before_pixels=True, specific_tags=wanted)
    dataset.filename = str(file.name)  # pydicom opens only a text anew
    return dataset


def is_unread(dataset: pydicom.Dataset, tag: BaseTag | int) -> bool:
    """Whether an element of a header was left in its file for its length."""
    element: object = dataset.get_item(tag, keep_deferred=True)
    return isinstance(element, RawDataElement) and element.value is None and element.length != 0


def without_unread(dataset: pydicom.FileDataset) -> pydicom.FileDataset:
    """Take what was left in the file out of a header, and return it: the file is needed no more."""
    for tag in [one for one in dataset.keys() if is_unread(dataset, one)]:  # noqa: SIM118 - see `with_same_elements`
        del dataset[tag]
    return dataset
