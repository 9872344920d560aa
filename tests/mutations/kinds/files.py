"""The files themselves: cut off, overwritten, or no DICOM at all."""

from __future__ import annotations

import io

import numpy as np
import pydicom
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from tests.mutations.kind import Files, harmful, harmless, repairable, undetectable
from tests.mutations.kinds.editing import MIDDLE
from tests.mutations.series import encoded

_DIGEST = "whoever has a digest from before: the transport, the archive"


def _changed(files: Files, content: bytes) -> Files:
    return [*files[:MIDDLE], content, *files[MIDDLE + 1 :]]


@harmful("unreadable-instance", on_files=True)
def cut_in_the_pixels(files: Files) -> Files:
    """One file that ends amid its pixel data."""
    return _changed(files, files[MIDDLE][:-5000])


@harmful("unreadable-instance", on_files=True)
def cut_by_two_bytes(files: Files) -> Files:
    """One file that lacks its last two bytes."""
    return _changed(files, files[MIDDLE][:-2])


@harmful("unreadable-instance", on_files=True)
def cut_in_the_header(files: Files) -> Files:
    """One file that ends amid its header."""
    return _changed(files, files[MIDDLE][:700])


@harmful("unreadable-instance", on_files=True)
def empty_file(files: Files) -> Files:
    """One file of no bytes."""
    return _changed(files, b"")


@harmful("unreadable-instance", on_files=True)
def zeros_instead(files: Files) -> Files:
    """One file of the right length, all zeros, as after a power cut."""
    return _changed(files, bytes(len(files[MIDDLE])))


@repairable("unreadable-instance", on_files=True)
def a_text_file_beside(files: Files) -> Files:
    """A text file beside the instances."""
    return [*files, b"Exported by the workstation.\r\n" * 20]


@harmful("unreadable-instance", on_files=True)
def html_instead(files: Files) -> Files:
    """One file that is the error page of a web server."""
    return _changed(files, b"<!DOCTYPE html><html><body>502 Bad Gateway</body></html>" * 20)


@harmful("unreadable-instance", on_files=True)
def no_preamble(files: Files) -> Files:
    """One file without preamble and prefix, so that it does not say that it is DICOM."""
    return _changed(files, files[MIDDLE][132:])


@harmful("unreadable-instance", on_files=True)
def no_meta_information(files: Files) -> Files:
    """One file without file meta information: its transfer syntax is not said."""
    target = io.BytesIO()
    dataset = pydicom.dcmread(io.BytesIO(files[MIDDLE]))
    target.write(bytes(128) + b"DICM")
    del dataset.file_meta
    dataset.save_as(target, implicit_vr=False, little_endian=True)
    return _changed(files, target.getvalue())


@harmful("unreadable-instance", on_files=True)
def uncompressed_called_rle(files: Files) -> Files:
    """One file whose meta information calls its uncompressed pixel data RLE Lossless."""
    return _changed(files, files[MIDDLE].replace(ExplicitVRLittleEndian.encode(), RLELossless.encode(), 1))


@harmful("unreadable-instance", on_files=True)
def jpeg_2000_cut(files: Files) -> Files:
    """One file in JPEG 2000 whose code stream ends too early."""
    dataset = pydicom.dcmread(io.BytesIO(files[MIDDLE]))
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    content = encoded(dataset)
    return _changed(files, content[: len(content) * 9 // 10])


@undetectable(_DIGEST, on_files=True)
def pixels_overwritten_with_zeros(files: Files) -> Files:
    """One file of the right length whose last quarter is zeros, as after a power cut."""
    content = files[MIDDLE]
    kept = len(content) * 3 // 4
    return _changed(files, content[:kept] + bytes(len(content) - kept))


@undetectable(_DIGEST, on_files=True)
def bits_flipped_in_the_pixels(files: Files) -> Files:
    """Some flipped bits in the pixel data of one file."""
    content = bytearray(files[MIDDLE])
    for place in np.random.default_rng(3).integers(len(content) - 8000, len(content), 40):
        content[place] ^= 0x20
    return _changed(files, bytes(content))


@harmless(on_files=True)
def preamble_of_another_format(files: Files) -> Files:
    """Files whose preamble makes them TIFF as well (PS3.10 section 7.1), as of digital slides."""
    return [b"II*\x00\x08\x00\x00\x00" + bytes(120) + content[128:] for content in files]
