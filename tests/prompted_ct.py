"""The real abdominal CT as what `tests.prompt_objects` draws on, and prompts over one organ of its reference labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID

from operators.results.finding import Algorithm
from operators.segments import Code, SegmentSpec
from operators.series_volume import read_series
from tests import prompt_objects
from tests.data import LIVER, SPLEEN, STOMACH, reference_labels
from tests.fixtures.lite_medsam.make_expected import corners_of
from tests.phantom import Phantom
from tests.written_segmentation import write_segmentation

SPLEEN_SEGMENT = SegmentSpec(
    1,
    "Spleen, drawn",
    Code("123037004", "SCT", "Anatomical Structure"),
    Code("78961009", "SCT", "Spleen"),
    None,
    "",
    None,
    "spleen 7",
    "2.25.1234567890",
)

Bits = NDArray[np.bool_]


@dataclass(frozen=True)
class RealCt(Phantom):
    """The CT's slices in the order of its volume, under the names that a phantom has."""

    headers: tuple[Dataset, ...] = ()
    reference: Mapping[int, Bits] = field(default_factory=dict)
    """Axes slice, row, column, by label value."""

    @classmethod
    def of(cls, files: list[Path], source: Path) -> RealCt:
        """Read it."""
        headers = read_series(files).datasets
        labels = reference_labels(source)
        heights = [float(header.ImagePositionPatient[2]) for header in headers]
        if heights[0] > heights[-1]:
            labels = labels[::-1]
        return cls(
            slices=len(headers),
            headers=tuple(pydicom.Dataset(header) for header in headers),
            reference={value: labels == value for value in (LIVER, SPLEEN, STOMACH)},
        )

    @property
    def axes(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        header = self.headers[0]
        along_row, along_column = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
        down, right = (float(number) for number in header.PixelSpacing)
        return self.position(1) - self.position(0), along_column * down, along_row * right

    def position(self, index: int) -> NDArray[np.float64]:
        return np.array(self.headers[index].ImagePositionPatient, float)

    def dataset(self, index: int) -> Dataset:
        return self.headers[index]

    def uid(self, *facts: object) -> str:
        own = {"series": self.headers[0].SeriesInstanceUID, "study": self.headers[0].StudyInstanceUID}
        return str(own[str(facts[0])]) if facts[0] in own else super().uid(*facts)

    def largest(self, value: int) -> int:
        """The slice that shows most of an organ."""
        return int(self.reference[value].sum(axis=(1, 2)).argmax())


def ellipse(ct: RealCt, value: int) -> Dataset:
    """A GSPS with an ellipse around an organ on its largest slice."""
    index = ct.largest(value)
    (left, top), (right, bottom) = _edges(ct.reference[value][index])
    middle_x, middle_y = (left + right) / 2, (top + bottom) / 2
    ends = np.array([[left, middle_y], [right, middle_y], [middle_x, top], [middle_x, bottom]])
    return prompt_objects.presentation_state(ct, index, [("ELLIPSE", ends)], texts=["Spleen?"])


def long_axis(ct: RealCt, value: int) -> Dataset:
    """An SR with the longest diameter of an organ on its largest slice, and the widest one across it."""
    index = ct.largest(value)
    rows, columns = np.nonzero(ct.reference[value][index])
    points = np.stack([columns, rows], axis=1) + 0.5
    centre = points.mean(axis=0)
    _, axes = np.linalg.eigh(np.cov((points - centre).T))
    lines = []
    for axis in axes.T[::-1]:
        along = (points - centre) @ axis
        lines.append(np.stack([centre + along.min() * axis, centre + along.max() * axis]))
    return prompt_objects.line_report(ct, index, lines)


def contours(ct: RealCt, value: int) -> Dataset:
    """An RTSTRUCT with a coarse contour of an organ on its largest slice."""
    index = ct.largest(value)
    corners = _octagon(ct.reference[value][index])
    return prompt_objects.structure_set(
        ct, [("SPLEEN", [("CLOSED_PLANAR", prompt_objects.in_patient(ct, index, corners))])]
    )


def segmentation(ct: RealCt, value: int, files: list[Path], folder: Path) -> Path:
    """A SEG of an organ on its largest slice, painted by a person, tracked; returns its file."""
    series = read_series(files)
    labels = np.zeros(series.volume.spatial_shape, np.uint8)
    labels[ct.largest(value)] = ct.reference[value][ct.largest(value)]
    path = folder / "drawn.dcm"
    write_segmentation(
        series.volume.with_array(labels),
        series,
        [SPLEEN_SEGMENT],
        Algorithm("Pencil", "1", "00" * 32),
        identity="drawn",
        series_description="drawn",
        path=path,
    )
    dataset = pydicom.dcmread(path)
    dataset.Manufacturer = "A workstation"  # what is made here would start no job
    (segment,) = dataset.SegmentSequence
    segment.SegmentAlgorithmType = "MANUAL"
    del segment.SegmentAlgorithmName, segment.SegmentationAlgorithmIdentificationSequence
    dataset.save_as(path, enforce_file_format=True)
    return path


def boxes(ct: RealCt, values: Sequence[int]) -> Dataset:
    """A SEG whose segments, one an organ, are on each slice the organ's box, from its first pixel to its last.

    Limner's box of painted pixels goes to their outer edges, and the reference's scripts' to the last pixel itself; so
    the last row and the last column are not painted. Boxes of neighbouring organs overlap.
    """
    painted = np.zeros((ct.slices, int(ct.headers[0].Rows), int(ct.headers[0].Columns), len(values)), np.uint8)
    for number, value in enumerate(values):
        for index in np.flatnonzero(ct.reference[value].any(axis=(1, 2))):
            left, top, right, bottom = corners_of(ct.reference[value][index])
            painted[index, top:bottom, left:right, number] = 1
    identification = hd.AlgorithmIdentificationSequence(
        "Pencil", hd.sr.CodedConcept("123109", "DCM", "Manual Processing"), "1"
    )
    described = [
        hd.seg.SegmentDescription(
            number, f"Organ {number}", codes.SCT.Tissue, codes.SCT.Tissue, "SEMIAUTOMATIC", identification
        )
        for number in range(1, len(values) + 1)
    ]
    made = hd.seg.Segmentation(
        source_images=ct.headers,
        pixel_array=painted,
        segmentation_type="BINARY",
        segment_descriptions=described,
        series_instance_uid=ct.uid("box series"),
        series_number=15,
        sop_instance_uid=ct.uid("boxes"),
        instance_number=1,
        **prompt_objects.EQUIPMENT,
    )
    return prompt_objects.stored(made)


def as_another(dataset: Dataset, name: str) -> Dataset:
    """Give an object a series and an instance of its own; return it."""
    uid = UID(f"2.25.{int.from_bytes(name.encode()[:12], 'big')}")
    dataset.SOPInstanceUID = dataset.SeriesInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
    return dataset


def not_to_be_followed(ct: RealCt) -> dict[str, Dataset]:
    """By the code of its refusal, an object that refers to the CT and that nothing can be made of."""
    index = ct.largest(SPLEEN)
    beyond = prompt_objects.rectangle(2000, 2000, 2050, 2050)
    within = prompt_objects.in_patient(ct, index, prompt_objects.rectangle(200, 200, 250, 250))
    elsewhere = prompt_objects.report(ct, [prompt_objects.region_group(ct, index, "POLYGON", within)])
    for group in prompt_objects.measurement_groups(elsewhere):
        for item in group.ContentSequence:
            if item.ValueType == "SCOORD3D":
                item.ReferencedFrameOfReferenceUID = "2.25.780"
    empty = prompt_objects.structure_set(ct, [("SPLEEN", [("CLOSED_PLANAR", np.zeros((0, 3)))])])
    points = np.random.default_rng(1).uniform(200, 300, (1000, 2))
    thousand = prompt_objects.presentation_state(ct, index, [("POINT", point[None]) for point in points])
    for graphic in thousand.GraphicAnnotationSequence[0].GraphicObjectSequence:
        graphic.GraphicGroupID = 1  # else each would be a structure of its own
    ungrouped = prompt_objects.presentation_state(ct, index, [("POINT", point[None]) for point in points])
    outside = prompt_objects.presentation_state(ct, index, [("POLYLINE", prompt_objects.rectangle(1, 1, 2, 2))])
    outside.GraphicAnnotationSequence[0].GraphicObjectSequence[0].GraphicData = beyond.flatten().tolist()
    made = {
        "prompt-outside": outside,
        "frame-of-reference-differs": elsewhere,
        "prompt-empty": empty,
        "prompt-too-long": thousand,
        "prompt-too-many-structures": ungrouped,
    }
    return {code: as_another(dataset, code) for code, dataset in made.items()}


def _edges(mask: Bits) -> tuple[tuple[float, float], tuple[float, float]]:
    rows, columns = np.nonzero(mask)
    return (float(columns.min()), float(rows.min())), (float(columns.max() + 1), float(rows.max() + 1))


def _octagon(mask: Bits) -> NDArray[np.float64]:
    (left, top), (right, bottom) = _edges(mask)
    centre, half = np.array([left + right, top + bottom]) / 2, np.array([right - left, bottom - top]) / 2
    angles = np.arange(8) * np.pi / 4
    return np.stack([centre + half * [np.cos(angle), np.sin(angle)] for angle in angles])
