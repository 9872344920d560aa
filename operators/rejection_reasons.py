"""Why results are withdrawn, and the sentence that a rejection note says it in."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, get_args

RejectionReason = Literal["quality", "wrong-patient", "unsafe", "wrong-worklist", "expired", "superseded", "other"]
REASONS: tuple[RejectionReason, ...] = get_args(RejectionReason)
SENTENCES: Mapping[RejectionReason, str] = MappingProxyType(
    {
        "quality": "The AI result is withdrawn: it is of insufficient quality.",
        "wrong-patient": "The AI result is withdrawn: it belongs to another patient or study. Do not use it.",
        "unsafe": "The AI result is withdrawn: it may harm the patient. Do not use it.",
        "wrong-worklist": "The AI result is withdrawn: it was made of images acquired for a wrong worklist entry.",
        "expired": "The AI result is withdrawn: the time to keep it has passed.",
        "superseded": "The AI result is withdrawn: a newer one, of more or other images, takes its place.",
        "other": "The AI result is withdrawn.",
    }
)
