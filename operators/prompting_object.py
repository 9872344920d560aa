"""An object that prompted an algorithm: what results say of it."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.uid import SegmentationStorage

from operators.derived_uids import instance_uid, series_uid


@dataclass(frozen=True)
class PromptingObject:
    """An object of the same study that prompted the algorithm."""

    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str = str(SegmentationStorage)

    @classmethod
    def of(cls, identity: str) -> PromptingObject:
        """Return the Segmentation that belongs to `identity`."""
        return cls(series_uid(identity), instance_uid(identity))
