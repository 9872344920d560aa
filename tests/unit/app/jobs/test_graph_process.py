"""Whatever a graph does, the server learns what it was, and the next run is good."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from app.errors import GraphFailed, StorageError
from app.graph import RECORD_FILE, GraphRequest
from app.jobs.graph_process import CompletionRecord, GraphProcess
from operators.errors import InferenceFailed, SeriesRefused

REPOSITORY = Path(__file__).resolve().parents[4]
PLANTED = "tests.unit.app.jobs.planted_applications"
LIMIT_BYTES = 1 << 30


@pytest.fixture(scope="module")
def graphs() -> Iterator[GraphProcess]:
    graphs = GraphProcess()
    graphs.warm()
    yield graphs
    graphs.cancel()


def _request(folder: Path) -> GraphRequest:
    return GraphRequest(
        inputs=(),
        output_folder=folder,
        model_folder=folder,
        triton_target="unix:/none",
        identity="identity",
        series_description="",
        request_seconds=1,
        shared_memory=False,
    )


def _run(
    graphs: GraphProcess,
    folder: Path,
    name: str,
    *,
    seconds: float = 60,
    seen: list[tuple[str, int, int]] | None = None,
) -> CompletionRecord:
    return graphs.run(
        _request(folder),
        f"{PLANTED}:{name}",
        time_limit_seconds=seconds,
        memory_limit_bytes=LIMIT_BYTES,
        progress=lambda *facts: None if seen is None else seen.append(facts),
    )


def test_a_good_run_gives_its_record_and_its_progress(graphs: GraphProcess, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    record = _run(graphs, tmp_path, "Good", seen=seen)
    assert record.identity == "identity"
    assert record.steps == {"read": 0.5}
    assert seen == [("read", 1, 2), ("read", 2, 2)]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("Crashes", "graph-crashed"),
        ("Aborts", "graph-crashed"),
        ("Hogs", "graph-out-of-memory"),
        ("ChattersAndHogs", "graph-out-of-memory"),
        ("Jumps", "graph-out-of-memory"),
        ("Raises", "graph-failed"),
        ("DoesNotEmit", "graph-no-record"),
        ("LeavesRubbish", "graph-no-record"),
        ("Missing", "graph-failed"),
    ],
)
def test_a_run_that_goes_wrong_has_its_code_and_the_next_is_good(
    graphs: GraphProcess, tmp_path: Path, name: str, code: str
) -> None:
    with pytest.raises(GraphFailed) as caught:
        _run(graphs, tmp_path / "bad", name)
    assert caught.value.code == code
    assert "Doe" not in str(caught.value)
    assert _run(graphs, tmp_path / "good", "Good").identity == "identity"


def test_a_crash_names_its_signal(graphs: GraphProcess, tmp_path: Path) -> None:
    with pytest.raises(GraphFailed, match="SIGSEGV"):
        _run(graphs, tmp_path, "Crashes")


def test_an_unexpected_error_is_named_by_type_and_place_only(graphs: GraphProcess, tmp_path: Path) -> None:
    with pytest.raises(GraphFailed, match=r"RuntimeError in planted_applications.py, line \d+$"):
        _run(graphs, tmp_path, "Raises")


def test_a_disk_that_is_full_is_the_hosts_fault_and_can_be_tried_again(graphs: GraphProcess, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No space left on device") as caught:
        _run(graphs, tmp_path, "HasNoRoom")
    assert (caught.value.code, caught.value.retryable) == ("disk-failed", True)
    assert "secret" not in str(caught.value)


def test_a_record_that_the_disk_does_not_give_is_not_missing(graphs: GraphProcess, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="can't be used") as caught:
        _run(graphs, tmp_path, "LeavesARecordThatTheDiskDoesNotGive")
    assert caught.value.code == "disk-failed"


def test_a_hang_is_ended_at_its_time_with_its_children(graphs: GraphProcess, tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(GraphFailed) as caught:
        _run(graphs, tmp_path, "SpawnsAndHangs", seconds=5)
    assert caught.value.code == "graph-timed-out"
    assert time.monotonic() - started < 40
    child = int((tmp_path / "pid").read_text())
    _wait_until_gone(child)


def test_a_crash_is_noticed_at_once_though_a_child_lives_on_and_the_child_ends_too(
    graphs: GraphProcess, tmp_path: Path
) -> None:
    started = time.monotonic()
    with pytest.raises(GraphFailed, match="SIGSEGV") as caught:
        _run(graphs, tmp_path, "SpawnsAndCrashes", seconds=60)
    assert caught.value.code == "graph-crashed"
    assert time.monotonic() - started < 40
    _wait_until_gone(int((tmp_path / "pid").read_text()))


def test_a_good_run_leaves_no_child_behind(graphs: GraphProcess, tmp_path: Path) -> None:
    assert _run(graphs, tmp_path, "SpawnsAndEnds").identity == "identity"
    _wait_until_gone(int((tmp_path / "pid").read_text()))


def test_a_run_that_never_falls_silent_is_ended_at_its_time(graphs: GraphProcess, tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(GraphFailed) as caught:
        _run(graphs, tmp_path, "Chatters", seconds=2)
    assert caught.value.code == "graph-timed-out"
    assert time.monotonic() - started < 20  # of the 30 that it takes


def test_refusals_cross_with_kind_code_and_message(graphs: GraphProcess, tmp_path: Path) -> None:
    with pytest.raises(SeriesRefused, match=r"expected a slice every 2\.00 mm") as refused:
        _run(graphs, tmp_path / "1", "Refuses")
    assert refused.value.code == "slice-missing"
    with pytest.raises(InferenceFailed) as lost:
        _run(graphs, tmp_path / "2", "LosesTriton")
    assert (lost.value.code, lost.value.retryable) == ("triton-unreachable", True)


def test_a_record_of_an_earlier_attempt_counts_for_nothing(graphs: GraphProcess, tmp_path: Path) -> None:
    _run(graphs, tmp_path, "Good")
    with pytest.raises(GraphFailed) as caught:
        _run(graphs, tmp_path, "Crashes")
    assert caught.value.code == "graph-crashed"
    assert not (tmp_path / RECORD_FILE).exists()


@pytest.mark.parametrize("name", ["Hangs", "Chatters"])
def test_a_run_can_be_cancelled_from_another_thread(graphs: GraphProcess, tmp_path: Path, name: str) -> None:
    running = threading.Event()

    def run() -> str:
        try:
            graphs.run(
                _request(tmp_path),
                f"{PLANTED}:{name}",
                time_limit_seconds=120,
                memory_limit_bytes=LIMIT_BYTES,
                progress=lambda *facts: running.set(),
            )
        except GraphFailed as error:
            return error.code
        return "ended"

    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(run)
        assert running.wait(60)
        graphs.cancel()
        assert ended.result(60) == "graph-cancelled"


def test_a_run_that_nobody_wants_any_more_ends_alone(graphs: GraphProcess, tmp_path: Path) -> None:
    unwanted = [threading.Event(), threading.Event()]
    running = [threading.Event(), threading.Event()]

    def run(number: int) -> str:
        try:
            graphs.run(
                _request(tmp_path / str(number)),
                f"{PLANTED}:Hangs",
                time_limit_seconds=120,
                memory_limit_bytes=LIMIT_BYTES,
                progress=lambda *facts: running[number].set(),
                unwanted=unwanted[number],
            )
        except GraphFailed as error:
            return error.code
        return "ended"

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.submit(run, 0), pool.submit(run, 1)
        assert all(one.wait(60) for one in running)
        unwanted[0].set()
        assert first.result(10) == "graph-cancelled"
        assert not second.done()
        unwanted[1].set()
        assert second.result(10) == "graph-cancelled"


def test_runs_from_several_threads_do_not_mix(graphs: GraphProcess, tmp_path: Path) -> None:
    def run(number: int) -> str:
        try:
            return _run(graphs, tmp_path / str(number), ("Good", "Crashes", "Refuses")[number % 3]).identity
        except (GraphFailed, SeriesRefused) as error:
            return error.code

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(run, range(9)))
    assert found == ["identity", "graph-crashed", "slice-missing"] * 3


def test_nothing_a_graph_prints_reaches_the_terminal(
    graphs: GraphProcess, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _run(graphs, tmp_path, "Prints")
    assert capfd.readouterr() == ("", "")


def _wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 20
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_graph_ends_with_a_server_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _SERVER, str(tmp_path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "running\n"
            (graph,) = [
                one for one in psutil.Process(server.pid).children(recursive=True) if one.cmdline() and _is_group(one)
            ]
        finally:
            server.kill()
    _wait_until_gone(graph.pid)


def _is_group(process: psutil.Process) -> bool:
    return os.getpgid(process.pid) == process.pid


_SERVER = f"""
import sys
from pathlib import Path
from app.graph import GraphRequest
from app.jobs.graph_process import GraphProcess
folder = Path(sys.argv[1])
GraphProcess().run(
    GraphRequest((), folder, folder, "unix:/none", "identity", "", 1, False),
    "{PLANTED}:Hangs",
    time_limit_seconds=300,
    memory_limit_bytes=1 << 30,
    progress=lambda *facts: print("running", flush=True),
)
"""


def test_runs_that_start_at_once_leave_the_environment_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "before")
    process = GraphProcess()

    def warm_often() -> None:
        for _ in range(300):
            process.warm()

    threads = [threading.Thread(target=warm_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert os.environ["PYTHONPATH"] == "before"
