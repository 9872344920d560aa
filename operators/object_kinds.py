"""The kinds of objects that say what a model found, and what a receiver must accept to get each."""

from __future__ import annotations

from typing import Literal

from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    EnhancedSRStorage,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
    RLELossless,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

LABEL_MAP_SEGMENTATION_STORAGE = UID("1.2.840.10008.5.1.4.1.1.66.7")
"""PS3.4 Annex B; pydicom has no name for it yet."""
Kind = Literal[
    "segmentation",
    "labelmap",
    "fractional",
    "report",
    "report-on-labelmap",
    "report-alone",
    "structure-set",
    "capture",
    "presentation-state",
    "notice",
    "notice-page",
    "rejection-note",
]
"""Segmentation BINARY, LABELMAP and FRACTIONAL; TID 1500 report that refers to the first, to the second or to none; RT
Structure Set; Secondary Captures; presentation state; where there is no result, the report and the page that say so;
and the Key Object Selection Document that withdraws others."""

MANUFACTURER = "Limner"
"""Of all objects that are made here; by it they are known when they come back."""
SEGMENTATIONS: tuple[Kind, ...] = ("segmentation", "labelmap", "fractional")
"""They share a series."""
REPORTS: tuple[Kind, ...] = ("report", "report-on-labelmap", "report-alone")
"""They share a series too, and a destination gets one of them."""
REPORTED: dict[Kind, Kind] = {"report": "segmentation", "report-on-labelmap": "labelmap"}
"""What each report refers to."""
NOTICES: tuple[Kind, ...] = ("notice", "notice-page")
IMAGES: tuple[Kind, ...] = (*SEGMENTATIONS, "capture", "notice-page")
"""Those that are images: what refers to one says IMAGE, to another COMPOSITE (PS3.3 C.18)."""
NEEDS: dict[Kind, tuple[UID, UID]] = {
    "segmentation": (SegmentationStorage, ExplicitVRLittleEndian),
    "labelmap": (LABEL_MAP_SEGMENTATION_STORAGE, RLELossless),
    "fractional": (SegmentationStorage, ExplicitVRLittleEndian),
    "report": (Comprehensive3DSRStorage, ExplicitVRLittleEndian),
    "report-on-labelmap": (Comprehensive3DSRStorage, ExplicitVRLittleEndian),
    "report-alone": (Comprehensive3DSRStorage, ExplicitVRLittleEndian),
    "structure-set": (RTStructureSetStorage, ExplicitVRLittleEndian),
    "capture": (SecondaryCaptureImageStorage, ExplicitVRLittleEndian),
    "presentation-state": (GrayscaleSoftcopyPresentationStateStorage, ExplicitVRLittleEndian),
    "notice": (EnhancedSRStorage, ExplicitVRLittleEndian),
    "notice-page": (SecondaryCaptureImageStorage, ExplicitVRLittleEndian),
    "rejection-note": (KeyObjectSelectionDocumentStorage, ExplicitVRLittleEndian),
}
"""SOP class and transfer syntax of each."""
