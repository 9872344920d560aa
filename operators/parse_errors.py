"""What damaged data raises. It is apart from what reads it, which needs decoders that the exporters don't have."""

from __future__ import annotations

from pydicom.errors import BytesLengthException, InvalidDicomError

PARSE_ERRORS = (
    *(InvalidDicomError, BytesLengthException, EOFError),
    *(ValueError, TypeError, AttributeError, KeyError, RuntimeError),
)
"""What pydicom and its decoders raise at damaged data."""
