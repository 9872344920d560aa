"""Importing this has highdicom read its tables of the Standard: half a second, and 110 MiB.

A process that is forked afterwards has them, and shares their memory: no study waits for them.
"""

from __future__ import annotations

import highdicom
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage

from operators.derived_uids import derived_uid


def _read_tables() -> None:
    """Make an object of nothing, as which highdicom looks up what belongs into one."""
    uid = derived_uid("warm")
    highdicom.SOPClass(
        study_instance_uid=uid,
        series_instance_uid=uid,
        series_number=1,
        sop_instance_uid=uid,
        sop_class_uid=SegmentationStorage,
        instance_number=1,
        modality="SEG",
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )


_read_tables()
