"""What the statuses of a refused object mean: of C-STORE, and the Failure Reasons of STOW-RS, which are the same."""

from __future__ import annotations

from types import MappingProxyType

DUPLICATE_SOP_INSTANCE = 0x0111
SOP_CLASS_NOT_SUPPORTED = 0x0122
WARNINGS = frozenset({0x0107, 0x0116, DUPLICATE_SOP_INSTANCE, *range(0xB000, 0xC000)})
"""Stored, with a remark. A duplicate is one of ours: the UID says what it was made from, and it was sent before."""
PERMANENT = MappingProxyType(
    {
        0x0105: "no such attribute",
        0x0106: "invalid attribute value",
        0x0117: "invalid SOP instance",
        0x0118: "no such SOP class",
        0x0119: "class-instance conflict",
        0x0120: "missing attribute",
        0x0121: "missing attribute value",
        SOP_CLASS_NOT_SUPPORTED: "SOP class not supported",
        0x0124: "not authorised",
        **dict.fromkeys(range(0xA900, 0xAA00), "data set does not match SOP class"),
        **dict.fromkeys(range(0xC000, 0xD000), "cannot understand"),
    }
)
"""Failures that the same bytes would meet again (PS3.4 table B.2-1, PS3.7 annex C, PS3.18 table I.2-2)."""
