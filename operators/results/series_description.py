"""Series Descriptions that say that a machine made this, and which one (VR LO, 64 characters)."""

from __future__ import annotations

import re

_DESCRIPTION_LENGTH = 64
"""Characters of a Series Description, VR LO."""
_NAME_LENGTH = 32
"""Of them, what the name of an algorithm may take."""


def say_ai(description: str) -> str:
    """Return a Series Description that says that a machine made this, cut to what its VR holds."""
    said = description if re.search(r"\bAI\b", description[:_DESCRIPTION_LENGTH]) else f"AI: {description}"
    return said[:_DESCRIPTION_LENGTH].rstrip()


def say_whose(description: str, algorithm_name: str) -> str:
    """Return a Series Description that ends with whose result it is, whatever else must be cut for it."""
    end = f" ({algorithm_name[:_NAME_LENGTH]})"
    room = _DESCRIPTION_LENGTH - len(end)
    return say_ai(say_ai(description)[:room].rstrip())[:room].rstrip() + end
