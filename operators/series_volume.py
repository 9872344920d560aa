"""From the instances of one series to one volume in patient coordinates, or a refusal that says why not.

What is refused, by ``SeriesRefused.code``:

======================================  ==============================================================================
``no-images``                           no instance was given, or they hold no pixel data
``unreadable-instance``                 an instance is not DICOM, is cut off, or its pixel data can't be decoded
``transfer-syntax-unsupported``         no decoder is installed for the pixel data
``missing-identifiers``                 a study, series or SOP instance UID is missing
``duplicate-instance``                  two instances have the same SOP Instance UID
``mixed-series``, ``mixed-patient``     the instances are of several series or studies, or of several patients
``multi-frame-unsupported``             an enhanced or other multi-frame image
``sop-class-unsupported``               an image that is not CT, MR or PET
``colour``, ``not-monochrome2``         several samples a pixel; another photometric interpretation than MONOCHROME2
``mixed-matrix``, ``mixed-spacing``     several numbers of rows or columns; several pixel spacings
``missing-rescale``                     CT or PET without rescale slope and intercept, or with a lookup table instead
``missing-geometry``                    position, orientation or pixel spacing is missing or impossible
``missing-frame-of-reference``          no frame of reference
``mixed-frame-of-reference``            several frames of reference
``mixed-orientation``                   several orientations: a localizer, or several reconstructions
``too-few-slices``                      a single slice
``duplicate-position``                  several instances at one position: phases, echoes, or a doubled slice
``gantry-tilt``                         the slices are sheared: they do not lie along their normal
``slice-missing``                       slices are missing between others
``uneven-spacing``                      the slices are not evenly spaced
======================================  ==============================================================================

Lossy compression is accepted. Values beyond the padding value stay what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
from numpy.typing import NDArray

from operators.errors import SeriesRefused
from operators.instances import read_header, read_pixels
from operators.sdk import Fragment, Operator, OperatorSpec
from operators.series_checks import check_pixels, check_same_series, numbers
from operators.series_geometry import SeriesGeometry, find_geometry

Progress = Callable[[int, int], None]
"""Told the instances read and the instances in all."""


@dataclass(frozen=True)
class SeriesVolume:
    """A series as one volume."""

    volume: highdicom.Volume
    """float32, rescaled (Hounsfield units for CT). Axes slice, row, column; the affine maps them to patient coordinates
    (LPS, mm). Slices run so that the axes are right-handed, as highdicom orders them."""
    datasets: tuple[pydicom.Dataset, ...]
    """The headers in the order of the volume's slices, without pixel data."""


def read_series(files: Sequence[Path], progress: Progress | None = None) -> SeriesVolume:
    """Return the volume of the series in `files`, which may come in any order.

    Parameters
    ----------
    files
        One instance each.
    progress
        Called after each instance.

    Raises
    ------
    SeriesRefused
        If they are not one evenly spaced stack of images; the module's docstring lists the codes.
    """
    if not files:
        raise SeriesRefused("expected the instances of one series, got none", code="no-images")
    report = progress or (lambda done, total: None)
    report(0, len(files))
    headers = [read_header(path) for path in files]
    check_same_series(headers)
    check_pixels(headers)
    geometry = find_geometry(headers)
    order = np.argsort(geometry.slice_indices)
    array: NDArray[np.float32] = np.empty((len(files), int(headers[0].Rows), int(headers[0].Columns)), np.float32)
    for done, (target, index) in enumerate(zip(array, order, strict=True), start=1):
        read_pixels(files[index], target)
        report(done, len(files))
    datasets = tuple(headers[index] for index in order)
    return SeriesVolume(_volume(array, datasets[0], geometry), datasets)


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


class SeriesVolumeOperator(Operator):
    """Read a series: the source of the graph, so give it a ``CountCondition`` of 1.

    Output port ``series``: a `SeriesVolume`.

    Parameters
    ----------
    files
        The instances.
    progress
        Called after each instance.
    """

    def __init__(
        self, fragment: Fragment, *args: Any, files: Sequence[Path], progress: Progress | None = None, **kwargs: Any
    ) -> None:
        self._files = tuple(files)
        self._progress = progress
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """Declare the port."""
        spec.output("series")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Read the series and emit it."""
        op_output.emit(read_series(self._files, self._progress), "series")
