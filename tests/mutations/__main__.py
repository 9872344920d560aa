"""Make the verdicts and the page anew: `python -m tests.mutations`; with `--sdk` the SDK's too, which takes minutes."""

from __future__ import annotations

import argparse
import datetime
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "deploy" / "demo"))

from tests.mutations import render, results
from tests.mutations.judge import judge
from tests.mutations.kind import KINDS
from tests.mutations.sdk import VERSION, judge_sdk


def main() -> None:
    """Judge, store, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sdk", action="store_true", help="ask the MONAI Deploy SDK again as well")
    ask_sdk = parser.parse_args().sdk
    before = None if ask_sdk else results.load()
    verdicts: results.Verdicts = {}
    for kind in KINDS.values():
        for modality in kind.modalities:
            verdicts[kind.name, "Limner", modality] = judge(kind, modality)
            kept = before.verdicts.get((kind.name, "SDK", modality)) if before else judge_sdk(kind, modality)
            if kept is not None:
                verdicts[kind.name, "SDK", modality] = kept
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    version, date = (before.sdk_version, before.sdk_date) if before else (VERSION, today)
    made = results.Results(verdicts, version, date)
    results.save(made)
    render.PAGE.write_text(render.page(made))


if __name__ == "__main__":
    main()
