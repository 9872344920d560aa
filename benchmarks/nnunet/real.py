"""Writes the CT of a torso out of TotalSegmentator's source archive as an array. Runs in the exporter environment.

python -m benchmarks.nnunet.real ARCHIVE TARGET.npy
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.nnunet.folders import DEMO_FOLDER


def main() -> None:
    """Write the array, Hounsfield units (int16), axes z, y, x."""
    sys.path.append(str(DEMO_FOLDER / "training"))
    from torso import read_torso

    archive, target = Path(sys.argv[1]), Path(sys.argv[2])
    with tempfile.TemporaryDirectory() as scratch:
        image = read_torso(archive, Path(scratch)).image
    np.save(target, np.rint(image).astype(np.int16))


if __name__ == "__main__":
    main()
