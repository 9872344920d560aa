"""The settings of the gate before a pipeline's model: a table of `app.settings_pipeline.PipelineSettings`."""

from __future__ import annotations

from typing import Any

from pydantic import Field, StrictFloat, StrictInt, StrictStr, field_validator
from pydicom.datadict import tag_for_keyword

from app.settings_section import Section
from operators.gate.policies import CHECKS, Policy, policy_problems


class GateSettings(Section):
    """What is done with a series that is not as the pipeline's model wants it: ``[pipeline.gate]``, after its pipeline.

    [Input checks](input-checks.md) lists the checks, what each does by default, and what else can be chosen.
    """

    policies: dict[str, Policy] = Field(
        default_factory=dict,
        description="For the code of a check: `refuse`, `warn` (the volume is used, with a note) or `repair` (it is "
        "put in order, with a note).",
    )
    take: dict[str, StrictInt | StrictFloat | StrictStr] = Field(
        default_factory=dict,
        description="DICOM keywords and values: of a series of several phases or echoes only images that have all of "
        "them are used.",
    )

    @field_validator("policies")
    @classmethod
    def _policies_can_be_chosen(cls, policies: dict[str, Policy]) -> dict[str, Policy]:
        problems = "; ".join(policy_problems(policies))
        if problems:
            raise ValueError(problems)
        return policies

    @field_validator("take")
    @classmethod
    def _take_names_attributes(cls, take: dict[str, str | float]) -> dict[str, str | float]:
        unknown = [keyword for keyword in take if tag_for_keyword(keyword) is None]
        if unknown:
            raise ValueError(f"no DICOM attribute has the keyword {', '.join(unknown)}; write it as in EchoTime")
        return take

    @property
    def asked(self) -> dict[str, Any]:
        """What decides the result, where it is not the default."""
        policies = {code: policy for code, policy in self.policies.items() if policy != CHECKS[code].default}
        return {key: value for key, value in (("policies", policies), ("take", dict(self.take))) if value}
