"""What prompted a Segmentation, named in it where the Standard has places for it."""

from __future__ import annotations

import copy

import pydicom
from highdicom.seg import Segmentation
from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    ExtensibleSRStorage,
    SegmentationStorage,
)

from operators.object_kinds import LABEL_MAP_SEGMENTATION_STORAGE
from operators.results.finding import PromptingObject

_SEGMENTATION_CLASSES = (SegmentationStorage, LABEL_MAP_SEGMENTATION_STORAGE)
_REPORT_CLASSES = (EnhancedSRStorage, ComprehensiveSRStorage, Comprehensive3DSRStorage, ExtensibleSRStorage)


def refer_to(segmentation: Segmentation, prompting: PromptingObject) -> None:
    """Name what prompted it where the Standard has places for it.

    The Common Instance Reference Module (PS3.3 C.12.2) lists all that an instance refers to. What an image was derived
    from is listed by the General Image Module's Source Image Sequence (C.7.6.1), with a purpose from CID 7202, and,
    where it is no image, by the General Reference Module's Source Instance Sequence (C.12.4), with one from CID 7013.
    The frames' own derivation (C.7.6.16.2.6) stays that from the series: they were computed of its pixels.
    """
    instance = pydicom.Dataset()
    instance.ReferencedSOPClassUID = prompting.sop_class_uid
    instance.ReferencedSOPInstanceUID = prompting.sop_instance_uid
    source = copy.deepcopy(instance)
    if prompting.sop_class_uid in _SEGMENTATION_CLASSES:
        source.PurposeOfReferenceCodeSequence = [
            CodedConcept.from_code(codes.DCM.SourceImageForImageProcessingOperation)
        ]
        segmentation.SourceImageSequence.append(source)
    else:
        if prompting.sop_class_uid in _REPORT_CLASSES:
            source.PurposeOfReferenceCodeSequence = [CodedConcept.from_code(codes.DCM.SourceReport)]
        segmentation.SourceInstanceSequence = [*segmentation.get("SourceInstanceSequence", ()), source]
    for series in segmentation.ReferencedSeriesSequence:
        if series.SeriesInstanceUID == prompting.series_instance_uid:
            series.ReferencedInstanceSequence.append(instance)
            return
    series = pydicom.Dataset()
    series.SeriesInstanceUID = prompting.series_instance_uid
    series.ReferencedInstanceSequence = [instance]
    segmentation.ReferencedSeriesSequence.append(series)
