"""How many graphs run at once: ``[[slots]]``."""

from __future__ import annotations

from pydantic import Field, field_validator

from app.settings_section import Section, checked_name

DEFAULT_SLOTS = "graph"
"""The table that pipelines share which name none; where the settings have none of that name, one graph a worker."""
_LONGEST_NAME = 32  # PostgreSQL announces new tasks on a channel that bears it, in at most 63 bytes


class SlotsSettings(Section):
    """Slots for graphs that run: ``[[slots]]``. Pipelines name the table whose slots they share, such as one a GPU.

    A table called `graph` stands for all pipelines that name none.
    """

    name: str = Field(description="What pipelines call it.")
    at_once: int | None = Field(
        default=None,
        ge=1,
        description="Graphs that run at once at most, over all workers of the database; each worker's own number if "
        "not given.",
    )
    at_once_here: int = Field(default=1, ge=1, le=64, description="Graphs that one worker runs at once at most.")

    @field_validator("name")
    @classmethod
    def _name(cls, name: str) -> str:
        if len(name) > _LONGEST_NAME:
            raise ValueError(f"expected at most {_LONGEST_NAME} characters")
        return checked_name(name)
