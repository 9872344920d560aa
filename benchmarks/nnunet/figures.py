"""From what was measured to the figures that count, each beside its goal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from benchmarks.driver import Run
from benchmarks.figures import MIB, Figure, median
from benchmarks.nnunet.measure import IN_PROCESS, NNUNET, ONNXRUNTIME, OPENVINO, REPLACED, Measured

MOST_DIFFERING = 1e-4
"""Share of voxels whose label may be another than nnU-Net's, which sums up in half precision."""
MOST_DIFFERING_SINGLE = 1e-5
"""The same when nnU-Net sums up in single precision: what is left is the rounding of two libraries' convolutions."""
_MANY_CLASSES = 20
STAGES = ("preprocessing", "forward", "blending", "to labels", "total")


def outside(run: Run) -> float:
    """CPU seconds of a system's own process outside the forward pass."""
    return run.cpu["total"] - run.cpu["forward"]


def case_figures(measured: Measured) -> list[Figure]:
    """Return the figures of one case."""
    return [*_stage_figures(measured), *_served_figures(measured), *_wall_figures(measured), *_label_figures(measured)]


def _classes(measured: Measured) -> int:
    return measured.case.model.classes if measured.case.model else 3


def _stage_figures(measured: Measured) -> Iterator[Figure]:
    """Of the stages on one core, where what runs the forward pass is in the same process."""
    case, runs = measured.case.name, measured.one_core
    ours = runs.get(REPLACED) or runs[IN_PROCESS]
    is_small = not measured.case.has_sound_labels  # one patch is no volume: its stages say little
    many = _classes(measured) >= _MANY_CLASSES
    if not is_small:
        ratio = median(runs[NNUNET], outside) / median(ours, outside)
        # a volume that comes on the network's own grid leaves nothing to resample, and so next to nothing to win
        least, labels_least = (None, None) if measured.case.model is None else (14 if many else 20, 80)
        yield Figure(case, "CPU outside the forward pass, nnU-Net / Limner", ratio, "x", least)
        for stage, goal in (("preprocessing", None), ("blending", None), ("to labels", labels_least)):
            ratio = _cpu(runs[NNUNET], stage) / _cpu(ours, stage)
            yield Figure(case, f"CPU of {_STAGE_NAMES[stage]}, nnU-Net / Limner", ratio, "x", goal)
    if IN_PROCESS in runs and not is_small:
        share = 100 * median(ours, outside) / _cpu(ours, "forward")
        yield Figure(case, "Limner's CPU outside / in the forward pass", share, "%", 5 if many else 3, is_least=False)
    most = 25 if many else None
    system = ONNXRUNTIME if ONNXRUNTIME in runs else REPLACED
    growth = {one: median(runs[one], lambda run: run.growth) for one in (NNUNET, system)}
    if not is_small:
        share = 100 * growth[system] / growth[NNUNET]
        yield Figure(case, "memory growth, Limner with its Triton / nnU-Net", share, "%", most, is_least=False)
    for one in (NNUNET, system):
        yield Figure(case, f"memory growth, {one}", growth[one] / MIB, "MiB")
    if system == ONNXRUNTIME:
        server = median(runs[system], lambda run: run.server_growth)
        yield Figure(case, "memory growth, of that its Triton", server / MIB, "MiB")


_STAGE_NAMES = {
    "preprocessing": "preprocessing",
    "forward": "the forward pass",
    "blending": "blending tiles",
    "to labels": "logits to labels",
    "total": "all together",
}


def _cpu(runs: Sequence[Run], stage: str) -> float:
    return median(runs, lambda run: run.cpu[stage])


def _with_server(runs: Sequence[Run]) -> float:
    return median(runs, lambda run: run.cpu["total"] + run.server_cpu)


def _served_figures(measured: Measured) -> Iterator[Figure]:
    """Of the forward pass and the way to it, in CPU seconds on one core."""
    case, runs = measured.case.name, measured.one_core
    if ONNXRUNTIME not in runs:
        return
    alone = _cpu(runs[IN_PROCESS], "total")
    transport = 100 * (_with_server(runs[ONNXRUNTIME]) / alone - 1)
    yield Figure(case, "CPU that Triton adds to ONNX Runtime in the process", transport, "%", 5, is_least=False)
    torch = _cpu(runs[NNUNET], "forward")
    yield Figure(case, "CPU of the forward pass, torch / ONNX Runtime", torch / _cpu(runs[IN_PROCESS], "forward"), "x")
    if OPENVINO in runs:
        served = median(runs[OPENVINO], lambda run: run.server_cpu)
        yield Figure(case, "CPU of the forward pass, torch / Triton with OpenVINO", torch / served, "x", 1.65)


def _wall_figures(measured: Measured) -> Iterator[Figure]:
    """From the image to its labels, by the wall clock: on all cores if that was measured."""
    runs, where = (measured.all_cores, "all cores") if measured.all_cores else (measured.one_core, "one core")
    reference = median(runs[NNUNET], lambda run: run.wall["total"])
    for system in (ONNXRUNTIME, OPENVINO):
        if system in runs:
            ratio = reference / median(runs[system], lambda run: run.wall["total"])
            engine = system.removeprefix("Limner, ")
            goal = 2 if measured.case.has_sound_labels and measured.all_cores else None
            yield Figure(measured.case.name, f"wall clock on {where}, nnU-Net / Limner, {engine}", ratio, "x", goal)


def _label_figures(measured: Measured) -> Iterator[Figure]:
    """How far the labels agree; only a trained network's are judged."""
    is_judged = measured.case.has_sound_labels
    for against, differing, most in (
        ("nnU-Net's", measured.differing, MOST_DIFFERING),
        ("those of nnU-Net with sums in single precision", measured.differing_single, MOST_DIFFERING_SINGLE),
    ):
        for system, count in differing.items():
            goal = most * measured.voxels if is_judged and system not in (NNUNET, OPENVINO) else None
            name = f"labels of {measured.voxels} that are not {against}: {system}"
            yield Figure(measured.case.name, name, count, "voxels", goal, is_least=False)


def across_cases(measured: Mapping[str, Measured], tiles: Mapping[str, int]) -> list[Figure]:
    """Return the figures that need two cases: the full volume's work beside the default network's forward pass.

    Parameters
    ----------
    measured
        Cases by name.
    tiles
        Tiles of each case's volume.
    """
    whole, patch = measured.get("full-25"), measured.get("default-network")
    if whole is None or patch is None:
        return []
    forward = tiles["full-25"] / tiles["default-network"] * _cpu(patch.one_core[IN_PROCESS], "forward")
    share = 100 * median(whole.one_core[REPLACED], outside) / forward
    name = "Limner's CPU outside / in the forward pass of the default network"
    return [Figure("full-25", name, share, "%", 2, is_least=False)]
