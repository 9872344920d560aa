"""UIDs of results that follow from the job: a retry has the same ones, so it replaces and never doubles."""

from __future__ import annotations

import uuid

from pydicom.uid import UID

from operators.object_kinds import REPORTS, SEGMENTATIONS, Kind

_NAMESPACE = uuid.UUID("0c6fb3f0-6f0d-5f5e-8f3f-0a8f4a3c9a55")


def derived_uid(identity: str, *facts: str) -> UID:
    """Return the UID that a result of the job `identity` has for `facts`: always the same one (PS3.5 B.2)."""
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, chr(31).join((identity, *facts))).int}")


def generalist_identity(identity: str) -> str:
    """Return the identity that the generalist's results have beside the specialist's, in the job `identity`."""
    return f"{identity}{chr(31)}generalist"


def series_uid(identity: str) -> UID:
    """Return the Series Instance UID of the job's segmentation."""
    return derived_uid(identity, "series")


def instance_uid(identity: str) -> UID:
    """Return the SOP Instance UID of the job's segmentation."""
    return derived_uid(identity, "instance")


def object_series_uid(identity: str, kind: Kind) -> UID:
    """Return the Series Instance UID of the objects of one kind; all Segmentations share one, and all reports."""
    if kind in SEGMENTATIONS:
        return series_uid(identity)
    return derived_uid(identity, "series", "report" if kind in REPORTS else kind)


def object_instance_uid(identity: str, kind: Kind, number: int = 1) -> UID:
    """Return the SOP Instance UID of the object of one kind; `number` counts where there are several."""
    if kind == "segmentation":
        return instance_uid(identity)
    return derived_uid(identity, "instance", kind, *([] if number == 1 else [str(number)]))
