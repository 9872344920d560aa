"""Requests as OpenAPI shows them; a test sends each."""

from __future__ import annotations

from typing import Any

PROMPTS: dict[str, Any] = {
    "box": {
        "summary": "A box on a slice",
        "value": {"coordinates": "pixel", "slice": 3, "box": {"left": 2, "top": 2, "right": 10, "bottom": 8}},
    },
    "refined": {
        "summary": "The box once more with a point beside what is meant, and the last answer",
        "value": {
            "coordinates": "pixel",
            "slice": 3,
            "box": {"left": 2, "top": 2, "right": 10, "bottom": 8},
            "points": [{"x": 3.5, "y": 7.5, "foreground": False}],
            "refine": True,
        },
    },
    "patient": {
        "summary": "A point in the patient, three masks",
        "value": {
            "coordinates": "patient",
            "frame_of_reference_uid": "1.2.3",
            "points": [{"position": [-17.5, -11.8, 37.5]}],
            "several": True,
            "format": "png",
        },
    },
}

ACCEPTANCES: dict[str, Any] = {
    "liver": {
        "summary": "A liver, to the archive",
        "value": {
            "label": "Liver",
            "category": {"value": "123037004", "scheme": "SCT", "meaning": "Anatomical Structure"},
            "type": {"value": "10200004", "scheme": "SCT", "meaning": "Liver"},
            "destinations": ["archive"],
        },
    }
}
