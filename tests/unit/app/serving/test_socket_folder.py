import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.serving.socket_folder import make_socket_folder, remove_socket_folder


@pytest.fixture
def short_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="limner-test-") as folder:
        yield Path(folder)


def listen(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@given(depth=st.integers(0, 120))
def test_a_socket_can_be_made_in_it_whatever_the_path_and_nothing_is_left(depth: int) -> None:
    with tempfile.TemporaryDirectory(prefix="limner-test-") as folder:
        sockets = Path(folder, "d" * depth, "sockets")
        sockets.parent.mkdir(exist_ok=True)
        made = make_socket_folder(sockets, "name")
        listen(made / "name")
        assert sockets.resolve() == made.resolve()
        assert made.stat().st_mode & 0o777 == 0o700
        remove_socket_folder(sockets)
        assert not made.exists()
        assert list(sockets.parent.iterdir()) == []


def test_a_path_that_fits_is_taken_as_it_is(short_path: Path) -> None:
    assert make_socket_folder(short_path / "sockets", "name") == short_path / "sockets"


def test_a_long_folder_for_temporary_files_is_not_taken(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = short_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    made = make_socket_folder(deep / "sockets", "name")
    listen(made / "name")
    assert not made.is_relative_to(deep)
    remove_socket_folder(deep / "sockets")
    assert not made.exists()


def test_a_link_to_something_else_is_removed_and_what_it_points_to_is_not(short_path: Path) -> None:
    (short_path / "precious").mkdir()
    (short_path / "sockets").symlink_to(short_path / "precious")
    remove_socket_folder(short_path / "sockets")
    assert [path.name for path in short_path.iterdir()] == ["precious"]
    remove_socket_folder(short_path / "sockets")
