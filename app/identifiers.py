"""Names that come from outside, checked once: UIDs and application entity titles, and UIDs derived from facts.

Text that a peer sent never becomes a file name; where a path is needed, a digest is used.
"""

from __future__ import annotations

import re
import uuid
from typing import NewType

UID = NewType("UID", str)
"""A DICOM unique identifier (PS3.5 section 9)."""
AETitle = NewType("AETitle", str)
"""An application entity title (PS3.5 section 6.2, VR AE), without padding."""

IMPLEMENTATION_CLASS_UID = UID("2.25.245398473290317462842718342573621087121")
"""What this implementation calls itself in File Meta Information and in associations (PS3.7 D.3.3.2)."""
IMPLEMENTATION_VERSION_NAME = "LIMNER_0_1"
"""The same as a name, 16 characters at most."""

_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*")
_UID_MAXIMUM_LENGTH = 64
_AE_TITLE = re.compile(r"[ !-\[\]-~]{1,16}")
_NAMESPACE = uuid.UUID("b8a6cbb0-5b0e-5a07-9c51-5d2c0ad6a1f4")


def parse_uid(text: str) -> UID:
    """Return `text` as a UID.

    Raises
    ------
    ValueError
        If it is not a UID by PS3.5 section 9.1: digits and dots, no leading zeros, 64 characters at most.
    """
    stripped = text.rstrip("\x00 ")
    if len(stripped) > _UID_MAXIMUM_LENGTH or _UID.fullmatch(stripped) is None:
        raise ValueError("not a DICOM UID: expected digits and dots, at most 64 characters, no leading zeros")
    return UID(stripped)


def parse_ae_title(text: str) -> AETitle:
    """Return `text` as an application entity title, leading and trailing spaces removed (PS3.5 section 6.2).

    Raises
    ------
    ValueError
        If it is empty, longer than 16 characters, or holds a backslash or a control character.
    """
    stripped = text.strip(" ")
    if _AE_TITLE.fullmatch(stripped) is None:
        raise ValueError(
            "not an application entity title: expected 1 to 16 printable ASCII characters without backslash"
        )
    return AETitle(stripped)


def derive_uuid(*facts: str) -> uuid.UUID:
    """Return the same UUID for the same facts, on any machine. Order matters, and facts are kept apart."""
    return uuid.uuid5(_NAMESPACE, "\x1f".join(facts))


def derive_uid(*facts: str) -> UID:
    """Return the same UID for the same facts, on any machine (PS3.5 B.2: a UUID under the root 2.25)."""
    return UID(f"2.25.{derive_uuid(*facts).int}")
