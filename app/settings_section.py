"""What all tables of the settings have in common."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict

ResultKind = Literal["segmentation", "fractional", "report", "structure-set", "capture", "presentation-state"]
"""What a destination can get of a finding."""
SegmentationForm = Literal["labelmap", "segmentation", "structure-set", "capture", "presentation-state"]
"""What can say where a segment is."""
NoResult = Literal["nothing", "notice", "notice-and-page"]
"""What a destination can get where there is no result."""
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


class Section(BaseModel):
    """A table of the settings: it takes no unknown key, and is not changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def checked_name(name: str) -> str:
    """Return the name of a table; ValueError if records and rules could not carry it."""
    if _NAME.fullmatch(name) is None:
        raise ValueError("expected 1 to 63 lower-case letters, digits, '-' and '_', starting with a letter or digit")
    return name
