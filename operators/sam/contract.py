"""What a variant of the SAM family wants and gives, as data: a new variant is an entry in a manifest, not code.

::

    "contract": {
      "family": "sam",                       or "sam2", whose decoder also takes features of two finer levels
      "image": {
        "size": 1024,                        side of the square that the encoder sees
        "fit": "longest-side",               aspect kept, zeros right and below; or "square": stretched
        "resampling": "pillow-bilinear",     one of RESAMPLINGS
        "order": "resample-first",           or "intensity-first"
        "intensity": "byte",                 0 to 255 as they are; "unit": divided by 255; "range": minimum to maximum
        "mean": [123.675, 116.28, 103.53], "deviation": [58.395, 57.12, 57.375]
      },
      "prompts": {
        "kinds": ["box", "points", "mask"],
        "size": 1024,                        side of the frame that prompt coordinates are brought into
        "rounding": "none",                  or "floor": a box's corners are cut to whole numbers there
        "box": "last",                       its two corners come after the points; "first": before them
        "padding": "without-box"             when a point labelled -1 is added at the end; or "always", or "never"
      },
      "logits": {
        "size": 256,                         side of the decoder's masks
        "path": "through-input",             one of PATHS: how they come onto the image
        "threshold": 0.0,                    above it lies the mask
        "sigmoid": false,                    whether logits become probabilities before they are resized
        "single": "first",                   how one mask is chosen where one is asked for; or "stable" (SAM 2)
        "several": true                      whether three masks at three scales can be asked for
      },
      "memory": null,                        or what `operators.sam.memory` needs to follow through slices
      "licence": "Apache-2.0"
    }

Coordinates are x (column), y (row), in pixels, (0, 0) in the corner of the first pixel as in the reference code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

Family = Literal["sam", "sam2"]
Fit = Literal["longest-side", "square"]
Resampling = Literal[
    "pillow-bilinear",
    "pillow-bicubic",
    "area",
    "smoothed-cubic",
    "antialiased-bilinear",
    "nearest",
]
"""Pillow's on 8 bits a sample; OpenCV's INTER_AREA on 8 bits; scikit-image's cubic spline after a Gaussian, cut to
8 bits; torch's bilinear interpolation with antialiasing on single precision; the nearest pixel as OpenCV takes it."""
Intensity = Literal["byte", "unit", "range"]
Order = Literal["resample-first", "intensity-first"]
PromptKind = Literal["box", "points", "mask"]
Rounding = Literal["none", "floor"]
BoxPlace = Literal["first", "last"]
Padding = Literal["without-box", "always", "never"]
Path = Literal["through-input", "cropped", "direct"]
"""From logits to the image. ``through-input``: up to the encoder's size, cut off the padding, then to the image;
``cropped``: cut off the padding at their own size, then to the image; ``direct``: straight to the image."""
Single = Literal["first", "stable"]


@dataclass(frozen=True)
class ImageContract:
    """How a slice of 8 bits, three equal channels, becomes what the encoder sees."""

    size: int
    fit: Fit
    resampling: Resampling
    order: Order
    intensity: Intensity
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]

    def shown(self, rows: int, columns: int) -> tuple[int, int]:
        """Return the rows and columns that the image has within the encoder's square; what is beyond is zero."""
        if self.fit == "square":
            return self.size, self.size
        scale = self.size / max(rows, columns)
        return int(rows * scale + 0.5), int(columns * scale + 0.5)


@dataclass(frozen=True)
class PromptContract:
    """How prompts reach the decoder."""

    kinds: tuple[PromptKind, ...]
    size: int
    rounding: Rounding
    box: BoxPlace
    padding: Padding


@dataclass(frozen=True)
class LogitsContract:
    """How the decoder's answer becomes a mask."""

    size: int
    path: Path
    threshold: float
    sigmoid: bool
    single: Single
    several: bool


@dataclass(frozen=True)
class Contract:
    """The whole of it."""

    family: Family
    image: ImageContract
    prompts: PromptContract
    logits: LogitsContract
    memory: Mapping[str, Any] | None
    """For `operators.sam.memory`; None where the variant has no memory."""
    licence: str
    """SPDX identifier of the weights' licence, or the words of the one who brought them."""


def read_contract(content: Mapping[str, Any]) -> Contract:
    """Return what the manifest's ``contract`` says.

    Raises
    ------
    KeyError, TypeError, ValueError
        If a key is missing, or has a value that is not among those known; the message names it.
    """
    image, prompts, logits = content["image"], content["prompts"], content["logits"]
    return Contract(
        family=one_of("family", content["family"], Family),
        image=ImageContract(
            size=_side("image.size", image["size"]),
            fit=one_of("image.fit", image["fit"], Fit),
            resampling=one_of("image.resampling", image["resampling"], Resampling),
            order=one_of("image.order", image["order"], Order),
            intensity=one_of("image.intensity", image["intensity"], Intensity),
            mean=_three("image.mean", image["mean"]),
            deviation=_three("image.deviation", image["deviation"]),
        ),
        prompts=PromptContract(
            kinds=tuple(one_of("prompts.kinds", kind, PromptKind) for kind in prompts["kinds"]),
            size=_side("prompts.size", prompts["size"]),
            rounding=one_of("prompts.rounding", prompts["rounding"], Rounding),
            box=one_of("prompts.box", prompts["box"], BoxPlace),
            padding=one_of("prompts.padding", prompts["padding"], Padding),
        ),
        logits=LogitsContract(
            size=_side("logits.size", logits["size"]),
            path=one_of("logits.path", logits["path"], Path),
            threshold=float(logits["threshold"]),
            sigmoid=bool(logits["sigmoid"]),
            single=one_of("logits.single", logits["single"], Single),
            several=bool(logits["several"]),
        ),
        memory=content["memory"],
        licence=str(content["licence"]),
    )


def one_of(key: str, value: Any, choices: Any) -> Any:
    """Return a value that is among those of a ``Literal``; raises ValueError naming its key."""
    if value not in get_args(choices):
        raise ValueError(f"{key} must be one of {', '.join(get_args(choices))}, not {value!r}")
    return value


def _side(key: str, value: Any) -> int:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{key} must be a whole number of pixels, not {value!r}")
    return value


def _three(key: str, value: Any) -> tuple[float, float, float]:
    if len(value) != 3:
        raise ValueError(f"{key} must hold one number for each of three channels, not {value!r}")
    first, second, third = (float(one) for one in value)
    return first, second, third
