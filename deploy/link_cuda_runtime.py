"""Let Holoscan find the CUDA runtime that pip installed; run once, by the environment's own interpreter.

Holoscan's scheduler links to libcudart.so.13 even where no GPU is ever used, and looks for it beside its own libraries
and in the system only. The wheel `nvidia-cuda-runtime` puts it elsewhere; a link joins the two, so that neither an
installed CUDA nor LD_LIBRARY_PATH is needed. (Holoscan's own links are made as this, like any, interpreter starts.)
"""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

LIBRARY = "libcudart.so.13"


def link(packages: Path) -> None:
    """Make the link in the folder that holds the installed packages; it may be there already.

    Raises
    ------
    FileNotFoundError
        If Holoscan or the CUDA runtime is not installed there.
    """
    runtime = packages / "nvidia" / "cu13" / "lib" / LIBRARY
    folder = packages / "holoscan" / "lib"
    for needed in (runtime, folder):
        if not needed.exists():
            raise FileNotFoundError(f"{needed} is missing: install requirements/server.txt first")
    place = folder / LIBRARY
    if not place.is_symlink():
        place.symlink_to(os.path.relpath(runtime, folder))


if __name__ == "__main__":
    link(Path(sysconfig.get_path("purelib")))
