"""The other side of the image's smoke test: the study that is sent, the archive that receives, a look at the result."""

from __future__ import annotations

import argparse
import sys
import threading
from pathlib import Path

import pydicom

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "deploy" / "demo"))

from abdominal_ct import fetch, write_series  # noqa: E402 - found on the path set above
from archive import DemonstrationArchive  # noqa: E402

_SEGMENTATION_STORAGE = "1.2.840.10008.5.1.4.1.1.66.4"


def main() -> None:
    """Run as archive, writer or judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write-study", type=Path, metavar="FOLDER", help="write the real abdominal CT and end")
    parser.add_argument("--judge", type=Path, nargs=2, metavar=("STUDY", "RECEIVED"), help="compare and end")
    parser.add_argument("archive", type=Path, nargs="?", help="the folder to keep what is received in")
    parser.add_argument("port_file", type=Path, nargs="?", help="where to write the port that it listens on")
    arguments = parser.parse_args()
    if arguments.write_study:
        write_series(fetch(REPOSITORY / ".cache"), arguments.write_study)
    elif arguments.judge:
        sys.exit(judge(*arguments.judge))
    else:
        listen(arguments.archive, arguments.port_file)


def listen(folder: Path, port_file: Path) -> None:
    """Receive until the process is ended."""
    archive = DemonstrationArchive(folder)
    archive.start()
    port_file.write_text(f"{archive.port}\n")
    threading.Event().wait()


def judge(study: Path, received: Path) -> str | None:
    """Say what is wrong with what was received for a study; None if nothing is."""
    source = pydicom.dcmread(next(study.iterdir()), stop_before_pixels=True)
    found = [pydicom.dcmread(path) for path in received.glob("*.dcm")]
    if len(found) != 1:
        return f"expected one object in the archive, found {len(found)}"
    (segmentation,) = found
    if segmentation.SOPClassUID != _SEGMENTATION_STORAGE:
        return f"expected a Segmentation Storage object, found {segmentation.SOPClassUID.name}"
    for keyword in ("StudyInstanceUID", "PatientID", "PatientName", "FrameOfReferenceUID"):
        if segmentation[keyword].value != source[keyword].value:
            return f"{keyword} is not the study's"
    if not segmentation.NumberOfFrames or not any(segmentation.PixelData):
        return "the segmentation is empty"
    return None


if __name__ == "__main__":
    main()
