"""DICOM objects that a viewer would store: presentation states, reports, structure sets and segmentations of a phantom.

`drawn_pixels` are (x, y) on a slice, (0, 0) in the corner of the first pixel; `in_patient` says where they lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
from highdicom.pr import (
    GraphicAnnotation,
    GraphicLayer,
    GraphicObject,
    GrayscaleSoftcopyPresentationState,
    TextObject,
)
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage

from tests.phantom import Phantom

Floats = NDArray[np.float64]

EQUIPMENT: dict[str, Any] = {
    "manufacturer": "Viewers",
    "manufacturer_model_name": "Pencil",
    "software_versions": "1",
    "device_serial_number": "1",
}
FINDING = hd.sr.CodedConcept("4147007", "SCT", "Mass")


def in_patient(phantom: Phantom, index: int, pixels: Floats) -> Floats:
    """Where points (n, 2) on a slice lie in the patient: LPS mm, (n, 3)."""
    _, down, right = phantom.axes
    places: Floats = phantom.position(index) + (pixels[:, :1] - 0.5) * right + (pixels[:, 1:] - 0.5) * down
    return places


def rectangle(left: float, top: float, right: float, bottom: float) -> Floats:
    """A closed outline."""
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom], [left, top]])


def presentation_state(
    phantom: Phantom,
    index: int,
    graphics: Sequence[tuple[str, Floats]],
    *,
    units: str = "PIXEL",
    texts: Sequence[str] = (),
) -> Dataset:
    """Graphics of a type each on one slice, in one annotation."""
    image = phantom.dataset(index)
    layer = GraphicLayer("LAYER", 1)
    annotation = GraphicAnnotation(
        referenced_images=[image],
        graphic_layer=layer,
        graphic_objects=[
            GraphicObject(graphic_type=kind, graphic_data=points, units=units, is_filled=False)
            for kind, points in graphics
        ],
        text_objects=[
            TextObject(text_value=text, units="PIXEL", anchor_point=(1.0, 1.0), anchor_point_visible=False)
            for text in texts
        ],
    )
    state = GrayscaleSoftcopyPresentationState(
        referenced_images=[image],
        series_instance_uid=phantom.uid("presentation series"),
        series_number=11,
        sop_instance_uid=phantom.uid("presentation"),
        instance_number=1,
        content_label="DRAWN",
        graphic_layers=[layer],
        graphic_annotations=[annotation],
        concept_name=codes.DCM.PresentationState,
        **EQUIPMENT,
    )
    state.Laterality = ""  # Type 2C, and highdicom leaves it out
    return stored(state)


def region_group(
    phantom: Phantom, index: int, graphic_type: str, points: Floats, *, uid: str = "tracked"
) -> hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations:
    """TID 1410 with an image region: on the slice where points are (n, 2), in the patient where they are (n, 3)."""
    image = phantom.dataset(index)
    if points.shape[1] == 3:
        region: Any = hd.sr.ImageRegion3D(
            graphic_type=graphic_type, graphic_data=points, frame_of_reference_uid=image.FrameOfReferenceUID
        )
    else:
        region = hd.sr.ImageRegion(
            graphic_type=graphic_type,
            graphic_data=points,
            source_image=hd.sr.SourceImageForRegion.from_source_image(image),
        )
    return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=phantom.uid(uid), identifier="lesion 1"),
        referenced_region=region,
        finding_type=FINDING,
        finding_sites=[hd.sr.FindingSite(anatomic_location=codes.SCT.Liver)],
    )


def report(phantom: Phantom, groups: Sequence[Any]) -> Dataset:
    """A Comprehensive 3D SR of TID 1500 with these measurement groups."""
    observer = hd.sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(uid=phantom.uid("device")),
    )
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
        imaging_measurements=list(groups),
        title=codes.DCM.ImagingMeasurementReport,
    )
    evidence = [phantom.dataset(index) for index in range(phantom.slices)]
    document = hd.sr.Comprehensive3DSR(
        evidence=evidence,
        content=content[0],
        series_number=12,
        series_instance_uid=phantom.uid("report series"),
        sop_instance_uid=phantom.uid("report"),
        instance_number=1,
        manufacturer="Viewers",
    )
    return stored(document)  # highdicom's own sequences do not take other items


def line_report(phantom: Phantom, index: int, lines: Sequence[Floats]) -> Dataset:
    """As OHIF stores a bidirectional measurement: a group with a NUM for each line, inferred from its SCOORD."""
    dataset = report(phantom, [region_group(phantom, index, "POLYLINE", rectangle(1, 1, 2, 2))])
    group = measurement_groups(dataset)[0]
    group.ContentSequence = [item for item in group.ContentSequence if item.ValueType not in ("SCOORD", "SCOORD3D")] + [
        _measured(phantom, index, line, name) for line, name in zip(lines, ("Long Axis", "Short Axis"), strict=False)
    ]
    return dataset


def _measured(phantom: Phantom, index: int, line: Floats, name: str) -> Dataset:
    image, selected, drawn, measured = Dataset(), Dataset(), Dataset(), Dataset()
    image.ReferencedSOPClassUID = phantom.dataset(index).SOPClassUID
    image.ReferencedSOPInstanceUID = phantom.dataset(index).SOPInstanceUID
    selected.RelationshipType, selected.ValueType = "SELECTED FROM", "IMAGE"
    selected.ReferencedSOPSequence = [image]
    drawn.RelationshipType, drawn.ValueType, drawn.GraphicType = "INFERRED FROM", "SCOORD", "POLYLINE"
    drawn.GraphicData = line.flatten().tolist()
    drawn.ContentSequence = [selected]
    measured.RelationshipType, measured.ValueType = "CONTAINS", "NUM"
    measured.ConceptNameCodeSequence = [hd.sr.CodedConcept("G-A185", "SRT", name)]
    value = Dataset()
    value.NumericValue = "1"
    value.MeasurementUnitsCodeSequence = [hd.sr.CodedConcept("mm", "UCUM", "millimeter")]
    measured.MeasuredValueSequence = [value]
    measured.ContentSequence = [drawn]
    return measured


def measurement_groups(dataset: Dataset) -> list[Dataset]:
    """The Measurement Group containers of a report made here."""
    containers = [item for item in dataset.ContentSequence if item.ValueType == "CONTAINER"]
    return [item for container in containers for item in container.ContentSequence]


def structure_set(
    phantom: Phantom, regions: Sequence[tuple[str, Sequence[tuple[str, Floats]]]], *, number: int = 7
) -> Dataset:
    """Regions of interest by name, each with contours of a type and points in the patient; numbers from `number`."""
    source = phantom.dataset(0)
    dataset = Dataset()
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate"):
        dataset[keyword] = source[keyword]
    for keyword in ("StudyTime", "AccessionNumber", "StudyID", "ReferringPhysicianName", "SpecificCharacterSet"):
        dataset[keyword] = source[keyword]
    dataset.SOPClassUID, dataset.SOPInstanceUID = RTStructureSetStorage, phantom.uid("structure set")
    dataset.SeriesInstanceUID, dataset.Modality, dataset.SeriesNumber = phantom.uid("structure series"), "RTSTRUCT", 13
    dataset.Manufacturer, dataset.InstanceNumber, dataset.OperatorsName = "Viewers", 1, ""
    dataset.StructureSetLabel, dataset.StructureSetDate, dataset.StructureSetTime = "DRAWN", "20240305", "120000"
    frame = str(source.FrameOfReferenceUID)
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = frame, ""
    dataset.ReferencedFrameOfReferenceSequence = [_referenced_frame(phantom, frame)]
    dataset.StructureSetROISequence, dataset.ROIContourSequence, dataset.RTROIObservationsSequence = [], [], []
    for place, (name, contours) in enumerate(regions, start=number):
        region, drawn, observed = Dataset(), Dataset(), Dataset()
        region.ROINumber, region.ReferencedFrameOfReferenceUID = place, frame
        region.ROIName, region.ROIGenerationAlgorithm = name, "MANUAL"
        drawn.ReferencedROINumber, drawn.ContourSequence = place, [_contour(*contour) for contour in contours]
        observed.ObservationNumber, observed.ReferencedROINumber = place, place
        observed.RTROIInterpretedType, observed.ROIInterpreter = "ORGAN", ""
        dataset.StructureSetROISequence.append(region)
        dataset.ROIContourSequence.append(drawn)
        dataset.RTROIObservationsSequence.append(observed)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def _contour(kind: str, points: Floats) -> Dataset:
    contour = Dataset()
    contour.ContourGeometricType, contour.NumberOfContourPoints = kind, len(points)
    contour.ContourData = [f"{value:.6g}" for value in points.flatten()]
    return contour


def _referenced_frame(phantom: Phantom, frame: str) -> Dataset:
    referenced, study, series = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID, series.ContourImageSequence = phantom.uid("series", phantom.series), []
    for index in range(phantom.slices):
        image = Dataset()
        image.ReferencedSOPClassUID = phantom.dataset(index).SOPClassUID
        image.ReferencedSOPInstanceUID = phantom.dataset(index).SOPInstanceUID
        series.ContourImageSequence.append(image)
    study.ReferencedSOPClassUID = "1.2.840.10008.3.1.2.3.1"
    study.ReferencedSOPInstanceUID, study.RTReferencedSeriesSequence = phantom.uid("study"), [series]
    referenced.FrameOfReferenceUID, referenced.RTReferencedStudySequence = frame, [study]
    return referenced


def stored(dataset: Dataset) -> pydicom.Dataset:
    """The object as it comes back from a file."""
    buffer = pydicom.filebase.DicomBytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    buffer.seek(0)
    return pydicom.dcmread(buffer)
