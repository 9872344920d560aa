"""A generalist prompted by DICOM objects on a series: the label map, and what its labels are.

Each wanted structure is a label and a segment, in the order of the objects. What the segment is called, coded and
tracked as is the prompt's own where it says so; where it does not, it is tissue, which claims nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import highdicom
import pydicom
from pydicom.config import IGNORE
from pydicom.uid import UID

from operators.errors import PromptRefused
from operators.gate.notes import GateNote
from operators.parse_errors import PARSE_ERRORS
from operators.prompting_object import PromptingObject
from operators.sam.fitting import FittedPrompt, PromptForm, fitted
from operators.sam.laying import Overlap
from operators.sam.objects.placing import place_object
from operators.sam.objects.prompt_object import Kind, LeftOut, ObjectPrompt, PromptObject
from operators.sam.objects.reading import read_prompts
from operators.sam.predictor import SlicePredictor
from operators.sam.volume import Shown, VolumePrompt, segment_volume
from operators.segments import LABEL_LENGTH, Code, SegmentSpec
from operators.series_volume import SeriesVolume

OVERLAP = "prompts-overlap"
"""The code of the note on a structure that gave voxels to another."""

PromptReach = Literal["slice", "volume"]
"""The slices that were drawn on; or on from the largest drawing, both ways, until the structure ends."""

_TISSUE = Code("85756007", "SCT", "Tissue")
"""Of CID 7150 and CID 7151."""
_ANATOMY = Code("91723000", "SCT", "Anatomical Structure")
_ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")
_CATEGORIES: Mapping[Kind, Code] = {Kind.REPORT: _ABNORMAL, Kind.STRUCTURE_SET: _ANATOMY}
"""Of what an object codes without saying its category: a report codes findings, a structure set organs."""


@dataclass(frozen=True, eq=False)
class PromptedLabels:
    """What a generalist made of prompts."""

    labels: highdicom.Volume
    """On the series' grid, uint8 or uint16."""
    segments: tuple[SegmentSpec, ...]
    """Of each label, found or not."""
    prompted_by: tuple[PromptingObject, ...]
    """Of which something was followed."""
    left_out: tuple[LeftOut, ...]
    """What could not be read, placed or shown to the model, while others could."""
    is_automatic: bool
    """Whether algorithms alone drew all that was followed, so that no person's hand guided the result."""
    overlaps: tuple[Overlap, ...]
    """Segments that gave voxels to smaller ones."""

    @property
    def notes(self) -> tuple[GateNote, ...]:
        """What whoever reads the result must know of it: what is missing, and what of segments lies in others.

        Structures that are missing are called by the number that they have in their object, segments by that of the
        result; by no name, since a person typed it.
        """
        missing = (
            GateNote(
                one.code,
                "warn",
                f"{f'structure {one.number} ' if one.number else ''}left out of what prompted it: {one.reason}",
            )
            for one in self.left_out
        )
        return (*missing, *(GateNote(OVERLAP, "warn", _in_words(one)) for one in self.overlaps))


@dataclass(frozen=True, eq=False)
class ReadPrompts:
    """What the objects of one series show."""

    objects: tuple[PromptObject, ...]
    """In the order of their SOP Instance UIDs; at least one."""
    left_out: tuple[LeftOut, ...]
    """Objects of which nothing can be read, or which are for no series or several, beside others."""


def read_prompt_files(files: Sequence[Path]) -> ReadPrompts:
    """Return what the objects in `files` show that are for one series: whatever binds them to it leaves out the others.

    Raises
    ------
    PromptRefused
        As `read_prompts` and `PromptObject.referenced_series` of the first file, or ``unreadable`` if it is not DICOM,
        where none can be followed.
    """
    objects: list[PromptObject] = []
    left_out: list[LeftOut] = []
    first: PromptRefused | None = None
    for path in files:
        try:
            found = read_prompts(_dataset(path))
            found.referenced_series()
            objects.append(found)
        except PromptRefused as error:
            first = first or error
            left_out.append(LeftOut(0, error.code, str(error)))
    if first is not None and not objects:
        raise first
    return ReadPrompts(tuple(sorted(objects, key=lambda one: one.sop_instance_uid)), tuple(left_out))


def _dataset(path: Path) -> pydicom.Dataset:
    try:
        return pydicom.dcmread(path)
    except (OSError, *PARSE_ERRORS) as error:
        raise PromptRefused("a prompt object can't be read; send it again", code="unreadable") from error


def prompted_labels(
    read: ReadPrompts,
    series: SeriesVolume,
    predictor: SlicePredictor,
    shown: Shown,
    *,
    reach: PromptReach,
    form: PromptForm,
    progress: Callable[[int, int], None],
) -> PromptedLabels:
    """Return what the generalist finds for all that was read, on `series`.

    Each structure is judged by itself. What can't be followed is left out and named with its reason, as long as
    something can, whichever object holds it.

    Parameters
    ----------
    read
        The objects of one series of prompts.
    shown
        The slices of the series.
    reach
        How far a prompt reaches beyond its slices.
    form
        What is shown of outlines and masks.
    progress
        Told the prompts that are done, and how many there are.

    Raises
    ------
    PromptRefused
        As `place_object` or `fitted` of the first structure, if none can be followed; as `segment_volume`.
    InferenceFailed
        If a network does not answer.
    """
    prompts: list[VolumePrompt] = []
    segments: list[SegmentSpec] = []
    left_out: list[LeftOut] = [*read.left_out]
    followed: list[tuple[PromptObject, ObjectPrompt]] = []
    first: PromptRefused | None = None
    for found in read.objects:
        left_out += found.left_out
        for wanted in found.objects:
            try:
                fitting = fitted(place_object(wanted, series), predictor.contract, form)
            except PromptRefused as error:
                first = first or error
                left_out.append(LeftOut(wanted.number, error.code, str(error)))
                continue
            followed.append((found, wanted))
            segments.append(segment_of(wanted, found.kind, len(followed)))
            prompts += _volume_prompts(fitting, len(followed), reach)
            left_out += [*_beyond(fitting), *fitting.left_out]
    if first is not None and not followed:
        raise first
    segmented = segment_volume(series.volume, prompts, predictor, shown, progress)
    return PromptedLabels(
        labels=segmented.labels,
        segments=tuple(segments),
        prompted_by=tuple(dict.fromkeys(_prompting(found) for found, _ in followed)),
        left_out=tuple(left_out),
        is_automatic=all(wanted.is_automatic for _, wanted in followed),
        overlaps=segmented.overlaps,
    )


def segment_of(wanted: ObjectPrompt, kind: Kind, label: int) -> SegmentSpec:
    """Return what a wanted structure is as the segment with this label value."""
    code = _whole(wanted.code)
    category = _TISSUE if code is None else _whole(wanted.category) or _CATEGORIES.get(kind, _ANATOMY)
    said = _one_line(wanted.label) or (f"Prompt {label}" if code is None else code.meaning)
    return SegmentSpec(
        label_value=label,
        label=said,
        category=category,
        type=code or _TISSUE,
        modifier=None,
        algorithm_name="",
        rgb=None,
        tracking_id=_one_line(wanted.tracking_id),
        tracking_uid=wanted.tracking_uid if UID(wanted.tracking_uid, IGNORE).is_valid else "",
    )


def _beyond(fitting: FittedPrompt) -> Iterator[LeftOut]:
    """What of a structure lies beyond the first and the last slice, or on images that the series has not."""
    outside = fitting.placed.outside
    if outside:
        reason = f"{outside} of its drawings, or slices of them, lie outside the series; the rest of it was followed"
        yield LeftOut(fitting.placed.wanted.number, "prompt-outside", reason)


def _volume_prompts(fitting: FittedPrompt, label: int, reach: PromptReach) -> Iterator[VolumePrompt]:
    """The key slice's prompt first where it goes through the volume: what was drawn on other slices has those."""
    key = fitting.placed.key if reach == "volume" else None
    on_slices = list(zip(fitting.placed.slices, fitting.shown, strict=True))
    for one, prompt in on_slices:
        if one is key:
            yield VolumePrompt(one.slice_index, prompt, label, "structure")
    for one, prompt in on_slices:
        if one is not key:
            yield VolumePrompt(one.slice_index, prompt, label)


def _in_words(overlap: Overlap) -> str:
    given = ", ".join(f"{count} went to segment {label}" for label, count in overlap.given.items())
    return (
        f"segments overlap: segment {overlap.label} keeps {overlap.left} of the {overlap.found} voxels found of it; "
        f"{given}, laid upon it"
    )


def _prompting(found: PromptObject) -> PromptingObject:
    return PromptingObject(found.series_instance_uid, found.sop_instance_uid, found.sop_class_uid)


def _whole(code: Code | None) -> Code | None:
    """A code with all that the Standard wants of it, its meaning cut to what the VR holds; else None."""
    if code is None:
        return None
    value, scheme, meaning = _one_line(code.value), _one_line(code.scheme), _one_line(code.meaning)
    return Code(value, scheme, meaning) if value and scheme and meaning else None


def _one_line(text: str) -> str:
    """Text that a VR of LO can hold (PS3.5 section 6.2)."""
    printable = "".join(one if one.isprintable() and one != "\\" else " " for one in text)
    return " ".join(printable.split())[:LABEL_LENGTH].rstrip()
