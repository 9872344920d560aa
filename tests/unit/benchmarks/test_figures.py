from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.driver import Run
from benchmarks.figures import Figure
from benchmarks.nnunet.cases import QUICK_CASES
from benchmarks.nnunet.figures import case_figures
from benchmarks.nnunet.measure import IN_PROCESS, NNUNET, ONNXRUNTIME, Measured
from benchmarks.nnunet.report import markdown
from benchmarks.nnunet.volumes import BODY_HU, cheap_answer, organ_densities, phantom
from benchmarks.report import end_as_judged, machine, write_page
from benchmarks.worker import Clock


def run(outside: float, forward: float, server: float = 0.0, growth: int = 0) -> Run:
    seconds = {"preprocessing": outside / 4, "forward": forward, "blending": outside / 4, "to labels": outside / 2}
    seconds["total"] = outside + forward
    return Run(seconds, seconds, server, growth, growth // 2, 0.0)


def measured(differing: int = 0) -> Measured:
    return Measured(
        case=QUICK_CASES[1],
        one_core={
            NNUNET: [run(30, 60, growth=1000), run(28, 62, growth=1000), run(90, 60, growth=1000)],
            IN_PROCESS: [run(2, 40)],
            ONNXRUNTIME: [run(2.5, 0.5, server=40.68, growth=200)],
        },
        all_cores={},
        differing={IN_PROCESS: differing},
        differing_single={IN_PROCESS: 0, NNUNET: differing},
        voxels=100_000,
        labels_found=25,
    )


def named(figures: list[Figure], beginning: str) -> Figure:
    return next(figure for figure in figures if figure.name.startswith(beginning))


def test_figures_are_ratios_of_medians_beside_their_goals() -> None:
    figures = case_figures(measured())
    outside = named(figures, "CPU outside the forward pass")
    assert (outside.value, outside.goal, outside.is_met) == (15, 14, True)
    share = named(figures, "Limner's CPU outside / in")
    assert (share.value, share.is_met) == (5, True)
    assert named(figures, "memory growth, Limner with its Triton").value == pytest.approx(20)
    assert named(figures, "CPU that Triton adds").value == pytest.approx(100 * (43.68 / 42 - 1))
    assert named(figures, "CPU of logits to labels").is_met is False


@pytest.mark.parametrize(("differing", "is_met"), [(10, True), (11, False)])
def test_labels_may_differ_in_one_voxel_of_ten_thousand(differing: int, is_met: bool) -> None:
    assert named(case_figures(measured(differing)), "labels of 100000 that are not nnU-Net's").is_met is is_met


def test_a_volume_on_the_networks_own_grid_has_no_goals_for_resampling() -> None:
    figures = case_figures(replace(measured(), case=replace(QUICK_CASES[1], model=None)))
    assert named(figures, "CPU outside the forward pass").goal is None
    assert named(figures, "CPU of logits to labels").goal is None


def test_an_untrained_networks_labels_are_not_judged() -> None:
    case = replace(QUICK_CASES[1], has_sound_labels=False)
    figures = case_figures(replace(measured(50_000), case=case))
    assert named(figures, "labels of").is_met is None


def test_the_page_gets_the_new_tables_in_place_of_the_old(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- figures: begin -->\nold\n<!-- figures: end -->\nafter\n")
    write_page(page, markdown([measured()], case_figures(measured()), machine()))
    written = page.read_text()
    assert written.startswith("before\n")
    assert written.endswith("after\n")
    assert "old" not in written
    assert "| CPU outside the forward pass, nnU-Net / Limner | 15 x | at least 14 | ok |" in written


def test_a_clock_counts_only_what_is_pulled() -> None:
    clock = Clock()
    assert list(clock.pulled("stage", iter(range(3)))) == [0, 1, 2]
    assert clock.timed("stage", lambda number: number + 1)(4) == 5
    assert set(clock.cpu) == set(clock.wall) == {"stage"}
    assert clock.wall["stage"] < 1


@pytest.mark.parametrize(("classes", "labels"), [(2, [1]), (3, [1, 2]), (5, [1, 2, 3, 4]), (25, [1, 9, 16, 24])])
def test_organs_differ_from_the_body_and_from_each_other(classes: int, labels: list[int]) -> None:
    densities = organ_densities(classes)
    assert list(densities) == labels
    known = sorted([BODY_HU, *densities.values()])
    assert min(np.diff(known)) >= 150


def test_the_cheap_answer_finds_a_phantoms_organs() -> None:
    image, labels = phantom((60, 100, 100), 25, 3)
    normalised = ((np.clip(image, -800, 1000) - 30) / 350).astype(np.float32)
    (logits,) = cheap_answer(normalised[None, None], 25)
    found = logits.argmax(axis=0)
    assert set(np.unique(labels)) <= {0, *organ_densities(25)}
    organs = labels > 0
    assert (found[organs] == labels[organs]).mean() > 0.75


_MISSED = (
    Figure("one", "seconds over theirs", 2.5, "x", 2.0, is_least=False),
    Figure("one", "objects/s over theirs", 0.9, "x", 1.0),
)
_REACHED = (Figure("one", "bytes over theirs", 1.0, "x", 1.0), Figure("one", "memory", 7.0, "MiB"))


def test_a_benchmark_that_misses_goals_ends_badly_and_names_them() -> None:
    with pytest.raises(SystemExit) as ended:
        end_as_judged([*_REACHED, *_MISSED], is_quick=False)
    assert str(ended.value).splitlines() == [
        "",
        "2 goals were missed:",
        "  seconds over theirs: 2.50 x, and the goal is at most 2",
        "  objects/s over theirs: 0.90 x, and the goal is at least 1",
    ]
    end_as_judged(_REACHED, is_quick=False)


def test_a_quick_run_names_what_it_misses_and_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    end_as_judged(_MISSED[:1], is_quick=True)
    assert "1 goal was missed:\n  seconds over theirs: 2.50 x, and the goal is at most 2" in capsys.readouterr().out
