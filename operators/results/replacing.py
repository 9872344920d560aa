"""What a result says of the earlier results whose place it takes: more of their series came after they were sent.

Series Description says it to people in every kind of object. A report names its predecessors as such (Predecessor
Documents Sequence, PS3.3 C.17.2); a Segmentation has no such attribute, and names their series as related to its own
(Related Series Sequence, C.7.3.1, whose purpose of reference may be empty: no code of CID 7210 says it).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pydicom

from operators.object_kinds import REPORTS, SEGMENTATIONS, Kind

_LONGEST = 64
"""Characters of VR LO."""
_REPLACES = "AI, replaces earlier: "


@dataclass(frozen=True)
class ReplacedObject:
    """An object of an earlier result that somebody has."""

    kind: Kind
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str


def say_replaces(description: str) -> str:
    """Return a Series Description that says first that this takes an earlier result's place."""
    return f"{_REPLACES}{description.removeprefix('AI: ')}"[:_LONGEST].rstrip()


def relate_to_replaced(segmentation: pydicom.Dataset, replaced: Sequence[ReplacedObject]) -> None:
    """Name the series of the Segmentations that a Segmentation replaces."""
    series = dict.fromkeys(one.series_instance_uid for one in replaced if one.kind in SEGMENTATIONS)
    items = []
    for uid in series:
        item = pydicom.Dataset()
        item.StudyInstanceUID, item.SeriesInstanceUID = segmentation.StudyInstanceUID, uid
        item.PurposeOfReferenceCodeSequence = []
        items.append(item)
    if items:
        segmentation.RelatedSeriesSequence = items


def name_predecessors(document: pydicom.Dataset, replaced: Sequence[ReplacedObject]) -> None:
    """Name the reports that a report replaces."""
    by_series: dict[str, list[pydicom.Dataset]] = {}
    for one in replaced:
        if one.kind in REPORTS:
            item = pydicom.Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = one.sop_class_uid, one.sop_instance_uid
            by_series.setdefault(one.series_instance_uid, []).append(item)
    if not by_series:
        return
    predecessors = pydicom.Dataset()
    predecessors.StudyInstanceUID = document.StudyInstanceUID
    predecessors.ReferencedSeriesSequence = []
    for uid, items in by_series.items():
        series = pydicom.Dataset()
        series.SeriesInstanceUID, series.ReferencedSOPSequence = uid, items
        predecessors.ReferencedSeriesSequence.append(series)
    document.PredecessorDocumentsSequence = [predecessors]
