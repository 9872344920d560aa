"""Which proof each kind of object has to pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pydicom

from app.graph import FindingRecord
from app.jobs.readback.computed import ComputedLabels, require
from app.jobs.readback.segmentation import check_segmentation
from operators.object_kinds import Kind

Proof = Callable[[pydicom.Dataset, ComputedLabels, FindingRecord], None]
_PROOFS: Mapping[Kind, Proof] = {"segmentation": check_segmentation}


def check_object(kind: Kind, dataset: pydicom.Dataset, labels: ComputedLabels, finding: FindingRecord) -> None:
    """Hold an object against what was computed. Raises ``VerificationFailed`` if it is not that."""
    require(kind in _PROOFS, f"there is no proof for objects of the kind {kind}")
    _PROOFS[kind](dataset, labels, finding)
