"""Segmentations: masks and boxes where the voxels are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import RLELossless, RTStructureSetStorage

from operators.errors import PromptRefused
from operators.sam.objects.placing import PlacedPrompt, place_object
from operators.sam.objects.prompt_object import Kind
from operators.sam.objects.reading import read_prompts, referenced_series
from operators.series_volume import SeriesVolume, read_series
from tests.phantom import CORONAL, OBLIQUE, Phantom, variants
from tests.placements import placements
from tests.prompt_objects import stored
from tests.segmented_phantom import LEFT_KIDNEY, LIVER, asymmetric_labels, write_segmented

PHANTOM = Phantom(slices=7, rows=24, columns=40, row_spacing=0.8, column_spacing=0.5)
VARIANTS = variants(PHANTOM)


def _written(phantom: Phantom, folder: Path) -> tuple[pydicom.Dataset, SeriesVolume]:
    written, series, _ = write_segmented(phantom.write(folder / "ct"), folder / "seg.dcm")
    return pydicom.dcmread(written.path), series


def _masks(prompt: PlacedPrompt, shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    whole = np.zeros(shape, np.bool_)
    for placed in prompt.slices:
        assert placed.mask is not None
        whole[placed.slice_index] = placed.mask.full(*shape[1:])
    return whole


@pytest.mark.parametrize("name", VARIANTS)
def test_each_segment_is_on_its_voxels(name: str, tmp_path: Path) -> None:
    dataset, series = _written(VARIANTS[name], tmp_path)
    labels = asymmetric_labels(series.volume.spatial_shape)
    found = read_prompts(dataset)
    assert found.kind is Kind.SEGMENTATION
    assert found.referenced_series() == VARIANTS[name].uid("series", "")
    assert [(one.number, one.label, one.code) for one in found.objects] == [
        (1, "Liver", LIVER.type),
        (2, "Left kidney", LEFT_KIDNEY.type),
    ]
    assert all(one.tracking_uid for one in found.objects)
    assert [(one.number, one.code) for one in found.left_out] == [(3, "prompt-empty")]
    for wanted, value in zip(found.objects, (1, 5), strict=True):
        prompt = place_object(wanted, series)
        assert np.array_equal(_masks(prompt, labels.shape), labels == value)
        for placed in prompt.slices:
            rows, columns = np.nonzero(labels[placed.slice_index] == value)
            box = placed.prompt.box
            assert box is not None
            assert (box.left, box.top) == (columns.min(), rows.min())
            assert (box.right, box.bottom) == (columns.max() + 1, rows.max() + 1)


def test_a_segmentation_on_another_grid_is_where_it_lies_in_the_patient(tmp_path: Path) -> None:
    """Drawn on a coronal series, asked on an oblique one: each voxel has the value of the voxel that it lies in."""
    coronal = Phantom(slices=9, rows=20, columns=22, orientation=CORONAL, origin=(-20.0, -12.0, 40.0))
    dataset, source = _written(coronal, tmp_path / "coronal")
    target = read_series(replace(PHANTOM, orientation=OBLIQUE).write(tmp_path / "oblique"))
    prompts = [place_object(wanted, target) for wanted in read_prompts(dataset).objects]
    labels = asymmetric_labels(source.volume.spatial_shape)
    shape = target.volume.spatial_shape
    indices = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).reshape(-1, 3)
    places = source.volume.map_reference_to_indices(target.volume.map_indices_to_reference(indices))
    nearest = np.rint(places).astype(int)
    inside = np.all((nearest >= 0) & (nearest < labels.shape), axis=1)
    expected = np.zeros(len(indices), np.uint8)
    expected[inside] = labels[tuple(nearest[inside].T)]
    assert (expected > 0).sum() > 50
    for prompt in prompts:
        value = {1: 1, 2: 5}[prompt.wanted.number]
        assert np.array_equal(_masks(prompt, shape), (expected == value).reshape(shape))


def _made(series: SeriesVolume, pixels: NDArray[Any], kind: str, **more: Any) -> pydicom.Dataset:
    identification = hd.AlgorithmIdentificationSequence("a", hd.sr.CodedConcept("123109", "DCM", "Manual"), "1")
    segments = pixels.shape[3] if pixels.ndim == 4 else 1
    segmentation = hd.seg.Segmentation(
        source_images=series.datasets,
        pixel_array=pixels,
        segmentation_type=kind,
        segment_descriptions=[
            LIVER.description(number, identification, f"1.2.{number + 2}") for number in range(1, segments + 1)
        ],
        series_instance_uid="1.2.3.4",
        series_number=4,
        sop_instance_uid="1.2.3.5",
        instance_number=1,
        manufacturer="Viewers",
        manufacturer_model_name="Pencil",
        software_versions="1",
        device_serial_number="1",
        **more,
    )
    return stored(segmentation)


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> SeriesVolume:
    return read_series(PHANTOM.write(tmp_path_factory.mktemp("ct")))


def test_fractions_count_from_a_half_on_and_label_maps_as_they_are(series: SeriesVolume) -> None:
    fractions = np.zeros(series.volume.spatial_shape, np.float32)
    fractions[2, 3:9, 4:12], fractions[2, 5:9, 7:12], fractions[4, 3:9, 4:12] = 0.3, 0.8, 0.2
    dataset = _made(series, fractions, "FRACTIONAL", max_fractional_value=200)
    (wanted,) = read_prompts(dataset).objects
    prompt = place_object(wanted, series)
    assert np.array_equal(_masks(prompt, fractions.shape), fractions >= 0.5)
    labels = (fractions > 0.5).astype(np.uint8)
    (wanted,) = read_prompts(_made(series, labels, "LABELMAP")).objects
    prompt = place_object(wanted, series)
    assert np.array_equal(_masks(prompt, labels.shape), labels == 1)


def test_what_it_refers_to_beside_images_is_no_series_to_draw_on(series: SeriesVolume) -> None:
    labels = np.zeros(series.volume.spatial_shape, np.uint8)
    labels[3, 5:9, 7:12] = 1
    dataset = _made(series, labels, "BINARY")
    other, instance = pydicom.Dataset(), pydicom.Dataset()  # as results here name what prompted them
    instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID = RTStructureSetStorage, "2.25.91"
    other.SeriesInstanceUID, other.ReferencedInstanceSequence = "2.25.9", [instance]
    dataset.ReferencedSeriesSequence.append(other)
    assert read_prompts(dataset).referenced_series() == PHANTOM.uid("series", "")
    assert referenced_series(dataset) == PHANTOM.uid("series", "")


def test_one_frame_is_enough(series: SeriesVolume) -> None:
    labels = np.zeros(series.volume.spatial_shape, np.uint8)
    labels[3, 5:9, 7:12] = 1
    (wanted,) = read_prompts(_made(series, labels, "BINARY")).objects
    prompt = place_object(wanted, series)
    assert np.array_equal(_masks(prompt, labels.shape), labels == 1)


def test_a_segmentation_elsewhere_is_refused(series: SeriesVolume, tmp_path: Path) -> None:
    for other, code in (
        (replace(PHANTOM, origin=(500.0, 0.0, 0.0)), "prompt-outside"),
        (replace(PHANTOM, seed=2), "frame-of-reference-differs"),
    ):
        dataset, _ = _written(other, tmp_path / code)
        with pytest.raises(PromptRefused) as refusal:
            place_object(read_prompts(dataset).objects[0], series)
        assert refusal.value.code == code


def test_frames_that_span_too_much_or_nothing_regular_are_refused(series: SeriesVolume) -> None:
    labels = np.zeros(series.volume.spatial_shape, np.uint8)
    labels[:, 5:9, 7:12] = 1
    dataset = _made(series, labels, "BINARY")
    frames = dataset.PerFrameFunctionalGroupsSequence
    frames[0].PlanePositionSequence[0].ImagePositionPatient = [-20.0, -15.0, -3e7]
    with pytest.raises(PromptRefused) as refusal:
        read_prompts(dataset)
    assert refusal.value.code in ("prompt-too-long", "graphic-unsupported")
    frames[0].PlanePositionSequence[0].ImagePositionPatient = [-20.0, -15.0, 31.1]
    with pytest.raises(PromptRefused) as refusal:
        read_prompts(dataset)
    assert refusal.value.code == "graphic-unsupported"


def test_a_frame_that_is_damaged_is_one_segments(series: SeriesVolume) -> None:
    fractions = np.zeros((*series.volume.spatial_shape, 4), np.float32)
    for number in range(4):
        fractions[2:4, 5 * number : 5 * number + 3, 4:12, number] = 1.0
    dataset = _made(series, fractions, "FRACTIONAL", transfer_syntax_uid=RLELossless)
    frames = list(generate_frames(dataset.PixelData))
    whose = [
        one.SegmentIdentificationSequence[0].ReferencedSegmentNumber for one in dataset.PerFrameFunctionalGroupsSequence
    ]
    dataset.PixelData = encapsulate(
        [b"damaged!" if number == 2 else frame for frame, number in zip(frames, whose, strict=True)]
    )
    placement = placements(read_prompts(dataset), series)
    assert [one.wanted.number for one in placement.prompts] == [1, 3, 4]
    assert [(one.number, one.code) for one in placement.left_out] == [(2, "unreadable")]
    for prompt in placement.prompts:
        assert np.array_equal(_masks(prompt, fractions.shape[:3]), fractions[..., prompt.wanted.number - 1] == 1)


def test_a_segment_that_is_described_and_has_no_frame_leaves_the_others_alone(series: SeriesVolume) -> None:
    fractions = np.zeros((*series.volume.spatial_shape, 2), np.float32)
    fractions[2, 3:9, 4:12, 1] = 1.0
    placement = placements(read_prompts(_made(series, fractions, "FRACTIONAL")), series)
    assert [one.wanted.number for one in placement.prompts] == [2]
    assert [(one.number, one.code) for one in placement.left_out] == [(1, "prompt-empty")]


@pytest.mark.parametrize(
    ("missing", "code"),
    [
        ("PixelData", "unreadable"),
        ("SegmentSequence", "unreadable"),
        ("Rows", "unreadable"),
        ("PerFrameFunctionalGroupsSequence", "graphic-unsupported"),
    ],
)
def test_a_damaged_segmentation_is_refused(missing: str, code: str, tmp_path: Path) -> None:
    dataset, _ = _written(PHANTOM, tmp_path)
    delattr(dataset, missing)
    with pytest.raises(PromptRefused) as refusal:
        read_prompts(dataset)
    assert refusal.value.code == code
