"""The settings of the workers: a section of `app.settings`."""

from __future__ import annotations

from pydantic import Field, model_validator

from app.settings_section import Section

_BEATS = 3  # one may be late, and one lost


class WorkerSettings(Section):
    """How workers know of each other that they live: ``[worker]``. The same for all processes."""

    heartbeat_seconds: float = Field(default=3.0, gt=0, description="How often a worker shows that it lives.")
    dead_after_seconds: float = Field(
        default=15.0,
        gt=0,
        description="A worker that shows nothing for so long counts as dead: others take its tasks over.",
    )

    @model_validator(mode="after")
    def _beats_fit(self) -> WorkerSettings:
        if self.dead_after_seconds < _BEATS * self.heartbeat_seconds:
            raise ValueError(
                f"dead_after_seconds is {self.dead_after_seconds:g}, and heartbeat_seconds {self.heartbeat_seconds:g}: "
                f"one late heartbeat would end a living worker; let it be {_BEATS} heartbeats or more"
            )
        return self
