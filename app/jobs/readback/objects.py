"""Which proof each kind of object has to pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom

from app.errors import VerificationFailed
from app.graph import FindingRecord
from app.jobs.readback.capture import check_captures
from app.jobs.readback.computed import ComputedLabels, require
from app.jobs.readback.fractional import check_fractional
from app.jobs.readback.labelmap import check_labelmap
from app.jobs.readback.presentation_state import check_presentation_state
from app.jobs.readback.report import check_report
from app.jobs.readback.segmentation import check_segmentation
from app.jobs.readback.sources import SourceSlices, check_derivations
from app.jobs.readback.structure_set import check_structure_set
from operators.nnunet.probability_maps import STEPS
from operators.object_kinds import REPORTED, REPORTS, SEGMENTATIONS, Kind


@dataclass(frozen=True)
class Proof:
    """What the objects of one finding are held against."""

    labels: ComputedLabels
    finding: FindingRecord
    sources: Sequence[pydicom.Dataset]
    """Headers of the instances that were read."""
    slices: SourceSlices
    """Those of the instances that were read."""
    prompted_by: Sequence[str]
    """SOP Instance UIDs of what prompted it."""
    probabilities: Path | None = None
    """What the model kept (`operators.nnunet.probability_maps`), unchanged since."""
    proved: dict[Kind, pydicom.Dataset] = field(default_factory=dict)
    """The Segmentations that passed already: reports refer to them."""

    def check(self, kind: Kind, datasets: Sequence[pydicom.Dataset]) -> None:
        """Hold the objects of a kind against what was computed.

        Raises
        ------
        VerificationFailed
            If they are not that.
        """
        if kind == "capture":
            check_captures(datasets, self.labels, self.finding, self.slices)
            return
        require(len(datasets) == 1, f"there are {len(datasets)} objects of the kind {kind}")
        (dataset,) = datasets
        if kind in REPORTS:
            self._check_report(kind, dataset)
        elif kind == "fractional":
            self._check_fractional(dataset)
        elif kind in _CHECKS_ON_SLICES:
            _CHECKS_ON_SLICES[kind](dataset, self.labels, self.finding, self.slices)
        else:
            require(kind in _CHECKS, f"there is no proof for objects of the kind {kind}")
            _CHECKS[kind](dataset, self.labels, self.finding)
        if kind in SEGMENTATIONS:
            check_derivations(dataset, self.labels, self.slices)
            self.proved[kind] = dataset

    def _check_fractional(self, dataset: pydicom.Dataset) -> None:
        if self.probabilities is None:
            raise VerificationFailed("a result, read back, can't be what was computed: no probabilities were kept")
        kept = np.load(self.probabilities, mmap_mode="r", allow_pickle=False)
        values = sorted(segment.label_value for segment in self.finding.segments)
        require(len(kept) == len(values), "there are other probabilities than segments")
        computed = ((value, one.astype(np.float32) / STEPS) for value, one in zip(values, kept, strict=True))
        check_fractional(dataset, self.labels, self.finding, computed)

    def _check_report(self, kind: Kind, dataset: pydicom.Dataset) -> None:
        referred = self.proved.get(REPORTED.get(kind, kind))
        require(referred is not None or kind == "report-alone", "the object that it refers to was not proved before")
        check_report(
            dataset,
            self.labels,
            self.finding,
            segmentation=referred,
            sources=self.sources,
            prompted_by=self.prompted_by,
        )


_CHECKS: Mapping[Kind, Callable[[pydicom.Dataset, ComputedLabels, FindingRecord], None]] = {
    "segmentation": check_segmentation,
    "labelmap": check_labelmap,
}
_CHECKS_ON_SLICES: Mapping[Kind, Callable[[pydicom.Dataset, ComputedLabels, FindingRecord, SourceSlices], None]] = {
    "structure-set": check_structure_set,
    "presentation-state": check_presentation_state,
}
