"""Every check that a series passes before a model sees it, and what is done where one finds something.

A check that finds something wrong refuses the series, warns, or repairs. What may be chosen is in its row of `CHECKS`:
``warn`` only where the volume is right all the same, ``repair`` only where the remedy is exact, which means that what
remains is what the modality made. No remedy of a gap, of uneven spacing or of a tilted gantry is: each of them would
make up voxels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, get_args

from operators.errors import SeriesRefused
from operators.gate.notes import GateNote

Policy = Literal["refuse", "warn", "repair"]


@dataclass(frozen=True)
class Check:
    """One thing that can be wrong with a series."""

    code: str
    """Stable kebab-case name; the code of the refusal."""
    finding: str
    """What is wrong, as a sentence for people goes on after "the series is noted or refused if"."""
    default: Policy = "refuse"
    allowed: tuple[Policy, ...] = ("refuse",)
    """What a pipeline may choose."""
    repair: str = ""
    """What the repair does; empty where there is none."""


_MAY_WARN: tuple[Policy, ...] = ("refuse", "warn")
_MAY_REPAIR: tuple[Policy, ...] = ("refuse", "repair")
_FIXED_CHECKS = {
    "no-images": "no instance was given, or they hold no pixel data",
    "unreadable-instance": "an instance is not DICOM, is cut off, has other pixel data than its header describes, or "
    "they can't be decoded",
    "transfer-syntax-unsupported": "no decoder is installed for the pixel data",
    "missing-identifiers": "a study, series or SOP instance UID is missing",
    "duplicate-instance": "two instances have the same SOP Instance UID",
    "mixed-series": "the instances are of several series or studies",
    "mixed-patient": "the instances are of several patients",
    "multi-frame-unsupported": "an image has several frames, and nothing says where they lie",
    "mixed-sop-class": "the images are of several SOP classes, each with units of its own",
    "sop-class-unsupported": "an image is not CT, MR or PET",
    "colour": "an image has several samples a pixel",
    "not-monochrome2": "an image is not MONOCHROME2 nor, in CT and PET, MONOCHROME1",
    "mixed-matrix": "the images have several numbers of rows or columns",
    "mixed-spacing": "the images have several pixel spacings",
    "missing-rescale": "a CT or PET image has no rescale slope and intercept, an image has a lookup table instead, or "
    "some have slope and intercept and others none that can be used",
    "missing-geometry": "position, orientation or pixel spacing is missing or impossible",
    "missing-frame-of-reference": "an image has no frame of reference",
    "mixed-frame-of-reference": "the images have several frames of reference",
    "mixed-orientation": "the slices have several orientations: several reconstructions are in one series",
    "too-few-slices": "it is a single slice, and the model is not one that is prompted",
    "gantry-tilt": "the slices are sheared by more than a quarter of a pixel over the whole stack",
    "slice-missing": "slices are missing between others",
    "uneven-spacing": "the slices are not evenly spaced, or some lie beside the others",
    "channel-elsewhere": "a channel's series shows no part of what the first channel's shows",
}
_CONFIGURABLE = (
    Check("wrong-modality", "its Modality is none of the model card's `modality`", "refuse", _MAY_WARN),
    Check(
        "wrong-body-part",
        "Body Part Examined or Anatomic Region Sequence name a known region that has nothing of the card's `body_part`",
        "warn",  # the tags are often the protocol's, not the patient's
        _MAY_WARN,
    ),
    Check(
        "wrong-contrast",
        "the contrast tags speak against the card's `contrast`",
        "warn",  # agents are left in the protocol, or out of the header
        _MAY_WARN,
    ),
    Check(
        "wrong-orientation",
        "its plane is none of the card's `orientation`, or rows and columns run otherwise than `patient_orientation`",
        "refuse",
        _MAY_WARN,
    ),
    Check("wrong-slice-spacing", "its slice spacing lies outside the card's `slice_spacing_mm`", "refuse", _MAY_WARN),
    Check("wrong-pixel-spacing", "its pixel spacing lies outside the card's `pixel_spacing_mm`", "refuse", _MAY_WARN),
    Check("wrong-slice-count", "it has fewer or more slices than the card's `slice_count`", "refuse", _MAY_WARN),
    Check(
        "intensity-far",
        "the volume's values are far from what the model was trained on, or all the same",
        "warn",
        _MAY_WARN,
    ),
    Check(
        "mixed-acquisition",
        "slices at different places are of several images: echoes, kernels, tube voltages, phase among magnitude",
        "refuse",
        _MAY_WARN,
        "`take` names the one that goes on; it needs no policy",
    ),
    Check(
        "slice-spacing-unknown",
        "it is a single slice, for a model that is prompted, and states neither Spacing Between Slices nor Slice "
        "Thickness: it is taken for 1 mm thick",
        "warn",
        _MAY_WARN,
    ),
    Check("lossy-compression", "an image was compressed with loss, once or still", "warn", _MAY_WARN),
    Check("monochrome1", "low values are bright (MONOCHROME1)", "warn", _MAY_WARN),
    Check(
        "pixel-padding",
        "pixels have the padding value: nothing was measured there, and they are read as air in CT, else as 0",
        "warn",
        _MAY_WARN,
    ),
    Check(
        "bits-beyond-stored",
        "bits above Bits Stored, which are ignored, hold more than the sign or an overlay that the header describes",
        "warn",  # overlays in unused bits were common, and often the header no longer tells of them
        _MAY_WARN,
    ),
    Check("rescale-negative", "a rescale slope is below 0", "warn", _MAY_WARN),
    Check("rescale-differs", "slope or intercept differ between the slices of a CT or MR", "warn", _MAY_WARN),
    Check(
        "secondary-capture",
        "a secondary capture, such as a screenshot, is among the images",
        "repair",
        _MAY_REPAIR,
        "it is left out",
    ),
    Check(
        "localizer",
        "a localizer is among the slices, or there is nothing but localizers",
        "repair",
        _MAY_REPAIR,
        "it is left out; a series of localizers alone is refused",
    ),
    Check(
        "duplicate-slice",
        "a slice is there twice: at the same position with the same pixels",
        "repair",
        _MAY_REPAIR,
        "one of them is kept",
    ),
    Check(
        "duplicate-position",
        "several different images lie at one position: phases, echoes, or slices side by side",
        "refuse",
        ("refuse",),
        "`take` names the one phase that goes on; it needs no policy",
    ),
    Check("phase-missing", "no image is what `take` names", "refuse"),
)
CHECKS: Mapping[str, Check] = MappingProxyType(
    {
        **{one.code: one for one in _CONFIGURABLE},
        **{code: Check(code, finding) for code, finding in _FIXED_CHECKS.items()},
    }
)
"""All checks by their code: first those that a pipeline can choose for, then those that always refuse."""


@dataclass(frozen=True)
class GatePolicies:
    """What each check does; the default where nothing is chosen."""

    chosen: Mapping[str, Policy] = field(default_factory=dict)

    def of(self, code: str) -> Policy:
        """Return what the check does."""
        return self.chosen.get(code, CHECKS[code].default)

    def settle(self, code: str, message: str) -> GateNote:
        """Return the note of what a check found.

        Raises
        ------
        SeriesRefused
            If its policy is to refuse.
        """
        policy = self.of(code)
        if policy == "refuse":
            raise SeriesRefused(message, code=code)
        return GateNote(code, policy, message)


def policy_problems(chosen: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for each choice that can't be made: an unknown code, or a policy that it does not have."""
    for code, policy in chosen.items():
        check = CHECKS.get(code)
        if check is None:
            choices = ", ".join(known for known, one in CHECKS.items() if len(one.allowed) > 1)
            yield f"there is no check '{code}'; those with a choice are {choices}"
        elif policy not in check.allowed:
            others = ", ".join(one for one in get_args(Policy) if one in check.allowed)
            yield f"the check '{code}' can't be set to '{policy}', only to {others}"
