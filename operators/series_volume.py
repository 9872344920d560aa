"""From the instances of one series to one volume in patient coordinates, or a refusal that says why not.

What is refused, by ``SeriesRefused.code``:

======================================  ==============================================================================
``no-images``                           no instance was given, or they hold no pixel data
``unreadable-instance``                 an instance is not DICOM, is cut off, has other pixel data than its header
                                        describes, or they can't be decoded
``transfer-syntax-unsupported``         no decoder is installed for the pixel data
``missing-identifiers``                 a study, series or SOP instance UID is missing
``duplicate-instance``                  two instances have the same SOP Instance UID
``mixed-series``, ``mixed-patient``     the instances are of several series or studies, or of several patients
``multi-frame-unsupported``             several frames, and nothing says where they lie
``sop-class-unsupported``               an image that is not CT, MR or PET
``colour``, ``not-monochrome2``         colour; not MONOCHROME2, nor, in CT and PET, MONOCHROME1
``mixed-sop-class``                     images of several SOP classes, each with units of its own
``mixed-matrix``, ``mixed-spacing``     several numbers of rows or columns; several pixel spacings
``missing-rescale``                     CT or PET without rescale slope and intercept, any with a lookup table instead,
                                        or with slope and intercept in some slices and none of use in others
``missing-geometry``                    position, orientation or pixel spacing is missing or impossible
``missing-frame-of-reference``          no frame of reference
``mixed-frame-of-reference``            several frames of reference
``mixed-orientation``                   several orientations: several reconstructions
``too-few-slices``                      a single slice, where the gate does not take one
``duplicate-position``                  several slices at one position: phases, echoes, b-values, or side by side
``gantry-tilt``                         the slices are sheared: they do not lie along their normal
``slice-missing``                       slices are missing between others, or part of a concatenation
``uneven-spacing``                      the slices are not evenly spaced, or some lie beside the others
``channel-elsewhere``                   a channel's series shows no part of what the first channel's shows
======================================  ==============================================================================

Several series are one input where a model has several channels: each must be a volume by itself, all of one patient
and study and in one frame of reference. What is wrong with one is said with the name of its channel.

A slice is an instance of a single-frame image, or a frame of an enhanced or legacy converted one: `operators.slices`.
Lossy compression is accepted. Padding becomes what the modality means by nothing: `operators.pixels`.
docs/reference/inputs.md says all that is accepted and repaired.

Before all that `operators.gate` takes out what is no slice of the series, and with a model's card it asks whether the
model is for such a series; `operators.gate.policies` lists what else it refuses, warns of or repairs.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import highdicom
import numpy as np
import pydicom
from numpy.typing import NDArray

from operators.errors import SeriesRefused
from operators.gate.gate import Gate
from operators.gate.notes import GateNote
from operators.instances import read_header
from operators.one_grid import on_grid
from operators.pixels import Decoded, read_pixels
from operators.series_checks import check_concatenations, check_pixels, check_same_series, check_same_study, numbers
from operators.series_geometry import SeriesGeometry, find_geometry
from operators.slices import Slice, slices_of

Progress = Callable[[int, int], None]
"""Told the instances read and the instances in all."""
_DEFAULT_GATE = Gate()


@dataclass(frozen=True)
class SeriesVolume:
    """A series as one volume, or several, one a channel of the model, as volumes on the grid of the first."""

    channels: tuple[highdicom.Volume, ...]
    """float32, rescaled (Hounsfield units for CT). Axes slice, row, column; the affine maps them to patient coordinates
    (LPS, mm). Slices run so that the axes are right-handed, as highdicom orders them. All have the geometry of the
    first; the others are 0 where their series shows nothing."""
    datasets: tuple[pydicom.Dataset, ...]
    """The headers of the first channel's slices in their order, without pixel data. Of a frame of a multi-frame image
    it is what a single-frame image of it would say: its own place and rescale, and the UIDs of its instance."""
    frame_numbers: tuple[int | None, ...] = ()
    """For each slice of the first channel which frame of its instance it is, from 1; None in a single-frame image."""
    padded_slices: tuple[int, ...] = ()
    """Indices of the first channel's slices in which pixels were padding, and are now what the modality means by
    nothing."""
    notes: tuple[GateNote, ...] = ()
    """What the gate let pass or put in order, of all channels."""
    dropped: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """SOP Instance UIDs of what the gate left out, of all channels, with the numbers of the frames where only some of
    an instance's were; without any where nothing of the instance was kept."""

    @property
    def volume(self) -> highdicom.Volume:
        """The first channel, whose series lends its grid."""
        return self.channels[0]


def read_series(files: Sequence[Path], progress: Progress | None = None, gate: Gate = _DEFAULT_GATE) -> SeriesVolume:
    """Return the volume of the series in `files`, which may come in any order.

    Parameters
    ----------
    files
        One instance each.
    progress
        Called after each slice, with how many instances are done.
    gate
        What its model wants of it, and what is done where that is not so.

    Raises
    ------
    SeriesRefused
        If they are not one evenly spaced stack of images, or the gate refuses them; the module's docstring lists the
        codes.
    """
    if not files:
        raise SeriesRefused("expected the instances of one series, got none", code="no-images")
    report = progress or (lambda done, total: None)
    report(0, len(files))
    instances = [read_header(path) for path in files]
    check_same_series(instances)
    everything = [one for path, instance in zip(files, instances, strict=True) for one in slices_of(path, instance)]
    check_concatenations(instances)
    admitted = gate.admit([one.header for one in everything], lambda index: _pixel_digest(everything[index]))
    slices = [everything[index] for index in admitted.kept]
    headers = [one.header for one in slices]
    check_pixels(headers)
    geometry = find_geometry(headers, takes_single_slice=gate.takes_single_slice)
    notes = (*admitted.notes, *gate.judge(headers, geometry.spacing if geometry.is_spacing_known else None))
    array: NDArray[np.float32] = np.empty((len(headers), int(headers[0].Rows), int(headers[0].Columns)), np.float32)
    decoded = _read_slices(slices, geometry.slice_indices, array, report, len(files))
    order = np.argsort(geometry.slice_indices)
    datasets = tuple(headers[index] for index in order)
    return SeriesVolume(
        channels=(_volume(array, datasets[0], geometry),),
        datasets=datasets,
        frame_numbers=tuple(slices[index].frame_number for index in order),
        padded_slices=tuple(index for index, one in enumerate(decoded) if one.has_padding),
        notes=(*notes, *gate.judge_volume(array, decoded)),
        dropped=_dropped(everything, slices),
    )


def _read_slices(
    slices: Sequence[Slice], slice_indices: Sequence[int], array: NDArray[np.float32], report: Progress, total: int
) -> list[Decoded]:
    """Decode each instance's slices to their places in `array`; return what came to light of each, in that order."""
    decoded = [Decoded()] * len(slices)
    places = iter(slice_indices)
    read = [list(some) for _, some in itertools.groupby(slices, key=lambda one: one.path)]
    for done, some in enumerate(read):
        indices = [next(places) for _ in some]
        reading = read_pixels(some, [array[index] for index in indices])
        for count, (index, one) in enumerate(zip(indices, reading, strict=True), start=1):
            decoded[index] = one
            report(done + (count == len(indices)), total)
    if len(read) < total:  # the gate left out the others
        report(total, total)
    return decoded


def _pixel_digest(one: Slice) -> str:
    """SHA-256 of a slice's rescaled pixels."""
    check_pixels([one.header])
    pixels: NDArray[np.float32] = np.empty((int(one.header.Rows), int(one.header.Columns)), np.float32)
    for _ in read_pixels([one], [pixels]):
        pass
    return hashlib.sha256(pixels.tobytes()).hexdigest()


def _dropped(everything: Sequence[Slice], kept: Sequence[Slice]) -> dict[str, tuple[int, ...]]:
    """What was not kept of each instance, in the order of their UIDs."""
    rest = {(str(one.header.SOPInstanceUID), one.frame_number) for one in kept}
    used = {uid for uid, _ in rest}
    left: dict[str, tuple[int, ...]] = {}
    for one in sorted(everything, key=lambda one: (str(one.header.SOPInstanceUID), one.frame_number or 0)):
        uid = str(one.header.SOPInstanceUID)
        if uid not in used:
            left[uid] = ()
        elif one.frame_number is not None and (uid, one.frame_number) not in rest:
            left[uid] = (*left.get(uid, ()), one.frame_number)
    return left


def read_channels(
    inputs: Mapping[str, Sequence[Path]], progress: Progress | None = None, gate: Gate = _DEFAULT_GATE
) -> SeriesVolume:
    """Return the volumes of one series a channel, all on the grid of the first.

    Parameters
    ----------
    inputs
        Name and instances of each channel, in the model's order.
    progress
        Called after each instance, of all channels together, and at the end.
    gate
        What the model wants of each of them; its notes have the channel's name.

    Raises
    ------
    SeriesRefused
        As `read_series` does, with the channel's name; ``mixed-series`` or ``mixed-patient`` if the series are of
        several studies or patients, ``mixed-frame-of-reference`` and ``channel-elsewhere`` if they have no place in
        common.
    """
    report = progress or (lambda done, total: None)
    total = sum(len(files) for files in inputs.values())
    begun = 0
    first: SeriesVolume | None = None
    channels: list[highdicom.Volume] = []
    notes: list[GateNote] = []
    dropped: dict[str, tuple[int, ...]] = {}
    for number, (channel, files) in enumerate(inputs.items()):
        with _naming(channel):
            series = read_series(files, _counting_on(report, begun, total), gate.of_channel(number))
            first = first or series
            channels.append(_beside(series, first))
        notes += [note.of_channel(channel) for note in series.notes]
        dropped.update(series.dropped)
        begun += len(files)
    if first is None:
        raise SeriesRefused("expected the series of at least one channel, got none", code="no-images")
    report(total, total)
    return replace(first, channels=tuple(channels), notes=tuple(notes), dropped=dropped)


def _counting_on(report: Progress, begun: int, total: int) -> Progress:
    return lambda done, _: report(begun + done, total)


@contextmanager
def _naming(channel: str) -> Iterator[None]:
    """Say of a refusal which channel's series it is about."""
    try:
        yield
    except SeriesRefused as error:
        raise SeriesRefused(f"channel {channel}: {error}", code=error.code) from error


def _beside(series: SeriesVolume, first: SeriesVolume) -> highdicom.Volume:
    """The volume of a channel's series on the grid of the first channel's."""
    if series is first:
        return first.volume
    check_same_study([first.datasets[0], series.datasets[0]])
    if series.volume.frame_of_reference_uid != first.volume.frame_of_reference_uid:
        raise SeriesRefused(
            "expected the frame of reference of the first channel's series, got another; positions of different ones "
            "can't be compared, so that series of one examination, or registered ones, are needed",
            code="mixed-frame-of-reference",
        )
    volume = on_grid(series.volume, first.volume)
    if volume is None:
        raise SeriesRefused(
            "expected a series that shows what the first channel's shows, got one that lies wholly beside it",
            code="channel-elsewhere",
        )
    return volume


def _volume(array: NDArray[np.float32], first: pydicom.Dataset, geometry: SeriesGeometry) -> highdicom.Volume:
    return highdicom.Volume.from_attributes(
        array=array,
        image_position=numbers(first, "ImagePositionPatient"),
        image_orientation=numbers(first, "ImageOrientationPatient"),
        pixel_spacing=numbers(first, "PixelSpacing"),
        spacing_between_slices=geometry.spacing,
        coordinate_system="PATIENT",
        frame_of_reference_uid=str(first.FrameOfReferenceUID),
    )
