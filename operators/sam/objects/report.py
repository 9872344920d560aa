"""Structured reports: what TID 1500 and its kin draw, in any of the trees that viewers make of it.

Producers keep to the templates (PS3.16 TID 1500, 1410, 1411, 300) in part only, so that no template is asked for: every
SCOORD and SCOORD3D of the content tree counts (PS3.3 C.17.3), but for those that a viewer keeps to show the drawing
again. Those of one Measurement Group are one wanted structure, such as the long and the short axis of a lesion; any
other is one by itself. Pixel Origin Interpretation matters for tiled images only, and none of those becomes a series
volume.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import pydicom

from operators.errors import PromptRefused
from operators.sam.objects.graphics import shape_of
from operators.sam.objects.prompt_object import Graphic, ImageReference, ObjectPrompt, Part
from operators.sam.objects.values import code_of, coordinates, image_reference, items
from operators.segments import Code
from operators.series_checks import text

_MOST_ITEMS = 100_000
_DEEPEST = 64
"""Levels of the content tree; the templates have fewer than ten."""
_GROUP = ("125007", "DCM")
_FINDING = ("121071", "DCM")
_FINDING_SITES = (("363698007", "SCT"), ("G-C0E3", "SRT"))
_TRACKING_ID, _TRACKING_UID = ("112039", "DCM"), ("112040", "DCM")
_COMMENT = ("121106", "DCM")
_IMAGE_REGION = ("111030", "DCM")
"""Its outline is closed whether or not its first point comes again (TID 1410)."""
_SEGMENTS = (("121214", "DCM"), ("121191", "DCM"))
"""Referenced Segmentation Frame, Referenced Segment."""
_COORDINATES = {"SCOORD": 2, "SCOORD3D": 3}
_NOT_DRAWN = (("TextPosition", "99CS3D"), ("ControlPoints", "99CS3D"))
"""Cornerstone's, and so OHIF's: where the text beside a drawing was dragged to, and what a curve was laid through."""


@dataclass(frozen=True)
class _Node:
    item: pydicom.Dataset
    above: tuple[pydicom.Dataset, ...]
    """From the root to its parent."""

    @property
    def owner(self) -> pydicom.Dataset:
        """The nearest measurement group, or the item itself."""
        groups = [item for item in self.above if _concept(item) == _GROUP]
        return groups[-1] if groups else self.item


def report_images(dataset: pydicom.Dataset) -> Iterator[ImageReference]:
    """Return the evidence (PS3.3 C.17.2.3): the images, and other objects, that the report was made from."""
    for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
        for study in items(dataset, keyword):
            for series in items(study, "ReferencedSeriesSequence"):
                for instance in items(series, "ReferencedSOPSequence"):
                    yield image_reference(instance, text(series, "SeriesInstanceUID"))


def report_parts(dataset: pydicom.Dataset) -> Iterator[Part]:
    """Return the measurement groups with regions, and the regions outside of groups."""
    series = {image.sop_instance_uid: image.series_instance_uid for image in report_images(dataset)}
    drawn: dict[int, list[_Node]] = {}
    for node in _nodes(dataset):
        if _is_region(node.item) or (_concept(node.item) in _SEGMENTS and node.owner is not node.item):
            drawn.setdefault(id(node.owner), []).append(node)
    for number, nodes in enumerate(drawn.values(), start=1):
        yield number, partial(_object, dataset, series, number, nodes)


def _nodes(dataset: pydicom.Dataset) -> Iterator[_Node]:
    """Every content item below the root, in the order of the document."""
    waiting = [_Node(item, (dataset,)) for item in reversed(items(dataset, "ContentSequence"))]
    seen = 0
    while waiting:
        node = waiting.pop()
        seen += 1
        if seen > _MOST_ITEMS or len(node.above) > _DEEPEST:
            raise PromptRefused(
                f"the report has more than {_MOST_ITEMS} content items or {_DEEPEST} levels", code="prompt-too-long"
            )
        yield node
        above = (*node.above, node.item)
        waiting += [_Node(item, above) for item in reversed(items(node.item, "ContentSequence"))]


def _object(dataset: pydicom.Dataset, series: Mapping[str, str], number: int, nodes: list[_Node]) -> ObjectPrompt:
    regions = [node for node in nodes if _is_region(node.item)]
    if not regions:
        raise PromptRefused(
            "the region is a segment of a Segmentation; give that object instead of the report",
            code="graphic-unsupported",
        )
    owner = nodes[0].owner
    said = {_concept(item): item for item in reversed(items(owner, "ContentSequence"))}
    finding = said.get(_FINDING, pydicom.Dataset())
    code = code_of(finding, "ConceptCodeSequence")
    sites = [said[site] for site in _FINDING_SITES if site in said]
    tracking_id = text(said.get(_TRACKING_ID, pydicom.Dataset()), "TextValue")
    comment = text(said.get(_COMMENT, pydicom.Dataset()), "TextValue")  # what OHIF has a measurement renamed to
    names = (code.meaning if code else "", text(finding, "TextValue"), comment, tracking_id, _name_above(regions[0]))
    return ObjectPrompt(
        number=number,
        drawings=tuple(_graphic(dataset, series, node) for node in regions),
        label=next(filter(None, names), ""),
        code=code,
        site=code_of(sites[0], "ConceptCodeSequence") if sites else None,
        tracking_id=tracking_id,
        tracking_uid=text(said.get(_TRACKING_UID, pydicom.Dataset()), "UID"),
    )


def _is_region(item: pydicom.Dataset) -> bool:
    return text(item, "ValueType") in _COORDINATES and _concept(item) not in _NOT_DRAWN


def _graphic(dataset: pydicom.Dataset, series: Mapping[str, str], node: _Node) -> Graphic:
    item = node.item
    dimensions = _COORDINATES[text(item, "ValueType")]
    points = coordinates(item, "GraphicData", dimensions)
    shape, corners = shape_of(text(item, "GraphicType"), points, is_closed=_concept(item) == _IMAGE_REGION)
    if dimensions == 3:
        return Graphic(shape, corners, frame_of_reference_uid=text(item, "ReferencedFrameOfReferenceUID"))
    image = _selected_image(dataset, node)
    return Graphic(shape, corners, replace(image, series_instance_uid=series.get(image.sop_instance_uid, "")))


def _selected_image(dataset: pydicom.Dataset, node: _Node) -> ImageReference:
    """The image that coordinates are SELECTED FROM, below them or by reference; or else the only one of their group."""
    below = [_resolved(dataset, item) for item in items(node.item, "ContentSequence")]
    found = _images(below)
    if not found and node.owner is not node.item:
        found = {image.sop_instance_uid: image for image in _images_within(node.owner)}
    if len(found) != 1:
        raise PromptRefused(
            f"expected coordinates selected from one image, got {len(found)}; store the region with its image",
            code="prompt-references-nothing",
        )
    return next(iter(found.values()))


def _images(candidates: list[pydicom.Dataset]) -> dict[str, ImageReference]:
    references = [
        image_reference(one)
        for item in candidates
        if text(item, "ValueType") == "IMAGE" and _concept(item) not in _SEGMENTS
        for one in items(item, "ReferencedSOPSequence")
    ]
    return {reference.sop_instance_uid: reference for reference in references if reference.sop_instance_uid}


def _images_within(group: pydicom.Dataset) -> Iterator[ImageReference]:
    below = items(group, "ContentSequence")
    yield from _images(below).values()
    for item in below:
        yield from _images(items(item, "ContentSequence")).values()


def _resolved(dataset: pydicom.Dataset, item: pydicom.Dataset) -> pydicom.Dataset:
    """The content item that `item` is, or refers to by its place in the tree (PS3.3 C.17.3.2.5): 1 is the root."""
    path = item.get("ReferencedContentItemIdentifier")
    if path is None:
        return item
    found = dataset
    for place in [] if isinstance(path, int) else list(path)[1:]:
        below = items(found, "ContentSequence")
        if not 1 <= int(place) <= len(below):
            raise PromptRefused("a content item refers to one that is not there", code="unreadable")
        found = below[int(place) - 1]
    return found


def _concept(item: pydicom.Dataset) -> tuple[str, str]:
    code = code_of(item, "ConceptNameCodeSequence")
    return (code.value, code.scheme) if code else ("", "")


def _name_above(node: _Node) -> str:
    """What the item, or the nearest below the root that has a name, is called."""
    codes: list[Code | None] = [code_of(item, "ConceptNameCodeSequence") for item in (*node.above[1:], node.item)]
    named = [code.meaning for code in codes if code and (code.value, code.scheme) != _GROUP]
    measured = [
        code.meaning
        for item in reversed(node.above[1:])
        if text(item, "ValueType") == "NUM" and (code := code_of(item, "ConceptNameCodeSequence"))
    ]
    return next(iter(measured), named[-1] if named else "")
