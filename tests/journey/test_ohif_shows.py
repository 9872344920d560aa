"""A radiologist opens a result in OHIF, and sees each organ in its colour where it is: read from pixels of the screen.

OHIF as published, in a browser, shows the real CT, and Segmentations by Limner's writers of its reference labels. Where
a voxel of the CT is drawn is asked of the viewer, and the CT's own values are looked for there.

The pictures are kept for people: in the folder that LIMNER_ARTEFACTS names, else in pytest's own of this run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lite_medsam import CACHE
from operators.label_maps import LabelMap
from operators.results.binary import write_binary
from operators.results.finding import Finding, WrittenObject
from operators.results.labelmap import write_labelmap
from operators.series_volume import SeriesVolume, read_series
from tests import data, ohif, peers
from tests.journey.ohif_overlay import Labels, Picture, seen_labels, wrong_voxels
from tests.journey.ohif_viewer import OhifViewer, browsing
from tests.prompted_ct import RealCt
from tests.segmented_phantom import ALGORITHM, LIVER, SPLEEN

COLOURS = ((221, 130, 101), (157, 108, 162))
ORGANS = tuple(replace(organ, rgb=rgb) for organ, rgb in zip((LIVER, SPLEEN), COLOURS, strict=True))
"""In the order of their segment numbers."""
Write = Callable[[Finding, Path], WrittenObject]
WRITERS: dict[str, Write] = {"binary": write_binary, "labelmap": write_labelmap}
LISTED = {"binary": ["Liver", "Spleen"], "labelmap": ["Background", "Liver", "Spleen"]}
FLIPPED = "flipped"
WINDOW = (-110.0, 190.0)
"""The Hounsfield units that are shown black and white: the viewer takes the CT's own window, 300 wide around 40."""

pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True)
class Seen:
    """What a radiologist sees of a segmentation on one slice."""

    listed: list[str]
    labels: Labels
    greys: NDArray[np.float64]
    """Of the image alone, axes row, column; not-a-number where the picture ends."""

    def wrong(self, expected: Labels) -> int:
        """How many voxels look otherwise."""
        return wrong_voxels(self.labels, expected, ~np.isnan(self.greys))

    def fit(self, image: NDArray[np.float64]) -> float:
        """How well the greys follow an image, axes row, column: the coefficient of correlation."""
        is_shown = ~np.isnan(self.greys)
        return float(np.corrcoef(image[is_shown], self.greys[is_shown])[0, 1])


@dataclass(frozen=True)
class ReadingRoom:
    """A radiologist before the archive's viewer."""

    radiologist: OhifViewer
    address: str
    ct: RealCt
    series: SeriesVolume
    pictures: Path

    @property
    def index(self) -> int:
        """The slice with most of the liver."""
        return self.ct.largest(data.LIVER)

    def look_at(self, name: str) -> Seen:
        """Open a segmentation, turn to the slice, and look at it with and without the segments.

        The study is opened anew: what was hidden before is shown again beside the next segmentation.
        """
        radiologist = self.radiologist
        radiologist.open(self.address, str(self.ct.headers[0].StudyInstanceUID))
        radiologist.show_segmentation(f"AI: {name}")
        radiologist.turn_to(str(self.ct.headers[self.index].SOPInstanceUID))
        overlaid = self._picture(f"{name}-overlaid", coloured=True)
        listed = radiologist.segments()
        radiologist.page.screenshot(path=self.pictures / f"{name}.png")
        radiologist.hide_segments()
        plain = self._picture(f"{name}-plain", coloured=False)
        return Seen(listed, seen_labels(overlaid, plain, COLOURS), plain[..., 0])

    def _picture(self, name: str, *, coloured: bool) -> NDArray[np.float64]:
        pixels = self.radiologist.picture(coloured=coloured)
        Image.fromarray(pixels).save(self.pictures / f"{name}.png")
        corners = np.array([[self.index, 0, 0, 1], [self.index, 1, 0, 1], [self.index, 0, 1, 1]], float)
        places = corners @ np.asarray(self.series.volume.affine).T
        first, below, beside = self.radiologist.on_canvas(places[:, :3])
        picture = Picture(pixels, np.stack([below - first, beside - first, first], axis=1))
        _, rows, columns = self.series.volume.spatial_shape
        return picture.at_voxels((rows, columns))


def reference(ct: RealCt) -> LabelMap:
    """The label values of `ORGANS` on the CT's volume."""
    labels = np.zeros(ct.reference[data.LIVER].shape, np.uint8)
    for organ, value in zip(ORGANS, (data.LIVER, data.SPLEEN), strict=True):
        labels[ct.reference[value]] = organ.label_value
    return labels


def numbers(ct: RealCt, index: int) -> Labels:
    """The segment numbers that a slice should show."""
    return np.where(ct.reference[data.LIVER][index], 1, 0) + np.where(ct.reference[data.SPLEEN][index], 2, 0)


@pytest.fixture(scope="module")
def room(
    tmp_path_factory: pytest.TempPathFactory, abdominal_ct: list[Path], abdominal_ct_source: Path
) -> Iterator[ReadingRoom]:
    peers.require("Orthanc", "chromium", "npm")
    folder = tmp_path_factory.mktemp("ohif_shows")
    pictures = Path(os.environ.get("LIMNER_ARTEFACTS", folder)) / "ohif"
    pictures.mkdir(parents=True, exist_ok=True)
    series = read_series(abdominal_ct)
    ct = RealCt.of(abdominal_ct, abdominal_ct_source)
    viewer = ohif.fetch(CACHE)
    with peers.peer_network() as network, peers.running_orthanc(network, folder / "orthanc") as orthanc:
        for file in [*abdominal_ct, *_write_all(series, reference(ct), folder)]:
            orthanc.upload(file)
        with ohif.running_ohif(viewer, orthanc) as address, browsing() as radiologist:
            yield ReadingRoom(radiologist, address, ct, series, pictures)


def _write_all(series: SeriesVolume, labels: LabelMap, folder: Path) -> Iterator[Path]:
    for name, write in {**WRITERS, FLIPPED: write_binary}.items():
        shown = np.ascontiguousarray(labels[:, :, ::-1]) if name == FLIPPED else labels
        finding = Finding(series.volume.with_array(shown), series, ORGANS, ALGORITHM, name, name)
        yield write(finding, folder / f"{name}.dcm").path


@pytest.mark.parametrize("form", WRITERS)
def test_organs_are_seen_in_their_colours_where_they_are(form: str, room: ReadingRoom) -> None:
    seen = room.look_at(form)
    expected = numbers(room.ct, room.index)

    # voxels are looked for where the viewer really draws them: a voxel beside, the image fits worse
    assert not np.isnan(seen.greys[expected > 0]).any()
    image = np.clip(np.asarray(room.series.volume.array[room.index]), *WINDOW)
    fits = {shift: seen.fit(np.roll(image, shift, (0, 1))) for shift in ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))}
    assert max(fits, key=fits.__getitem__) == (0, 0), fits
    assert fits[0, 0] > 0.98

    assert seen.listed == LISTED[form]
    assert seen.wrong(expected) == 0
    assert room.radiologist.complaints == []

    # what would be wrong would be seen: flips, small shifts, other slices, exchanged organs
    before, after = numbers(room.ct, room.index - 1), numbers(room.ct, room.index + 1)
    mistakes = [expected[:, ::-1], expected[::-1], expected.T, before, after]
    mistakes += [np.roll(expected, 3, axis) for axis in (0, 1)]
    mistakes += [numbers(room.ct, len(room.ct.headers) - 1 - room.index), (3 - expected) * (expected > 0)]
    assert min(seen.wrong(mistake) for mistake in mistakes) > 50


def test_a_segmentation_that_is_flipped_is_seen_to_be_wrong(room: ReadingRoom) -> None:
    seen = room.look_at(FLIPPED)
    expected = numbers(room.ct, room.index)
    assert seen.wrong(expected[:, ::-1]) == 0
    assert seen.wrong(expected) > 10_000
