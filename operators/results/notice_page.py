"""One page for a run without a result, beside the series that it was about: a picture, for every viewer.

Whoever looks for a result in the PACS and finds none must learn why there. The page is made of headers alone, and these
may be bad: of a refused series often only study and series are sure. It says no more than the pipeline, the model, the
outcome and the reason; nothing of the patient is drawn into the pixels, so Burned In Annotation is NO: it asks whether
pixels identify the patient (PS3.3 C.7.6.1).
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pydicom
from pydicom.sr.codedict import codes

from operators.derived_uids import derived_uid
from operators.results.common_modules import reference, referenced_series
from operators.results.finding import Algorithm, WrittenObject, save_object, series_number
from operators.results.pages import LINE_HEIGHT, MARGIN, WARNING, WHITE, Picture, draw_text, wrapped
from operators.results.secondary_capture import CaptureSeries
from operators.results.series_description import say_ai
from operators.series_checks import text

Outcome = Literal["refused", "failed", "nothing-found"]

_TITLES: dict[Outcome, str] = {
    "refused": "NO AI RESULT: the series could not be processed",
    "failed": "NO AI RESULT: processing failed",
    "nothing-found": "AI RESULT, NOT VERIFIED: nothing found",
}
_EXPLANATIONS: dict[Outcome, str] = {
    "refused": "The model did not run. This page says nothing about what the images show.",
    "failed": "The model did not finish. This page says nothing about what the images show.",
    "nothing-found": "The model ran to its end and marked nothing. That excludes nothing.",
}
_SERIES_AFTER_REPORT = 1000
"""The page's Series Number is so far behind that of the report that says the same: another modality, another series."""
_SIDE = 512
_UIDS = ("SOPClassUID", "SOPInstanceUID")


def write_notice_page(
    headers: Sequence[pydicom.Dataset],
    path: Path,
    *,
    study_instance_uid: str,
    series_instance_uid: str,
    identity: str,
    pipeline: str,
    algorithm: Algorithm | None,
    outcome: Outcome,
    code: str,
    reason: str,
    undated: datetime.datetime | None = None,
) -> WrittenObject:
    """Write the page, and return what was written.

    Parameters
    ----------
    headers
        Of the source's instances, at least one; they may lack anything.
    study_instance_uid, series_instance_uid
        Of the source.
    identity
        Of the job; UIDs derive from it and from what the page says, so that a later attempt with another outcome gives
        another page.
    pipeline
        Its name.
    algorithm
        None where no model is known.
    code, reason
        For programs and for people, as errors have them; without patient data.
    undated
        When it is said to be made where the source has no usable date: now, if it is not given.
    """
    description = say_ai(f"AI: {outcome.replace('-', ' ')} ({pipeline})")
    series = CaptureSeries(
        headers=headers,
        study_instance_uid=study_instance_uid,
        series_instance_uid=derived_uid(identity, "series", "notice-page"),
        series_number=series_number(headers[0], "notice") + _SERIES_AFTER_REPORT,
        description=description,
        algorithm=algorithm,
        own_text=[reason, pipeline],
        undated=undated,
    )
    uid = derived_uid(identity, "instance", "notice-page", outcome, code, reason)
    picture = _picture(pipeline, algorithm, outcome, code, reason)
    image = series.capture(picture, uid, 1, burned_in="NO")
    image.ImageComments = f"{_TITLES[outcome]} [{code}] {reason}"
    known = [header for header in headers if all(text(header, keyword) for keyword in _UIDS)]
    if known:
        purpose = codes.DCM.SourceImageForImageProcessingOperation
        image.SourceImageSequence = [reference(header, purpose) for header in known]
        image.ReferencedSeriesSequence = referenced_series(known, series_instance_uid=series_instance_uid)
    return save_object(image, path)


def _picture(pipeline: str, algorithm: Algorithm | None, outcome: Outcome, code: str, reason: str) -> Picture:
    """Lines of text, cut off where the page ends."""
    width = _SIDE - 2 * MARGIN
    model = "not known" if algorithm is None else f"{algorithm.name} {algorithm.version}"
    facts = [f"Pipeline: {pipeline}", f"Model: {model}", f"Outcome: {outcome}", f"Code: {code}"]
    body = [
        *(line for fact in facts for line in wrapped(fact, width)),
        "",
        *wrapped(reason, width),
        "",
        *wrapped(_EXPLANATIONS[outcome], width),
    ]
    picture: Picture = np.zeros((_SIDE, _SIDE, 3), np.uint8)
    title = wrapped(_TITLES[outcome], width)
    draw_text(picture, title, left=MARGIN, top=MARGIN, colour=WARNING)
    draw_text(picture, body, left=MARGIN, top=MARGIN + (len(title) + 1) * LINE_HEIGHT, colour=WHITE)
    return picture
