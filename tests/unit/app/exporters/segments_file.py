"""A segments file for tests."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

_ANATOMY = {"CodeValue": "123037004", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Anatomical Structure"}
_LIVER = {"CodeValue": "10200004", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Liver"}


def write_segments(path: Path, values: Iterable[int] = (1, 2)) -> Path:
    """Write codes for the label `values` and return the file."""
    segments = [
        {
            "labelID": value,
            "SegmentLabel": f"Structure {value}",
            "SegmentedPropertyCategoryCodeSequence": _ANATOMY,
            "SegmentedPropertyTypeCodeSequence": _LIVER,
        }
        for value in values
    ]
    path.write_text(json.dumps({"segmentAttributes": [segments]}))
    return path
