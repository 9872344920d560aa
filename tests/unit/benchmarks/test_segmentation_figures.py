from benchmarks.report import machine
from benchmarks.segmentation.measure import DCMQI, LIMNER, Written, summarize
from benchmarks.segmentation.report import figures_of, markdown

MIB = 1 << 20


def rounds(seconds: list[float]) -> list[Written]:
    return [
        one
        for value in seconds
        for segments in (0, 1)
        for one in (
            Written(DCMQI, "segmentation", segments, 2.0, 1.5, 200 * MIB, 1000, 2.0, 1.5, 200 * MIB),
            Written(LIMNER, "segmentation", segments, 9.0, 8.0, 700 * MIB, 1010, value, 1.2, 100 * MIB),
        )
    ]


def test_ratios_are_of_medians_of_the_step_and_the_goal_is_no_more() -> None:
    figures = {figure.name.rpartition("Limner's ")[2]: figure for figure in figures_of(summarize(rounds([9, 1, 0.5])))}
    assert len(figures) == 4  # none of the single voxel
    assert (figures["seconds over dcmqi's"].value, figures["seconds over dcmqi's"].is_met) == (0.5, True)
    assert (figures["bytes over dcmqi's"].value, figures["bytes over dcmqi's"].is_met) == (1.01, False)
    assert figures["memory over dcmqi's"].value == 0.5


def test_the_tables_have_a_row_for_each_system_and_number_of_segments() -> None:
    tables = markdown(summarize(rounds([1.0])), (300, 512, 512), machine())
    assert "| Limner | 1 | 1.00 | 1.20 | 100 | 1010 | 9.00 | 8.00 | 700 |" in tables
    assert "| dcmqi | one voxel | 2.00 | 1.50 | 200 | 1000 | 2.00 | 1.50 | 200 |" in tables
    assert "300 x 512 x 512" in tables
