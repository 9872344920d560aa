"""What structure sets, captures, presentation states and notice pages have in common (PS3.3 C.7, C.12).

Whose they are is taken over from the source as `operators.source_identity` does it; the rest says what made them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import highdicom
import pydicom
from highdicom.base import SOPClass
from highdicom.sr import CodedConcept
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from operators.parse_errors import PARSE_ERRORS
from operators.results.equipment import processing_equipment
from operators.results.finding import Algorithm, Finding, PromptingObject
from operators.results.series_description import say_ai
from operators.segments import SegmentSpec
from operators.source_identity import normalised_headers, take_over_identity
from operators.source_references import distinct_instances

NOT_VERIFIED = "AI result, not verified"
"""What everything that people look at says."""
DESCRIPTION_LENGTH = 64
"""Characters of VR LO."""
_MOST_SHORT_VALUE_BYTES = 65534
"""What the length field of most VRs can say in Explicit VR (PS3.5 section 7.1.2)."""
_ANY_SPACING = 1.0
"""mm, where none is known: no object here says a slice's thickness."""
_DISPLAY_COLOURS = (
    *((230, 75, 60), (70, 200, 90), (80, 140, 255), (250, 200, 40), (190, 100, 230), (40, 210, 215)),
    *((250, 140, 50), (240, 120, 180), (160, 220, 60), (140, 130, 250), (30, 180, 150), (220, 170, 110)),
)
"""For segments without a colour of their own; none is grey."""
_LEAST_COLOURFUL = 40
"""Between a colour's highest and lowest part: with less it could be taken for the image."""


def identity_header(headers: Sequence[pydicom.Dataset], study_instance_uid: str = "") -> pydicom.Dataset:
    """Return a copy of the first header from which highdicom can take patient and study.

    It may lack anything: what highdicom looks up and does not know is replaced, and `study_instance_uid` is its study
    if it has none itself.
    """
    (first,) = normalised_headers(headers[:1], _ANY_SPACING)
    try:
        SOPClass.copy_patient_and_study_information(_throwaway(), first)
    except PARSE_ERRORS:
        first.SOPClassUID = CTImageStorage  # the Patient and Study modules are all images'
        first.SOPInstanceUID = first.get("SOPInstanceUID") or ""
    first.StudyInstanceUID = first.get("StudyInstanceUID") or study_instance_uid
    return first


def complete(
    dataset: pydicom.Dataset,
    source: pydicom.Dataset,
    moment: tuple[str, str],
    algorithm: Algorithm | None,
    *,
    own_text: Iterable[str],
) -> None:
    """Put whose it is, when it was made and what made it into a finished object, in place of clock and chance.

    Parameters
    ----------
    source
        The header of one of the source's instances.
    moment
        Date and time (`moment_of`).
    algorithm
        None where no model is known.
    own_text
        All that the object says itself beside the model; it decides the character set (`take_over_identity`).
    """
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = moment
    dataset.SeriesDate, dataset.SeriesTime = moment
    library = highdicom.ContributingEquipment.for_highdicom()
    library.ContributionDateTime = "".join(moment)
    model = [] if algorithm is None else [processing_equipment(algorithm)]
    dataset.ContributingEquipmentSequence = [*model, library]
    said = [*own_text] if algorithm is None else [*own_text, algorithm.name, algorithm.version]
    take_over_identity(dataset, source, own_text=" ".join(said))


def described(finding: Finding, what: str) -> str:
    """Return the Series Description of a kind of object: that of the finding, and at its end `what` it is."""
    room = DESCRIPTION_LENGTH - len(what) - 2
    return f"{say_ai(finding.series_description)[:room].rstrip()}: {what}"


def display_rgb(segment: SegmentSpec, number: int) -> tuple[int, int, int]:
    """Return the colour to draw a segment in: its own, unless it has none or could be taken for a grey image's."""
    own = segment.rgb
    if own is not None and max(own) - min(own) >= _LEAST_COLOURFUL:
        return own
    return _DISPLAY_COLOURS[(number - 1) % len(_DISPLAY_COLOURS)]


def segment_text(segments: Sequence[SegmentSpec]) -> list[str]:
    """Return all that an object says in describing segments."""
    return [
        text
        for segment in segments
        for text in (
            *(segment.label, segment.category.meaning, segment.type.meaning),
            segment.modifier.meaning if segment.modifier else "",
        )
    ]


def reference(header: pydicom.Dataset, purpose: Any = None) -> pydicom.Dataset:
    """Return an item that refers to an instance (PS3.3 10.8), with a purpose of reference if one is given."""
    item = pydicom.Dataset()
    item.ReferencedSOPClassUID = header.SOPClassUID
    item.ReferencedSOPInstanceUID = header.SOPInstanceUID
    if purpose is not None:
        item.PurposeOfReferenceCodeSequence = [CodedConcept.from_code(purpose)]
    return item


def instance_references(headers: Sequence[pydicom.Dataset]) -> list[pydicom.Dataset]:
    """Return an item for each instance that slices with these headers are of (PS3.3 10.8)."""
    return [reference(header) for header in distinct_instances(headers)]


def prompting_reference(prompting: PromptingObject) -> pydicom.Dataset:
    """Return an item that refers to what prompted the algorithm."""
    item = pydicom.Dataset()
    item.ReferencedSOPClassUID = prompting.sop_class_uid
    item.ReferencedSOPInstanceUID = prompting.sop_instance_uid
    return item


def referenced_series(
    headers: Sequence[pydicom.Dataset],
    prompted_by: Sequence[PromptingObject] = (),
    series_instance_uid: str = "",
) -> list[pydicom.Dataset]:
    """Return Referenced Series Sequence (PS3.3 C.12.2): the source instances, and what prompted the algorithm.

    The source's series is the one that the first header names, unless it is given.
    """
    source = series_instance_uid or str(headers[0].SeriesInstanceUID)
    by_series = {source: instance_references(headers)}
    for prompting in prompted_by:
        by_series.setdefault(prompting.series_instance_uid, []).append(prompting_reference(prompting))
    found = []
    for series_instance_uid, instances in by_series.items():
        series = pydicom.Dataset()
        series.SeriesInstanceUID = series_instance_uid
        series.ReferencedInstanceSequence = instances
        found.append(series)
    return found


def transfer_syntax(longest: int) -> UID:
    """Return the transfer syntax for an object whose longest value of coordinates has so many bytes.

    Explicit VR Little Endian, as all results are, unless the value is longer than its length field can say there
    (PS3.3 C.8.8.6 warns of it): then Implicit VR Little Endian, which every receiver knows too.
    """
    return UID(ExplicitVRLittleEndian if longest <= _MOST_SHORT_VALUE_BYTES else ImplicitVRLittleEndian)


def _throwaway() -> SOPClass:
    return SOPClass("1.2", "1.2", 1, "1.2", CTImageStorage, 1, "OT")
