"""Whose the instances are, and which: several patients, studies or series in one, identifiers missing or doubled."""

from __future__ import annotations

from tests.mutations.kind import Series, harmful, repairable
from tests.mutations.kinds.editing import MIDDLE, brighter, copies, each, one, some
from tests.mutations.series import renamed


@harmful("mixed-patient")
def two_patient_ids(series: Series) -> Series:
    """One slice of a patient with another Patient ID."""
    return one(series, PatientID="ANOTHER-9")


@harmful("mixed-patient")
def two_patient_names(series: Series) -> Series:
    """One slice of a patient with another name and the same ID."""
    return one(series, PatientName="Another^Patient")


@harmful("mixed-patient")
def two_birth_dates(series: Series) -> Series:
    """One slice of a patient of another birth date, else the same."""
    return one(series, PatientBirthDate="19700102")


@harmful("mixed-patient")
def patient_id_missing_in_one_slice(series: Series) -> Series:
    """One slice that does not say whose it is."""
    return one(series, PatientID=None)


@harmful("mixed-series")
def two_studies(series: Series) -> Series:
    """Half the slices of another study."""
    return some(series, range(10, len(series)), StudyInstanceUID="2.25.98")


@harmful("mixed-series")
def two_series(series: Series) -> Series:
    """Every second slice of another series, at places between: together an even stack."""
    return some(series, range(0, len(series), 2), SeriesInstanceUID="2.25.97")


@harmful("missing-identifiers")
def no_study_uid(series: Series) -> Series:
    """No Study Instance UID."""
    return each(series, StudyInstanceUID=None)


@harmful("missing-identifiers")
def empty_series_uid(series: Series) -> Series:
    """An empty Series Instance UID."""
    return each(series, SeriesInstanceUID="")


@harmful("missing-identifiers")
def no_instance_uid_in_one_slice(series: Series) -> Series:
    """One slice without SOP Instance UID."""
    return one(series, SOPInstanceUID=None)


@harmful("duplicate-instance")
def instance_uid_of_another_slice(series: Series) -> Series:
    """Two slices with the same SOP Instance UID, at their own places."""
    return one(series, SOPInstanceUID=str(series[0].SOPInstanceUID))


@harmful("duplicate-instance", "duplicate-position")
def one_instance_with_two_contents(series: Series) -> Series:
    """The same SOP Instance UID and position twice, with other pixels."""
    return [*series, brighter(copies([series[MIDDLE]])[0])]


@repairable("duplicate-instance")
def one_instance_twice(series: Series) -> Series:
    """The same instance twice, byte by byte."""
    return [*series, *copies([series[MIDDLE]])]


@repairable("duplicate-slice", "duplicate-position")
def a_slice_twice_with_another_uid(series: Series) -> Series:
    """The same slice twice, the second with another SOP Instance UID: one can be left out."""
    return [*series, renamed(copies([series[MIDDLE]])[0], "again")]


@repairable("duplicate-slice", "duplicate-position")
def every_slice_twice_with_another_uid(series: Series) -> Series:
    """The whole series twice, as sent by two archives that give their own SOP Instance UIDs."""
    return [*series, *(renamed(dataset, "again") for dataset in copies(series))]
