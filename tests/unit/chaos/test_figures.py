from pathlib import Path

import pytest

from tests.chaos.figures import BEGIN, END, Figures, Taken, is_of_all, is_whole, read, write_page

_FIRST, _SECOND = "2. Disk full", "10. Network cut"


def test_a_figure_is_kept_before_it_is_judged(tmp_path: Path) -> None:
    figures = Figures(tmp_path / "figures.jsonl", is_full=False)
    figures.show(_FIRST, "objects lost", seen=0, exactly=0)
    with pytest.raises(AssertionError, match="seconds until it is back: 12.50, and the goal is at most 10"):
        figures.show(_FIRST, "seconds until it is back", seen=12.5, most=10)
    with pytest.raises(AssertionError, match="at least 100"):
        figures.show(_SECOND, "objects sent", seen=99, least=100)
    assert [one.seen for one in read(tmp_path / "figures.jsonl")] == ["0", "12.50", "99"]


def test_a_run_replaces_the_figures_of_the_last_and_how_they_were_taken(tmp_path: Path) -> None:
    page, kept = tmp_path / "page.md", tmp_path / "figures.jsonl"
    page.write_text(f"# Before\n{BEGIN}\n| What was done | Figure | Goal | Seen |\n|---|---|---|---|\n{END}\nafter\n")
    first = Figures(kept, is_full=True)
    first.show(_SECOND, "lost", seen=0, exactly=0)
    first.show("3. No longer tested", "lost", seen=0, exactly=0)
    write_page(page, read(kept), Taken(2, 3.4, "2026-11-30; a machine."))
    kept.unlink()
    first.show(_SECOND, "lost", seen=0, exactly=0)
    first.show(_FIRST, "lost", seen=1, most=1)
    first.show(_FIRST, "objects", seen=10000, least=10000)
    write_page(page, read(kept), Taken(30, 60.6, "2026-12-01; another machine."))
    assert page.read_text() == "\n".join(
        [
            "# Before",
            BEGIN,
            "All were taken in one run of 30 tests, which took 61 minutes: 2026-12-01; another machine.",
            "",
            "| What was done | Figure | Goal | Seen |",
            "|---|---|---|---|",
            "| 2. Disk full | lost | at most 1 | 1 |",
            "| 2. Disk full | objects | at least 10,000 | 10,000 |",
            "| 10. Network cut | lost | exactly 0 | 0 |",
            END,
            "after\n",
        ]
    )


def test_the_short_form_does_less(tmp_path: Path) -> None:
    assert Figures(tmp_path / "f", is_full=False).of(short=3, full=100) == 3
    assert Figures(tmp_path / "f", is_full=True).of(short=3, full=100) == 100


@pytest.mark.parametrize("missing", ["failed", "error", "skipped", "deselected"])
def test_the_page_is_for_runs_of_which_nothing_is_missing(missing: str) -> None:
    passed: dict[str, list[object]] = {"passed": ["one"], "": ["set up"]}
    assert is_whole(0, passed)
    assert not is_whole(0, {**passed, missing: ["other"]})
    assert not is_whole(2, passed)  # interrupted


def test_the_page_is_for_runs_of_all_tests() -> None:
    files = {"test_clock.py", "test_poison.py"}
    assert is_of_all(["tests/chaos"], files, files)
    assert not is_of_all(["tests/chaos/test_clock.py"], {"test_clock.py"}, files)
    assert not is_of_all(["tests/chaos/test_clock.py::test_one", "tests/chaos/test_poison.py"], files, files)
