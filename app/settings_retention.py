"""How long received instances and results stay on the disk."""

from __future__ import annotations

from pydantic import Field

from app.settings_section import Section

_SECONDS_OF_A_DAY = 86_400.0


class RetentionSettings(Section):
    """How long received instances and results stay on the disk: ``[retention]``.

    What something still needs is never removed, whatever its age and however full the disk is: studies that are being
    received or decided, inputs of jobs that run, wait, are held or deliver, results that a destination has not got (or
    has not committed itself to keep, where it is asked for that), and, until a person decides, dead letters and what a
    destination did not take. Each removal is in the audit log first.
    """

    spool_days: float = Field(
        default=30.0, gt=0, description="Days that a study's instances stay after the last that happened to it."
    )
    results_days: float = Field(default=90.0, gt=0, description="Days that a job's results stay after its end.")
    replay_days: float = Field(
        default=30.0,
        gt=0,
        description="Days that inputs and results of a failed or cancelled job stay at least, to be repeated.",
    )
    quarantine_days: float = Field(default=30.0, gt=0, description="Days that refused objects stay in the quarantine.")
    largest_spool_bytes: int | None = Field(
        default=None, ge=0, description="What the instances may take together; the oldest go first. None: no bound."
    )
    least_free_bytes: int | None = Field(
        default=None,
        ge=0,
        description="Free space on the spool's disk below which the oldest studies go before their time; by default "
        "twice the listener's `low_water_bytes`, at which it begins to refuse.",
    )
    least_seconds: float = Field(
        default=600.0,
        ge=0,
        description="What is removed for want of space was left alone at least so long.",
    )
    look_seconds: float = Field(default=10.0, gt=0, description="How often the free space is looked at.")

    @property
    def spool_seconds(self) -> float:
        """`spool_days` in seconds."""
        return self.spool_days * _SECONDS_OF_A_DAY

    @property
    def results_seconds(self) -> float:
        """`results_days` in seconds."""
        return self.results_days * _SECONDS_OF_A_DAY

    @property
    def replay_seconds(self) -> float:
        """`replay_days` in seconds."""
        return self.replay_days * _SECONDS_OF_A_DAY

    @property
    def quarantine_seconds(self) -> float:
        """`quarantine_days` in seconds."""
        return self.quarantine_days * _SECONDS_OF_A_DAY
