"""A report as OHIF stores it: beside what was drawn it keeps how it showed it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom

from operators.sam.objects.prompt_object import Graphic, PromptObject, Shape
from operators.sam.objects.reading import read_prompts

REPORT = Path(__file__).resolve().parents[4] / "fixtures" / "ohif" / "report.dcm"


def _read() -> PromptObject:
    return read_prompts(pydicom.dcmread(REPORT))


def test_each_measurement_is_a_structure_on_its_image() -> None:
    found = _read()
    assert (found.referenced_series(), found.left_out) == ("2.25.5", ())
    assert [_drawn(found, number).image for number in (0, 1)] == list(found.images)
    assert len({wanted.tracking_uid for wanted in found.objects}) == 2


def test_where_its_text_was_dragged_to_is_no_point_on_the_structure() -> None:
    drawn = _drawn(_read(), 0)
    assert drawn.shape is Shape.OUTLINE
    np.testing.assert_allclose(np.ptp(drawn.points, axis=0), [102.1, 132.5], atol=0.2)


def test_the_control_points_of_a_curve_are_none_either() -> None:
    drawn = _drawn(_read(), 1)
    assert (drawn.shape, len(drawn.points)) == (Shape.OUTLINE, 17)


def test_what_a_measurement_was_renamed_to_is_its_label() -> None:
    named, unnamed = _read().objects
    assert named.label == "Spleen?"
    assert unnamed.label == unnamed.tracking_id == "Cornerstone3DTools@^0.1.0:PlanarFreehandROI:SplineROI"


def _drawn(found: PromptObject, number: int) -> Graphic:
    (drawn,) = found.objects[number].drawings
    assert isinstance(drawn, Graphic)
    return drawn
