from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.driver import Run, _Memory
from benchmarks.figures import MIB, Figure
from benchmarks.report import machine, write_page
from benchmarks.sam.cases import ABDOMEN
from benchmarks.sam.figures import case_figures
from benchmarks.sam.limner import with_threads
from benchmarks.sam.measure import LIMNER, TORCH, Measured, Rounds
from benchmarks.sam.report import as_json, markdown
from benchmarks.sam.rounds import DECODER, ENCODER, FIRST, WARM, Boxed, stages, take_round
from benchmarks.worker import Clock
from tests.triton_fixture import REPOSITORY_ROOT


def run(encoder: float, warm: list[float], growth: int, server: float = 0.0) -> Run:
    seconds = {"image": 0.1, "encoder": encoder, "decoder": 1.6, "rest": 0.1, "total": encoder + 1.8}
    details: dict[str, Any] = {"seconds": {FIRST: [1.0], WARM: warm}}
    if server:
        details |= {
            "server_cpu": {ENCODER: server, DECODER: 1.0},
            "calls": {ENCODER: 10, DECODER: 80},
            "bytes": {ENCODER: 10 * 5 * MIB, DECODER: 80 * 6 * MIB},
        }
    return Run(seconds, seconds, server, growth, growth // 2, 0.0, 2 * growth, details)


def measured(differing: int = 0, warm: float = 0.1) -> Measured:
    first = {TORCH: run(0, [], 400 * MIB), LIMNER: run(0, [], 100 * MIB, server=1.0)}
    runs = {
        TORCH: [run(40, [0.2] * 20, 0), run(42, [0.2] * 20, 0), run(90, [0.2] * 20, 0)],
        LIMNER: [run(1, [0.05] * 18 + [warm] * 2, 0, server=20)],
    }
    rounds = Rounds(first, runs)
    return Measured(
        ABDOMEN, rounds, replace(rounds), prompts=80, pixels=1_000_000, shown=50_000, differing={LIMNER: differing}
    )


def named(figures: list[Figure], beginning: str) -> Figure:
    return next(figure for figure in figures if figure.name.startswith(beginning))


def test_the_encoders_cpu_is_that_of_both_processes() -> None:
    ratio = named(case_figures(measured()), "encoder, CPU of a slice on one core, torch / Limner")
    assert (ratio.value, ratio.goal, ratio.is_met) == (2, 1, True)
    wall = named(case_figures(measured()), "encoder, wall clock of a slice on all cores, torch / Limner")
    assert wall.value == 42


@pytest.mark.parametrize(("seconds", "is_met"), [(0.149, True), (0.151, False)])
def test_a_warm_prompt_is_judged_on_all_cores(seconds: float, is_met: bool) -> None:
    figures = case_figures(measured(warm=seconds))
    judged = named(figures, f"warm prompt, all cores, 95 of 100 within: {LIMNER}")
    assert judged.value == pytest.approx(seconds * 1000)
    assert judged.is_met is is_met
    assert named(figures, f"warm prompt, one core, 95 of 100 within: {LIMNER}").goal is None
    assert named(figures, f"warm prompt, all cores, 95 of 100 within: {TORCH}").goal is None


def test_memory_is_told_from_the_first_round() -> None:
    share = named(case_figures(measured()), "memory growth, Limner with its Triton / torch")
    assert (share.value, share.is_met) == (25, True)


@pytest.mark.parametrize(("differing", "is_met"), [(100, True), (101, False)])
def test_masks_may_differ_in_one_pixel_of_ten_thousand(differing: int, is_met: bool) -> None:
    assert named(case_figures(measured(differing)), "pixels of 1000000").is_met is is_met


def test_a_quick_case_has_no_figures_of_all_cores() -> None:
    figures = case_figures(replace(measured(), all_cores=None))
    assert not [figure for figure in figures if "all cores" in figure.name]


def test_the_report_is_whole(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- figures: begin -->\n\n<!-- figures: end -->\n")
    figures, where = case_figures(measured()), machine()
    write_page(page, markdown(measured(), figures, where))
    written = page.read_text()
    assert "| decoder, tensors to and from Triton for a prompt | 6.0 MiB |  |  |" in written
    assert f"| {LIMNER} | 0.10 / 0.10 | 1.00 / 1.00 |" in written
    assert '"is_met": true' in as_json(measured(), figures, where)


def test_a_round_tells_the_first_prompt_on_a_slice_from_the_others() -> None:
    prompts = [Boxed(index, (0, 0, 1, 1)) for index in (0, 0, 0, 3, 3)]
    clock, asked = Clock(), list[Boxed]()

    def ask(prompt: Boxed) -> np.ndarray:
        asked.append(prompt)
        return np.full((2, 2), prompt.slice_index > 0)

    masks, seconds = take_round(prompts, ask, clock)
    assert asked == prompts
    assert np.unpackbits(masks, axis=1).sum(axis=1).tolist() == [0, 0, 0, 4, 4]
    assert [len(seconds[FIRST]), len(seconds[WARM])] == [2, 3]
    assert stages(clock.wall)["rest"] == clock.wall["total"]


def test_what_processes_share_counts_once_and_the_peak_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    # by process: its own bytes, and those that it shares
    samples = iter([{1: (10, 5), 2: (20, 5)}] * 2 + [{1: (14, 45), 2: (21, 35)}, {1: (11, 5)}])
    monkeypatch.setattr(_Memory, "_held", lambda _self: next(samples))
    memory = _Memory(())
    assert (memory.growth, memory.most) == (0, 40)
    memory.look()
    assert (memory.growth, memory.most) == (4 + 1 + 40, 115)
    memory.look()  # the second one has ended
    assert (memory.growth, memory.most) == (45, 115)


def test_both_networks_get_the_threads_that_are_measured() -> None:
    package = REPOSITORY_ROOT / "deploy" / "lite_medsam" / "package"
    for part in package.iterdir():
        text = (part / "config.pbtxt").read_text()
        assert with_threads(text, 1) == text.replace('"2"', '"1"') != text
    with pytest.raises(ValueError, match="how many threads"):
        with_threads(text.replace("intra_op", "inter_op"), 1)
