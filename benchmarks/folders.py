"""Where the benchmarks find this repository and keep what they make: all in one folder that git ignores."""

from __future__ import annotations

from pathlib import Path

REPOSITORY_ROOT = Path(__file__).resolve().parents[1]
CACHE = REPOSITORY_ROOT / ".cache" / "bench"
