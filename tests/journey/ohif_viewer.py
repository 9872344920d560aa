"""A person at OHIF: a headless Chromium in which a mouse draws and presses the buttons that are pressed there."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import ConsoleMessage, Page, sync_playwright

from tests.peers import program

_ARGUMENTS = (
    "--no-sandbox",  # root has none
    "--use-angle=swiftshader",  # WebGL without a GPU
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-dev-shm-usage",  # a container has little of it
    "--disable-background-networking",
)
_MILLISECONDS = 90_000
_BETWEEN_CLICKS = 500
"""Milliseconds; the viewer takes two clicks within 400 for one double click, wherever they are."""
_SAW_THE_TOUR = "localStorage.setItem('shownTours', JSON.stringify(['basicViewerTour']))"
_VIEWPORT = "window.cornerstone?.getRenderingEngines?.()[0]?.getViewports()[0]"
_IMAGE = f"({_VIEWPORT}?.getCurrentImageId?.() ?? '')"
_ON_SCREEN = f"""(place) => {{
  const viewport = {_VIEWPORT};
  const [x, y] = viewport.worldToCanvas(place);
  const frame = viewport.canvas.getBoundingClientRect();
  return [frame.left + x, frame.top + y];
}}"""
"""Where on the page a place in the patient is shown. The viewer is asked, nothing in it is changed."""
_ON_CANVAS = f"""(places) => {{
  const viewport = {_VIEWPORT};
  const scale = viewport.canvas.width / viewport.canvas.clientWidth;
  return places.map((place) => viewport.worldToCanvas(place).map((one) => one * scale));
}}"""
_PICTURE = f"{_VIEWPORT}.canvas.toDataURL('image/png')"
_HAS_COLOUR = f"""(wanted) => {{
  const canvas = {_VIEWPORT}.canvas;
  const values = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  let coloured = false;
  for (let i = 0; i < values.length && !coloured; i += 4)
    coloured = values[i] !== values[i + 1] || values[i] !== values[i + 2];
  return coloured === wanted;
}}"""
"""Images are grey, so what has a colour is a segment."""
_BETWEEN_LOOKS = 500
"""Milliseconds."""
_CUT_SHORT = "IMAGE_LOAD_ERROR TypeError: handler is not a function"
"""What OHIF 3.13.2 says when another study is opened while it still loads images: its own handler is missing. An image
that is really not there shows in the pixels."""


class OhifViewer:
    """One study in the viewer's basic mode, its first series of images shown."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._hear)

    def _hear(self, said: ConsoleMessage) -> None:
        if said.type == "error" and _CUT_SHORT not in said.text:
            self.complaints.append(said.text)

    def open(self, address: str, study: str) -> None:
        """Go to the study, and wait until an image of it is shown."""
        self.page.goto(f"{address}/viewer?StudyInstanceUIDs={study}", wait_until="domcontentloaded")
        self.page.wait_for_function(f"{_IMAGE} !== ''")

    def turn_to(self, sop_instance_uid: str) -> None:
        """Turn the mouse wheel until the slice is shown."""
        images = self.page.evaluate(f"{_VIEWPORT}.getImageIds()")
        (wanted,) = [image for image in images if f"/{sop_instance_uid}/" in image]
        self.page.mouse.move(*self._middle())
        while (shown := self.page.evaluate(_IMAGE)) != wanted:
            self.page.mouse.wheel(0, 100 if images.index(shown) < images.index(wanted) else -100)
            self.page.wait_for_function(f"(shown) => {_IMAGE} !== shown", arg=shown)

    def choose(self, tool: str) -> None:
        """Take a tool from the menu of those that measure."""
        self.page.get_by_test_id("MeasurementTools-split-button-secondary").click()
        self.page.get_by_test_id(tool).click()

    def drag(self, start: Sequence[float], end: Sequence[float]) -> None:
        """Press the mouse at one place in the patient (LPS, mm) and let go at another."""
        self._drag(self._shown_at(start), self._shown_at(end))

    def outline(self, corners: Sequence[Sequence[float]]) -> None:
        """Click on one place in the patient after another, and on the first again."""
        for place in (*corners, corners[0]):
            self.page.mouse.click(*self._shown_at(place))
            self.page.wait_for_timeout(_BETWEEN_CLICKS)

    def move_text(self, right: float, down: float) -> None:
        """Drag what the viewer wrote beside the latest drawing."""
        box = self.page.locator("svg text").last.bounding_box()
        assert box is not None
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        self._drag((x, y), (x + right, y + down))

    def rename(self, row: int, name: str) -> None:
        """Give a measurement of the panel, counted from 0, a name of its own."""
        self.show_measurements()
        rows = self.page.get_by_test_id("data-row")
        rows.nth(row).hover()
        rows.nth(row).get_by_label("Actions").click()
        self.page.get_by_test_id("Rename").click()
        self.page.get_by_role("dialog").get_by_role("textbox").fill(name)
        self.page.get_by_test_id("input-dialog-save-button").click()

    def show_measurements(self) -> None:
        """Open the panel of measurements, if it is not."""
        if not self.page.get_by_test_id("trackedMeasurements-panel").is_visible():
            self.page.get_by_test_id("trackedMeasurements-btn").click()

    def track(self) -> None:
        """Say yes to tracking the measurements of the series."""
        self.page.get_by_role("button", name="Yes", exact=True).click()

    def save_report(self, name: str) -> None:
        """Press Create SR, name the report, save it, and wait until the viewer says that it is stored."""
        self.show_measurements()
        self.page.get_by_text("Create SR").click()
        self.page.get_by_placeholder("Report name").fill(name)
        self.page.get_by_test_id("input-dialog-save-button").click()
        self.page.get_by_text("saved successfully").first.wait_for()

    def show_segmentation(self, description: str) -> None:
        """Double click on the series with this description, say yes to opening it, and open the panel of segments."""
        self.page.get_by_text(description, exact=True).dblclick()
        self.page.get_by_role("button", name="Yes", exact=True).click()
        self.page.get_by_test_id("panelSegmentation-btn").click()
        self.page.get_by_test_id("segmentation-select-value").get_by_text(description, exact=True).wait_for()
        self.page.get_by_test_id("data-row").first.wait_for()

    def segments(self) -> list[str]:
        """The names in the panel of segments."""
        return self.page.get_by_test_id("data-row-title").all_inner_texts()

    def hide_segments(self) -> None:
        """Press the eye above all segments."""
        self.page.get_by_test_id("all-segments-visibility-toggle").click()

    def picture(self, *, coloured: bool) -> NDArray[np.uint8]:
        """The canvas as soon as segments are on it, or none is, and it changes no more: axes y, x, colour."""
        self.page.wait_for_function(_HAS_COLOUR, arg=coloured, polling=_BETWEEN_LOOKS)
        before, now = "", self.page.evaluate(_PICTURE)
        while now != before:
            self.page.wait_for_timeout(_BETWEEN_LOOKS)
            before, now = now, self.page.evaluate(_PICTURE)
        content = base64.b64decode(now.partition(",")[2])
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))

    def on_canvas(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where on the picture places in the patient (axes place, LPS mm) are shown: axes place, (x, y)."""
        return np.array(self.page.evaluate(_ON_CANVAS, places.tolist()), float)

    def _drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.page.mouse.move(*start)
        self.page.mouse.down()
        self.page.mouse.move(*end, steps=5)
        self.page.mouse.up()

    def _middle(self) -> tuple[float, float]:
        frame = self.page.locator("canvas").first.bounding_box()
        assert frame is not None
        return frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2

    def _shown_at(self, place: Sequence[float]) -> tuple[float, float]:
        x, y = self.page.evaluate(_ON_SCREEN, [float(one) for one in place])
        return float(x), float(y)


@contextmanager
def browsing() -> Iterator[OhifViewer]:
    """Debian's Chromium, with nothing remembered."""
    with sync_playwright() as driver:
        driver.selectors.set_test_id_attribute("data-cy")
        browser = driver.chromium.launch(executable_path=program("chromium"), args=_ARGUMENTS)
        try:
            context = browser.new_context(viewport={"width": 1280, "height": 800}, locale="en-US")
            context.add_init_script(_SAW_THE_TOUR)
            context.set_default_timeout(_MILLISECONDS)
            yield OhifViewer(context.new_page())
        finally:
            browser.close()
