"""What a model's labels are, from dcmqi's metainfo JSON (``segments.json``), and as highdicom describes them.

The format is that of ``itkimage2segimage`` (https://qiicr.gitbook.io/dcmqi-guide): ``segmentAttributes`` is a list of
lists of segments, each with ``labelID``, codes and colour.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
from highdicom.sr import CodedConcept

from operators.errors import ModelPackageError
from operators.label_maps import MOST_LABELS

LABEL_LENGTH = 64
"""Characters of Segment Label and Code Meaning, VR LO (PS3.5 section 6.2)."""


@dataclass(frozen=True)
class Code:
    """A coded concept (PS3.3 section 8)."""

    value: str
    scheme: str
    meaning: str

    def __str__(self) -> str:
        return f'({self.value}, {self.scheme}, "{self.meaning}")'

    def concept(self) -> CodedConcept:
        """Return it as highdicom's."""
        return CodedConcept(self.value, self.scheme, self.meaning)


@dataclass(frozen=True)
class SegmentSpec:
    """One label of a model."""

    label_value: int
    """What the label map holds, 1 to 65535."""
    label: str
    """Segment Label."""
    category: Code
    """Segmented Property Category (CID 7150)."""
    type: Code
    """Segmented Property Type (CID 7151)."""
    modifier: Code | None
    """Segmented Property Type Modifier, such as a side (CID 244)."""
    algorithm_name: str
    rgb: tuple[int, int, int] | None
    """Recommended display colour, 0 to 255."""
    tracking_id: str = ""
    """Of what it is tracked as from study to study (PS3.3 C.8.20.4); the label where it is not given."""
    tracking_uid: str = ""
    """With `tracking_id`; where it is not given, one that derives from the job."""

    def description(
        self,
        number: int,
        algorithm: AlgorithmIdentificationSequence,
        tracking_uid: str,
        *,
        is_automatic: bool = True,
    ) -> SegmentDescription:
        """Return the Segment Sequence item (PS3.3 C.8.20.4) for segment `number`.

        Its Segment Algorithm Type is AUTOMATIC, or SEMIAUTOMATIC where a person's hand guided the algorithm.
        """
        kind = SegmentAlgorithmTypeValues.AUTOMATIC if is_automatic else SegmentAlgorithmTypeValues.SEMIAUTOMATIC
        described = SegmentDescription(
            segment_number=number,
            segment_label=self.label,
            segmented_property_category=self.category.concept(),
            segmented_property_type=self.type.concept(),
            algorithm_type=kind,
            algorithm_identification=algorithm,
            tracking_uid=self.tracking_uid or tracking_uid,
            tracking_id=self.tracking_id or self.label,
            display_color=None if self.rgb is None else CIELabColor.from_rgb(*self.rgb),
        )
        if self.modifier is not None:  # highdicom has no argument for it
            described.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [
                self.modifier.concept()
            ]
        return described


def load_segments(path: Path) -> tuple[SegmentSpec, ...]:
    """Return the segments in `path`, by rising label value.

    Raises
    ------
    ModelPackageError
        ``file-unreadable`` if it is no metainfo JSON or lacks a code; ``labels-differ`` if a label comes twice or
        can't be in a label map.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        segments = [_segment(entry) for group in content["segmentAttributes"] for entry in group]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelPackageError(
            f"{path.name} must be dcmqi metainfo JSON, each segment with labelID, category and type code: {error!r}",
            code="file-unreadable",
        ) from error
    values = [segment.label_value for segment in segments]
    if not segments or len(set(values)) < len(values) or min(values) < 1 or max(values) > MOST_LABELS:
        raise ModelPackageError(
            f"{path.name} must hold at least one segment, each with a labelID of its own from 1 to {MOST_LABELS}; "
            f"it has {values}",
            code="labels-differ",
        )
    return tuple(sorted(segments, key=lambda segment: segment.label_value))


def load_series_description(path: Path) -> str:
    """Return what the metainfo JSON in `path` calls its results; empty if it does not say."""
    return str(json.loads(path.read_text(encoding="utf-8")).get("SeriesDescription", ""))


def _segment(entry: Mapping[str, Any]) -> SegmentSpec:
    kind = _code(entry["SegmentedPropertyTypeCodeSequence"])
    modifier = entry.get("SegmentedPropertyTypeModifierCodeSequence")
    meanings = [kind.meaning] if modifier is None else [kind.meaning, _code(modifier).meaning]
    label = str(entry.get("SegmentLabel") or ", ".join(meanings))
    if len(label) > LABEL_LENGTH:
        raise ValueError(f"the label {label!r} is longer than {LABEL_LENGTH} characters")
    return SegmentSpec(
        label_value=int(entry["labelID"]),
        label=label,
        category=_code(entry["SegmentedPropertyCategoryCodeSequence"]),
        type=kind,
        modifier=None if modifier is None else _code(modifier),
        algorithm_name=str(entry.get("SegmentAlgorithmName", "")),
        rgb=_colour(entry.get("recommendedDisplayRGBValue")),
    )


def _code(entry: Mapping[str, str]) -> Code:
    code = Code(str(entry["CodeValue"]), str(entry["CodingSchemeDesignator"]), str(entry["CodeMeaning"]))
    if not (code.value and code.scheme and code.meaning):
        raise ValueError("a code has an empty value, scheme or meaning")
    return code


def _colour(entry: Any) -> tuple[int, int, int] | None:
    if entry is None:
        return None
    red, green, blue = (int(part) for part in entry)
    return red, green, blue
