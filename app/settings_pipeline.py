"""The settings of what runs on which series: the pipelines and the rules of `app.settings`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from app.settings_gate import GateSettings
from app.settings_prompt import PROMPTED_APPLICATION, PromptSettings
from app.settings_section import NoResult, ResultKind, Section, checked_name
from app.settings_slots import DEFAULT_SLOTS
from operators.sam.prompts import SegmentPrompts

URGENT_PRIORITY = 1000
"""Of urgent jobs; a rule's own priority is at most 100, so that they go before every other."""


class GeneralistSettings(Section):
    """A second reading of the same series by a model of the SAM family: ``[pipeline.generalist]``, after its pipeline.

    It is shown each segment that the pipeline's own model, the specialist, found on a slice, by a box around it or by
    points within. How far the two agree is recorded for each segment; one that lies beyond a limit here is a
    disagreement, and so is a segment that only one of them found. What then happens is the rule's
    ``on_disagreement``.
    """

    model: str = Field(description="The folder of the generalist in the model repository.")
    window: str = Field(
        default="",
        description="What the series is shown in: a name such as `soft-tissue`, a centre and a width as in `40/400`, "
        "or `percentiles`; if empty, soft tissue for CT and percentiles for all others.",
    )
    windows: dict[str, str] = Field(
        default_factory=dict,
        description='For the labels of segments, what the series is shown in instead: `{ Lung = "lung" }`. The '
        "encoder runs once for each window of a slice.",
    )
    prompts: SegmentPrompts = Field(
        default="boxes",
        description="What a segment is shown by on a slice: `boxes`, the box around all of it; `points`, a point well "
        "within each of its connected parts; or `boxes-and-points`. The model must take these: LiteMedSAM takes boxes "
        "alone.",
    )
    box_margin_pixels: float = Field(
        default=5.0, ge=0, description="How much larger than the segment a box is, on each side."
    )
    least_dice: float | None = Field(default=0.8, ge=0, le=1, description="Less is a disagreement.")
    most_distance_mm: float | None = Field(
        default=None,
        ge=0,
        description="More is a disagreement: the 95th percentile of the distances of the surfaces.",
    )
    most_volume_difference_percent: float | None = Field(
        default=None, ge=0, description="More, either way, is a disagreement: in percent of the specialist's volume."
    )
    deliver: bool = Field(default=False, description="Send the generalist's object too, whether they agree or not.")


class PipelineSettings(Section):
    """A model and the limits of one run of it: ``[[pipeline]]``."""

    name: str = Field(description="What rules and records call it.")
    model: str = Field(description="The folder of the model in the model repository.")
    application: str = Field(
        default="app.app:SegmentationApp",
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        description="The MONAI Deploy application to run, as `module:Class`; of a pipeline with `prompt`, by default "
        f"`{PROMPTED_APPLICATION}`.",
    )
    series_description: str = Field(default="", description="The result's Series Description; from the model if empty.")
    time_limit_seconds: float = Field(default=1800.0, gt=0, description="A run is ended after this time.")
    memory_limit_bytes: int = Field(default=8 << 30, ge=256 << 20, description="A run is ended above this memory.")
    maximum_attempts: int = Field(
        default=3, ge=1, description="Runs before a job fails, those lost in a crash counted."
    )
    generalist: GeneralistSettings | None = Field(default=None, description="The second reading, if there is one.")
    prompt: PromptSettings | None = Field(
        default=None, description="How annotations prompt its model, if that is a generalist."
    )
    slots: str = Field(default=DEFAULT_SLOTS, description="The `[[slots]]` that its graphs run in.")
    gate: GateSettings = Field(default=GateSettings(), description="What is done with a series that is not in order.")

    _name = field_validator("name")(staticmethod(checked_name))

    @model_validator(mode="before")
    @classmethod
    def _prompted_has_its_application(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("prompt") is not None:
            return {"application": PROMPTED_APPLICATION, **given}
        return given


class RuleSettings(Section):
    """Which series go to which pipeline, and where its results go: ``[[rule]]``. The first that matches takes a series.

    ``match`` maps DICOM keywords to conditions, all of which must hold:

    - a string or a number: equal to (one of) the attribute's value(s);
    - a list: equal to any of its members;
    - ``{ minimum = …, maximum = … }``: a number within, ends included; either may be left out;
    - ``{ pattern = "…" }``: the whole value matches this regular expression;
    - ``{ present = true }`` or ``{ present = false }``: the attribute has a value, or has none.

    ``channels`` maps the names of a model's input channels to such conditions, for models that read several series of
    a study as one input: each series that the rule takes is bound to the channel whose conditions it fits.
    """

    name: str = Field(description="What records and `limner rules explain` call it.")
    pipeline: str = Field(description="The pipeline that runs.")
    destinations: tuple[str, ...] = Field(description="The destinations that get the results.")
    after: Literal["series", "study"] = Field(
        default="series", description="Whether the job starts when the series or when its whole study is complete."
    )
    priority: int = Field(default=0, ge=-100, le=100, description="Higher goes first.")
    match: dict[str, Any] = Field(default_factory=dict, description="Conditions on DICOM keywords; all must hold.")
    urgent: dict[str, Any] = Field(
        default_factory=dict,
        description="Such conditions once more: where all of them hold too, the job goes before every routine one, "
        "whatever their priorities.",
    )
    results: tuple[ResultKind, ...] = Field(
        default=("segmentation",),
        min_length=1,
        description="What its destinations get of each finding: `segmentation`, `report` (measurements), "
        "`structure-set`, `capture` (pictures), `presentation-state` (outlines), `fractional` (probabilities, of an "
        "nnU-Net alone).",
    )
    no_result: NoResult = Field(
        default="nothing",
        description="What its destinations get where a job is refused, fails or finds nothing: `notice` is a small "
        "report that says so, `notice-and-page` a picture with the same words too.",
    )
    own_results: bool = Field(
        default=False,
        description="Whether objects that Limner made start jobs when they come back, as a specialist's segmentation "
        "may prompt another pipeline. Those that prompted pipelines made never do.",
    )
    on_disagreement: Literal["warn", "hold", "both"] = Field(
        default="warn",
        description="Where the pipeline's generalist disagrees or fails: `warn` sends the specialist's object as ever, "
        "`hold` sends nothing until a person says `limner jobs release` or `discard`, `both` sends both objects.",
    )
    channels: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="For each input channel of the model, the conditions on the series it reads."
    )

    _name = field_validator("name")(staticmethod(checked_name))

    def put_first(self) -> RuleSettings:
        """Return the rule as it is for a series that is urgent."""
        return self.model_copy(update={"priority": URGENT_PRIORITY})

    @model_validator(mode="after")
    def _channels_wait_for_the_study(self) -> RuleSettings:
        if self.channels and self.after != "study":
            raise ValueError(
                f"rule '{self.name}' has channels, and their series are together only when the study is complete; "
                'write after = "study"'
            )
        return self
