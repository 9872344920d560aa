from typing import Any

import pytest

from benchmarks.receive import __main__ as command
from benchmarks.receive.measure import WAITS, Round, in_order_of_round, objects_for, summarize
from benchmarks.receive.report import figures_of, markdown
from benchmarks.report import machine


def rounds(rates: dict[str, list[float]]) -> list[Round]:
    return [
        Round(name, associations, 100, 100 / (rate * associations), 0.2, 0.1 if name == "Limner" else 0.0)
        for name, of_name in rates.items()
        for rate in of_name
        for associations in (1, 4)
    ]


@pytest.fixture
def measured() -> list[Round]:
    return rounds(
        {
            "Limner": [90, 100, 500],
            "Orthanc": [50, 50, 60],
            "storescp": [200, 200, 10],
            "pynetdicom": [80, 90, 125],
            WAITS: [200, 180, 300],
        }
    )


def test_a_summary_is_the_median_of_the_rounds(measured: list[Round]) -> None:
    summary = summarize(measured)["Limner", 1]
    assert (summary.objects_per_second, summary.least, summary.most) == (100, 90, 500)
    assert summary.megabytes_per_second == pytest.approx(52.5, abs=0.1)
    assert (summary.cpu_milliseconds, summary.beside_milliseconds) == (2, 1)
    assert summarize(measured)["Limner", 4].objects_per_second == 400


def test_each_has_the_first_turn_in_its_round_and_the_order_stays() -> None:
    orders = [in_order_of_round("abc", number) for number in range(4)]
    assert orders == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]]


def test_ratios_are_of_rates_and_the_goal_is_to_be_ahead(measured: list[Round]) -> None:
    figures = {figure.name: figure for figure in figures_of(summarize(measured))}
    orthanc = figures["Limner's objects/s over Orthanc's, 1 association"]
    assert (orthanc.value, orthanc.is_met) == (2, True)
    assert figures["Limner's objects/s over storescp's, 4 associations"].is_met is None
    assert figures[f"Limner's time over storescp's and {WAITS}, 1 association"].value == pytest.approx(1)
    seen = figures[f"Limner's time over storescp's and {WAITS}, 4 associations"]
    assert (seen.goal, seen.is_least, seen.is_met) == (2, False, True)
    slow = figures_of(
        summarize(rounds({"Limner": [1], "Orthanc": [2], "storescp": [2], "pynetdicom": [2], WAITS: [2]}))
    )
    assert [figure.is_met for figure in slow if "Orthanc" in figure.name] == [False, False]
    far = figures_of(summarize(rounds({"Limner": [1], "Orthanc": [1], "storescp": [5], "pynetdicom": [1], WAITS: [4]})))
    assert [figure.is_met for figure in far if WAITS in figure.name] == [False, False]  # 1 / (0.2 + 0.25)


@pytest.mark.parametrize(("rate", "objects"), [(2000.5, 2004), (30, 120)])
def test_a_turn_has_as_many_objects_as_it_takes_seconds_for(rate: float, objects: int) -> None:
    assert objects_for(Round("storescp", 4, 120, 120 / rate, 0, 0), 120, 1.0) == objects


def test_the_tables_have_a_row_for_each_receiver(measured: list[Round]) -> None:
    where: dict[str, Any] = machine()
    tables = markdown(summarize(measured), where)
    assert tables.count("| Limner | 100 | 90 to 500 | 52 | 2.0 | 1.0 |") == 1
    assert tables.count("| storescp |") == 2
    assert where["date"] in tables


def test_a_disk_that_can_not_hold_all_rounds_is_told_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["receive", "--rounds", "1000000"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2
    assert "3000000 GB of free disk are needed" in capsys.readouterr().err
