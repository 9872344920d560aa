"""Whoever imports `operators.results.warm` has paid for highdicom's tables."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.peers import REPOSITORY

_WRITE = """
import sys
from pathlib import Path
import operators.results.warm
from operators.results.binary import write_binary
from tests.finding_phantom import planted_finding

folder = Path(sys.argv[1])
finding = planted_finding(folder / "series")
opened = []
sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == "open" else None)
write_binary(finding, folder / "segmentation.dcm")
print(*opened, sep="\\n")
"""


def test_writing_reads_no_tables(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WRITE, str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    opened = done.stdout.split()
    assert any(name.endswith("segmentation.dcm.part") for name in opened)
    assert not [name for name in opened if "highdicom" in name]
