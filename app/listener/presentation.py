"""What the listener accepts: SOP classes and transfer syntaxes (PS3.8 section 9.3.2, PS3.4 annex B.5, PS3.5 annex A).

The conformance statement is generated from the tables here.
"""

from __future__ import annotations

from collections.abc import Mapping

from pynetdicom import AllStoragePresentationContexts, build_context, register_uid
from pynetdicom.presentation import PresentationContext
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import Verification, uid_to_service_class

from app.identifiers import UID

VERIFICATION_SOP_CLASS = UID(str(Verification))
"""C-ECHO (PS3.4 annex A)."""

UNCOMPRESSED_TRANSFER_SYNTAXES: Mapping[UID, str] = {
    UID("1.2.840.10008.1.2.1"): "Explicit VR Little Endian",
    UID("1.2.840.10008.1.2"): "Implicit VR Little Endian",
    UID("1.2.840.10008.1.2.2"): "Explicit VR Big Endian",
}
"""Native encodings, the preferred one first."""

COMPRESSED_TRANSFER_SYNTAXES: Mapping[UID, str] = {
    UID("1.2.840.10008.1.2.1.98"): "Encapsulated Uncompressed Explicit VR Little Endian",
    UID("1.2.840.10008.1.2.5"): "RLE Lossless",
    UID("1.2.840.10008.1.2.4.90"): "JPEG 2000 (Lossless Only)",
    UID("1.2.840.10008.1.2.4.201"): "High-Throughput JPEG 2000 (Lossless Only)",
    UID("1.2.840.10008.1.2.4.202"): "High-Throughput JPEG 2000 with RPCL Options (Lossless Only)",
    UID("1.2.840.10008.1.2.4.80"): "JPEG-LS Lossless",
    UID("1.2.840.10008.1.2.4.70"): "JPEG Lossless, First-Order Prediction (Process 14, Selection Value 1)",
    UID("1.2.840.10008.1.2.4.57"): "JPEG Lossless (Process 14)",
    UID("1.2.840.10008.1.2.4.92"): "JPEG 2000 Part 2 Multi-component (Lossless Only)",
    UID("1.2.840.10008.1.2.4.110"): "JPEG XL Lossless",
    UID("1.2.840.10008.1.2.4.111"): "JPEG XL JPEG Recompression",
    UID("1.2.840.10008.1.2.4.91"): "JPEG 2000",
    UID("1.2.840.10008.1.2.4.203"): "High-Throughput JPEG 2000",
    UID("1.2.840.10008.1.2.4.93"): "JPEG 2000 Part 2 Multi-component",
    UID("1.2.840.10008.1.2.4.81"): "JPEG-LS Lossy (Near-Lossless)",
    UID("1.2.840.10008.1.2.4.112"): "JPEG XL",
    UID("1.2.840.10008.1.2.4.51"): "JPEG Extended (Process 2 and 4)",
    UID("1.2.840.10008.1.2.4.50"): "JPEG Baseline (Process 1)",
    UID("1.2.840.10008.1.2.4.100"): "MPEG2 Main Profile / Main Level",
    UID("1.2.840.10008.1.2.4.100.1"): "Fragmentable MPEG2 Main Profile / Main Level",
    UID("1.2.840.10008.1.2.4.101"): "MPEG2 Main Profile / High Level",
    UID("1.2.840.10008.1.2.4.101.1"): "Fragmentable MPEG2 Main Profile / High Level",
    UID("1.2.840.10008.1.2.4.102"): "MPEG-4 AVC/H.264 High Profile / Level 4.1",
    UID("1.2.840.10008.1.2.4.102.1"): "Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.1",
    UID("1.2.840.10008.1.2.4.103"): "MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1",
    UID("1.2.840.10008.1.2.4.103.1"): "Fragmentable MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1",
    UID("1.2.840.10008.1.2.4.104"): "MPEG-4 AVC/H.264 High Profile / Level 4.2 For 2D Video",
    UID("1.2.840.10008.1.2.4.104.1"): "Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.2 For 2D Video",
    UID("1.2.840.10008.1.2.4.105"): "MPEG-4 AVC/H.264 High Profile / Level 4.2 For 3D Video",
    UID("1.2.840.10008.1.2.4.105.1"): "Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.2 For 3D Video",
    UID("1.2.840.10008.1.2.4.106"): "MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2",
    UID("1.2.840.10008.1.2.4.106.1"): "Fragmentable MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2",
    UID("1.2.840.10008.1.2.4.107"): "HEVC/H.265 Main Profile / Level 5.1",
    UID("1.2.840.10008.1.2.4.108"): "HEVC/H.265 Main 10 Profile / Level 5.1",
}
"""Encapsulated encodings, lossless before lossy: a sender that offers a choice is never asked for a lossy one."""

TRANSFER_SYNTAXES: Mapping[UID, str] = {**UNCOMPRESSED_TRANSFER_SYNTAXES, **COMPRESSED_TRANSFER_SYNTAXES}
"""Every accepted transfer syntax in the order of preference; the first that the sender offers too is chosen."""

REFUSED_TRANSFER_SYNTAXES: Mapping[UID, str] = {
    UID("1.2.840.10008.1.2.1.99"): "deflated: a few kilobytes can inflate to gigabytes",
    UID("1.2.840.10008.1.2.8.1"): "deflated: a few kilobytes can inflate to gigabytes",
    UID("1.2.840.10008.1.2.4.94"): "the pixels lie elsewhere, at an address the sender names",
    UID("1.2.840.10008.1.2.4.95"): "the pixels lie elsewhere, and the data set is deflated",
    UID("1.2.840.10008.1.2.4.204"): "the pixels lie elsewhere, at an address the sender names",
    UID("1.2.840.10008.1.2.4.205"): "the pixels lie elsewhere, and the data set is deflated",
    UID("1.2.840.10008.1.2.7.1"): "real-time video, which is not stored by C-STORE",
    UID("1.2.840.10008.1.2.7.2"): "real-time video, which is not stored by C-STORE",
    UID("1.2.840.10008.1.2.7.3"): "real-time audio, which is not stored by C-STORE",
}
"""Transfer syntaxes refused on purpose, and why."""

RETIRED_STORAGE_SOP_CLASSES: Mapping[UID, str] = {
    UID("1.2.840.10008.5.1.4.1.1.3"): "UltrasoundMultiFrameImageStorageRetired",
    UID("1.2.840.10008.5.1.4.1.1.5"): "NuclearMedicineImageStorageRetired",
    UID("1.2.840.10008.5.1.4.1.1.6"): "UltrasoundImageStorageRetired",
    UID("1.2.840.10008.5.1.4.1.1.8"): "StandaloneOverlayStorage",
    UID("1.2.840.10008.5.1.4.1.1.9"): "StandaloneCurveStorage",
    UID("1.2.840.10008.5.1.4.1.1.9.1"): "WaveformStorageTrial",
    UID("1.2.840.10008.5.1.4.1.1.10"): "StandaloneModalityLUTStorage",
    UID("1.2.840.10008.5.1.4.1.1.11"): "StandaloneVOILUTStorage",
    UID("1.2.840.10008.5.1.4.1.1.12.3"): "XRayAngiographicBiPlaneImageStorage",
    UID("1.2.840.10008.5.1.4.1.1.77.1"): "VLImageStorageTrial",
    UID("1.2.840.10008.5.1.4.1.1.77.2"): "VLMultiFrameImageStorageTrial",
    UID("1.2.840.10008.5.1.4.1.1.88.1"): "TextSRStorageTrial",
    UID("1.2.840.10008.5.1.4.1.1.88.2"): "AudioSRStorageTrial",
    UID("1.2.840.10008.5.1.4.1.1.88.3"): "DetailSRStorageTrial",
    UID("1.2.840.10008.5.1.4.1.1.88.4"): "ComprehensiveSRStorageTrial",
    UID("1.2.840.10008.5.1.4.1.1.129"): "StandalonePETCurveStorage",
    UID("1.2.840.10008.5.1.1.29"): "HardcopyGrayscaleImageStorage",
    UID("1.2.840.10008.5.1.1.30"): "HardcopyColorImageStorage",
}
"""Retired classes that archives still hold and send with an old study; name by UID."""

NEWER_STORAGE_SOP_CLASSES: Mapping[UID, str] = {
    UID("1.2.840.10008.5.1.4.1.1.9.100.1"): "WaveformPresentationStateStorage",
    UID("1.2.840.10008.5.1.4.1.1.9.100.2"): "WaveformAcquisitionPresentationStateStorage",
    UID("1.2.840.10008.5.1.4.1.1.66.7"): "LabelMapSegmentationStorage",
    UID("1.2.840.10008.5.1.4.1.1.66.8"): "HeightMapSegmentationStorage",
}
"""Classes that some releases of the toolkit lack; asked for by name so that no release can drop them unnoticed."""

STORAGE_SOP_CLASSES: tuple[UID, ...] = tuple(
    sorted(
        {UID(str(context.abstract_syntax)) for context in AllStoragePresentationContexts}
        | set(NEWER_STORAGE_SOP_CLASSES)
        | set(RETIRED_STORAGE_SOP_CLASSES)
    )
)
"""Every storage SOP class that a study of a patient can bring. Non-patient objects (PS3.4 annex GG) belong to none."""


def supported_contexts() -> list[PresentationContext]:
    """Return the presentation contexts that the listener accepts: C-ECHO, and C-STORE of every class and syntax."""
    for uid, keyword in {**NEWER_STORAGE_SOP_CLASSES, **RETIRED_STORAGE_SOP_CLASSES}.items():
        if uid_to_service_class(uid) is not StorageServiceClass:
            register_uid(uid, keyword, StorageServiceClass)
    syntaxes = list(TRANSFER_SYNTAXES)
    return [verification_context(), *(build_context(sop_class, syntaxes) for sop_class in STORAGE_SOP_CLASSES)]


def verification_context() -> PresentationContext:
    """Return the presentation context of C-ECHO."""
    return build_context(VERIFICATION_SOP_CLASS, list(UNCOMPRESSED_TRANSFER_SYNTAXES))
