"""The settings of a pipeline that annotations prompt: a table of `app.settings_pipeline.PipelineSettings`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from app.settings_section import Section
from operators.errors import PromptRefused
from operators.sam.windowing import asked_window

PROMPTED_APPLICATION = "app.prompted:PromptedApp"
"""What a prompted pipeline runs where its settings name no application."""


class PromptSettings(Section):
    """A pipeline whose model is a generalist that annotations prompt: ``[pipeline.prompt]``, after its pipeline.

    Its rules take presentation states, structured reports, structure sets and segmentations, and each is answered with
    a segmentation on the images that it refers to. The table may be empty.
    """

    window: str = Field(
        default="",
        description="What the images are shown in: a name such as `soft-tissue`, a centre and a width as in `40/400`, "
        "or `percentiles`; if empty, soft tissue for CT and percentiles for all others.",
    )
    reach: Literal["slice", "volume"] = Field(
        default="slice",
        description="`slice` segments the slices that were drawn on; `volume` goes on from the largest drawing, both "
        "ways, until the structure ends.",
    )
    form: Literal["box", "mask"] = Field(
        default="box",
        description="What the model is shown of what was outlined or painted: the `box` around it, or the `mask` "
        "itself with its box, to be refined. Models that take boxes alone refuse masks.",
    )
    source: str | None = Field(
        default=None,
        description="The archive that images are fetched from which a prompt refers to and which are not held; none "
        "are fetched if not given.",
    )

    most_structures: int = Field(
        default=128,
        ge=1,
        description="The most structures that the objects of one series may ask for together; more are refused as "
        "`prompt-too-many-structures`, and no network is asked.",
    )

    @field_validator("window")
    @classmethod
    def _window_is_known(cls, window: str) -> str:
        try:
            asked_window(window)
        except PromptRefused as error:
            raise ValueError(str(error)) from error
        return window

    @property
    def asked(self) -> dict[str, str]:
        """What decides the result: how many structures may be asked for decides none."""
        return {"window": self.window, "reach": self.reach, "form": self.form}
