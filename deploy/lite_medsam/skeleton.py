"""Makes anew what lies beside this file: the graphs of LiteMedSAM without weights, and where each weight belongs.

    .exporter/bin/python deploy/lite_medsam/skeleton.py lite_medsam.pth

Needed when the exporter changes, and never by a user. Runs in the exporter environment, on the checkpoint that
`lite_medsam.py` names.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent
sys.path.append(str(FOLDER.parents[1]))

from app.exporters.sam.cases import BOX  # noqa: E402
from app.exporters.sam.exporting import export_generalist  # noqa: E402
from app.exporters.sam.job import GeneralistJob  # noqa: E402
from app.exporters.sam.kept import kept_cases  # noqa: E402
from operators.model_folder import CARD_FILE  # noqa: E402

THREADS = 2
_SAMPLE = (slice(None), slice(None), slice(7, None, 37), slice(11, None, 41))
"""Of torch's masks, kept for a test that has no torch."""


def main(checkpoint: Path) -> None:
    """Export the checkpoint and keep all but its weights."""
    job = GeneralistJob(str(checkpoint), None, "lite_medsam", "lite_medsam", "1.0.0", "LiteMedSAM", THREADS)
    with tempfile.TemporaryDirectory() as scratch:
        repository, gate = Path(scratch) / "repository", Path(scratch) / "gate"
        stored = export_generalist(job, repository, progress=print, gate_folder=gate)
        for model in job.models:
            target = FOLDER / "package" / model
            shutil.rmtree(target / "1", ignore_errors=True)
            (target / "1").mkdir(parents=True)
            for name in ("config.pbtxt", "manifest.json", "1/model.onnx"):
                if (repository / model / name).is_file():
                    shutil.copyfile(repository / model / name, target / name)
            if model == job.encoder and not (target / CARD_FILE).is_file():
                shutil.copyfile(repository / model / CARD_FILE, target / CARD_FILE)
        expected = {
            case.image: {
                "masks": np.round(case.expected["masks"][_SAMPLE].astype(np.float64), 4).tolist(),
                "iou_predictions": np.round(case.expected["iou_predictions"].astype(np.float64), 5).tolist(),
            }
            for case in kept_cases(gate / job.decoder)
            if case.kind == BOX
        }
    places = {model: [[one.name, list(one.shape), one.offset] for one in stored[model]] for model in job.models}
    lines = ",\n".join(
        f'"{model}": [\n' + ",\n".join(json.dumps(one) for one in listed) + "\n]" for model, listed in places.items()
    )
    (FOLDER / "weights.json").write_text("{\n" + lines + "\n}\n")
    (FOLDER / "expected.json").write_text(json.dumps(expected) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
