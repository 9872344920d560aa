"""The settings of completion: when a series or a study has come whole. ``docs/explanation/completion.md`` draws it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from app.settings_section import Section


class RoutingSettings(Section):
    """When a series or a study counts as complete: ``[routing]``."""

    series_quiet_seconds: float = Field(default=10.0, gt=0, description="Quiet time after which a series is complete.")
    study_quiet_seconds: float = Field(default=60.0, gt=0, description="Quiet time after which a study is complete.")
    scan_seconds: float = Field(default=0.5, gt=0, description="How often the ledger is looked at for quiet series.")
    ask: str | None = Field(
        default=None, description="The archive that is asked how many instances a quiet series has; none if not given."
    )
    ask_seconds: float = Field(
        default=10.0, gt=0, description="Longest wait for the archive's answer; after it the quiet time alone decides."
    )
    ask_again_seconds: float = Field(
        default=5.0, gt=0, description="Wait before an archive is asked again that has more; doubles, to 60 at most."
    )
    ask_whole_study: bool = Field(
        default=False,
        description='Whether a rule with `after = "study"` or channels also waits for series that the archive has and '
        "that have not come; leave it off where only some series of a study are sent.",
    )
    incomplete_seconds: float = Field(
        default=600.0, gt=0, description="Longest quiet time of a series or study of which the archive has more."
    )
    incomplete: Literal["decide", "refuse"] = Field(
        default="decide",
        description="What happens then: `decide` makes the job with a note; `refuse` ends a series with too few "
        "instances as `incomplete`. Series of the study that have not come are a note in either case.",
    )
