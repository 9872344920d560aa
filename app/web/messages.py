"""What goes over HTTP, as pydantic checks it and OpenAPI describes it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

_UID = r"^[0-9.]{1,64}$"
_TEXT = r"^[^\x00-\x1f\x7f\\]+$"
"""What VR LO and SH may hold (PS3.5 section 6.2)."""

Uid = Annotated[str, Field(pattern=_UID, description="A DICOM UID.", examples=["1.2.840.113619.2.1"])]
Position = Annotated[
    tuple[float, float, float],
    Field(description="x, y, z in patient coordinates (LPS), mm.", examples=[[12.5, -80, 31]]),
]
Corner = Annotated[tuple[float, float], Field(description="x (column) and y (row) in pixels.", examples=[[100, 80.5]])]
Format = Annotated[
    Literal["runs", "png"],
    Field(
        description="`runs`: run lengths, row by row, pixels outside first; `png`: a PNG in Base64, 255 inside.",
    ),
]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


# --- what is asked ---


class NamedWindow(_Message):
    """A CT window by its name."""

    name: str = Field(max_length=64, description="As docs/explanation/sam.md lists them.", examples=["lung"])


class GivenWindow(_Message):
    """A window by its numbers."""

    centre: float = Field(description="In the unit of the image (HU for CT).")
    width: float = Field(description="Above 0.")


class PercentileWindow(_Message):
    """A window between two percentiles of the series' values above 0; values of 0 stay black."""

    lower: float = Field(examples=[0.5])
    upper: float = Field(examples=[99.5])


class SessionRequest(_Message):
    """Which series to draw on, and with what."""

    study_instance_uid: Uid
    series_instance_uid: Uid
    model: str = Field(max_length=128, description="One of GET /v1/models.", examples=["lite_medsam"])
    window: NamedWindow | GivenWindow | PercentileWindow | None = Field(
        default=None, description="What the model is shown; by default soft tissue for CT, percentiles for all others."
    )


class PixelPoint(_Message):
    """A point on a slice; the middle of the first pixel is at (0.5, 0.5)."""

    x: float
    y: float
    foreground: bool = Field(default=True, description="Whether it lies on what is meant, or beside it.")


class PixelBox(_Message):
    """A rectangle on a slice, in pixels."""

    left: float
    top: float
    right: float
    bottom: float


class PatientPoint(_Message):
    """A point in the patient."""

    position: Position
    foreground: bool = Field(default=True, description="Whether it lies on what is meant, or beside it.")


class _Prompt(_Message):
    refine: bool = Field(default=False, description="Show the model its last answer on this slice as well.")
    several: bool = Field(
        default=False, description="Ask for three masks at three scales; the best becomes the slice's."
    )
    format: Format = "runs"


class PixelPrompt(_Prompt):
    """A prompt in the pixels of one slice: all that is shown there, also what was shown before."""

    coordinates: Literal["pixel"]
    slice: int | None = Field(default=None, description="Its number, from 0, in the order of `sop_instance_uids`.")
    sop_instance_uid: Uid | None = Field(default=None, description="Its instance, in place of the number.")
    frame_number: int | None = Field(default=None, description="Of a multi-frame instance which frame, from 1.")
    box: PixelBox | None = None
    outline: list[Corner] | None = Field(default=None, description="At least 3 corners; the box around it is shown.")
    points: list[PixelPoint] = Field(default=[], description="64 at most.")

    @model_validator(mode="after")
    def _names_one_slice(self) -> PixelPrompt:
        if (self.slice is None) == (self.sop_instance_uid is None):
            raise ValueError("expected either slice or sop_instance_uid")
        return self


class PatientPrompt(_Prompt):
    """A prompt in patient coordinates; all of it must lie on one slice."""

    coordinates: Literal["patient"]
    frame_of_reference_uid: Uid
    box: tuple[Position, Position] | None = Field(default=None, description="Two opposite corners on the slice.")
    outline: list[Position] | None = Field(default=None, description="At least 3 corners; the box around it is shown.")
    points: list[PatientPoint] = Field(default=[], description="64 at most.")


Prompt = Annotated[PixelPrompt | PatientPrompt, Field(discriminator="coordinates")]


class Choice(_Message):
    """Another mask of the last answer."""

    mask: int = Field(description="Its number in the answer's `masks`, from 0.")
    format: Format = "runs"


class PropagationRequest(_Message):
    """How far to go on from the slice that was asked last; without numbers, until the structure ends."""

    first_slice: int | None = None
    last_slice: int | None = None


class CodedConcept(_Message):
    """A code (PS3.3 section 8)."""

    value: str = Field(max_length=16, pattern=_TEXT, examples=["10200004"])
    scheme: str = Field(max_length=16, pattern=_TEXT, examples=["SCT"])
    meaning: str = Field(max_length=64, pattern=_TEXT, examples=["Liver"])


class Acceptance(_Message):
    """What was drawn, as the Segmentation is to call it, and where it goes."""

    label: str = Field(max_length=64, pattern=_TEXT, description="Segment Label.", examples=["Liver"])
    category: CodedConcept = Field(description="Segmented Property Category (CID 7150).")
    type: CodedConcept = Field(description="Segmented Property Type (CID 7151).")
    modifier: CodedConcept | None = Field(default=None, description="Segmented Property Type Modifier, such as a side.")
    series_description: str = Field(
        default="", max_length=64, pattern=r"^[^\x00-\x1f\x7f\\]*$", description="Of the result; the label if empty."
    )
    destinations: list[str] = Field(min_length=1, max_length=64, description="Destinations of the settings.")


# --- what is answered ---


class Geometry(_Message):
    """Where the series' voxels lie. Slices are numbered from 0 along the volume's first axis."""

    slices: int
    rows: int
    columns: int
    affine: list[list[float]] = Field(
        description="4 x 4: from (slice, row, column) of a voxel's middle to patient coordinates (LPS), mm."
    )
    frame_of_reference_uid: str
    sop_instance_uids: list[str] = Field(description="By slice.")
    frame_numbers: list[int | None] = Field(description="By slice, from 1; null in a single-frame instance.")


class WindowUsed(_Message):
    """What the model is shown."""

    centre: float
    width: float
    source: str


class PropagationState(_Message):
    """3D that is under way, or how the last one ended."""

    state: Literal["running", "done", "cancelled", "failed"]
    done: int = Field(description="Slices done.")
    most: int = Field(description="The most slices that there may be.")
    slices: list[int] = Field(description="Those it drew on.")
    code: str = Field(description="Why it failed; empty otherwise.")
    reason: str


class SessionState(_Message):
    """A session."""

    id: str
    model: str
    model_version: str
    geometry: Geometry
    window: WindowUsed
    steps: int = Field(description="Steps that can be undone.")
    busy: bool
    propagation: PropagationState | None
    idle_seconds: float = Field(description="After so long without a request it ends.")


class Mask(_Message):
    """One mask of one slice."""

    area: int = Field(description="Pixels inside.")
    runs: list[int] | None = Field(default=None, description="Run lengths, row by row, pixels outside first.")
    png: str | None = Field(default=None, description="A PNG in Base64: 255 inside, 0 outside.")


class AnsweredMask(Mask):
    """One mask of an answer."""

    iou: float = Field(description="The model's own guess at its intersection over union with what is meant.")


class PromptAnswer(_Message):
    """What the model found."""

    slice: int
    sop_instance_uid: str
    masks: list[AnsweredMask] = Field(description="One; or three, from the whole to a part of a part.")
    chosen: int = Field(description="Which of them became the slice's.")
    steps: int
    seconds: float = Field(description="What finding it took; the first prompt on a slice pays for the encoder.")


class SliceMask(Mask):
    """The structure on one slice."""

    slice: int
    sop_instance_uid: str


class Structure(_Message):
    """The structure, or the slices of it that a step changed."""

    slices: list[SliceMask]
    voxels: int = Field(description="Of the whole structure.")
    volume_ml: float
    steps: int


class DeliveryState(_Message):
    """One object on its way to one destination."""

    destination: str
    state: str
    attempts: int
    code: str


class JobState(_Message):
    """The job of what was accepted."""

    id: str
    state: str
    sop_instance_uids: list[str]
    series_instance_uids: list[str]
    deliveries: list[DeliveryState]


class Model(_Message):
    """A generalist that sessions can use."""

    name: str
    version: str
    variant: str
    prompts: list[str] = Field(description="`box`, `points`, `mask` (an answer that is refined).")
    several: bool = Field(description="Whether three masks can be asked for.")
    licence: str


class Models(_Message):
    """All of them."""

    models: list[Model]


class Problem(_Message):
    """What is wrong with a request (RFC 9457, application/problem+json)."""

    type: str = Field(default="about:blank")
    title: str = Field(description="The status in words.")
    status: int
    code: str = Field(description="Short stable name, as in docs/reference/api.md.", examples=["prompt-outside"])
    detail: str = Field(description="What was expected, what came and what to do.")
    errors: list[str] = Field(default=[], description="Where in the request, and what was expected there.")
