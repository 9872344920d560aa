"""The real data that tests run on; fetched once into the cache folder, pinned by digest."""

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
    "read_nifti",
    "reference_labels",
    "write_series",
]

CACHE = Path(__file__).resolve().parents[1] / ".cache"


def abdominal_ct_source() -> Path:
    """The folder as published: UIDs and patient blank in the data sets, and the reference label map."""
    return fetch(CACHE)


def abdominal_ct_series(folder: Path) -> list[Path]:
    """The clean series: 20 files in `folder`, JPEG 2000 lossless, by instance number (patient z descends)."""
    return write_series(abdominal_ct_source(), folder)
