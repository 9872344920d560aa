"""The real data that tests run on; fetched once into the cache folder, pinned by digest."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from abdominal_ct import LIVER, SLICES, SPLEEN, STOMACH, fetch, read_nifti, reference_labels, write_series

__all__ = [
    "CACHE",
    "LIVER",
    "SLICES",
    "SPLEEN",
    "STOMACH",
    "abdominal_ct_series",
    "abdominal_ct_source",
    "pydicom_data",
    "read_nifti",
    "reference_labels",
    "write_series",
]

CACHE = Path(__file__).resolve().parents[1] / ".cache"
_PYDICOM_DATA = "pydicom-data==1.0.0"
_PYDICOM_DATA_SHA256 = "622ac97265f1d91f76b5120b5bd6eb0f57737c392ef863b72c71779c91e33637"
_PYDICOM_FILES = "data_store/data/"


def abdominal_ct_source() -> Path:
    """The folder as published: UIDs and patient blank in the data sets, and the reference label map."""
    return fetch(CACHE)


def abdominal_ct_series(folder: Path) -> list[Path]:
    """The clean series: 20 files in `folder`, JPEG 2000 lossless, by instance number (patient z descends)."""
    return write_series(abdominal_ct_source(), folder)


def pydicom_data() -> Path:
    """The folder of pydicom's larger test files (MIT): images of many scanners in many encodings; 34 MB to fetch."""
    folder = CACHE / "pydicom_data"
    if not folder.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE, prefix="pydicom_data-") as scratch:
            extracted = _extracted(_downloaded(Path(scratch)), Path(scratch) / "extracted")
            try:
                extracted.rename(folder)
            except OSError:
                if not folder.is_dir():  # else another process was quicker, with the same bytes
                    raise
    return folder


def _downloaded(scratch: Path) -> Path:
    requirement = scratch / "requirement.txt"
    requirement.write_text(f"{_PYDICOM_DATA} --hash=sha256:{_PYDICOM_DATA_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--require-hashes", "--requirement", str(requirement), "--dest", str(scratch)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"pip could not download {_PYDICOM_DATA}: {result.stderr.strip()}"
    (wheel,) = scratch.glob("*.whl")
    return wheel


def _extracted(wheel: Path, folder: Path) -> Path:
    folder.mkdir()
    with zipfile.ZipFile(wheel) as package:
        for name in package.namelist():
            if name.startswith(_PYDICOM_FILES) and name.endswith(".dcm"):
                (folder / Path(name).name).write_bytes(package.read(name))
    return folder
