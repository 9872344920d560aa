"""Single-frame Secondary Captures in colour (PS3.3 A.8.1): the objects that every archive and viewer shows.

Single-frame, and not Multi-frame True Color: whoever needs pictures has a viewer that knows no newer class of object,
and such viewers know no multi-frame ones either. Uncompressed RGB for the same reason.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pydicom
from highdicom.sc import SCImage
from pydicom.uid import UID, ExplicitVRLittleEndian

from operators.object_kinds import MANUFACTURER
from operators.results.common_modules import complete, identity_header
from operators.results.equipment import equipment_attributes
from operators.results.finding import Algorithm
from operators.results.pages import Picture
from operators.source_identity import moment_of

_WORKSTATION = "WSD"
"""Conversion Type (PS3.3 C.8.6.1)."""


@dataclass(frozen=True)
class CaptureSeries:
    """What all captures of one run have in common."""

    headers: Sequence[pydicom.Dataset]
    """Of the source's slices, or of its instances."""
    study_instance_uid: str
    series_instance_uid: UID
    series_number: int
    description: str
    algorithm: Algorithm | None
    own_text: Sequence[str]
    """What they say beside their description and the model."""
    undated: datetime.datetime | None = None
    """As `moment_of` has it."""

    @cached_property
    def _moment(self) -> tuple[str, str]:
        return moment_of(self.headers, self.undated)

    @cached_property
    def _identity(self) -> pydicom.Dataset:
        return identity_header(self.headers, self.study_instance_uid)

    def capture(self, picture: Picture, sop_instance_uid: UID, number: int, *, burned_in: str) -> SCImage:
        """Return a picture as an object without place in the patient.

        Parameters
        ----------
        number
            Instance Number, from 1.
        burned_in
            Burned In Annotation, YES or NO.
        """
        date, time = self._moment
        model: dict[str, Any] = {"manufacturer": MANUFACTURER}
        if self.algorithm is not None:
            model.update(equipment_attributes(self.algorithm))
        image = SCImage(
            pixel_array=picture,
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            patient_orientation=("L", "P"),  # wanted here, and taken away below
            study_instance_uid=self.study_instance_uid,
            series_instance_uid=self.series_instance_uid,
            series_number=self.series_number,
            sop_instance_uid=sop_instance_uid,
            instance_number=number,
            series_description=self.description,
            transfer_syntax_uid=ExplicitVRLittleEndian,
            content_date=date,
            content_time=time,
            **model,
        )
        image.copy_patient_and_study_information(self._identity)
        image.PatientOrientation = None  # Type 2C, not known here; the same of Laterality
        image.Laterality = ""
        image.DateOfSecondaryCapture, image.TimeOfSecondaryCapture = date, time
        image.ConversionType = _WORKSTATION
        image.BurnedInAnnotation = burned_in
        complete(image, self.headers[0], self._moment, self.algorithm, own_text=[self.description, *self.own_text])
        return image
