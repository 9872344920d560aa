import multiprocessing
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from operators.sam.embeddings import EmbeddingCache, embedding_key
from tests.sam_fixture import contract

KIB = 1 << 10


def embedding(seed: int, size: int = 256) -> dict[str, NDArray[np.float32]]:
    """4 times `size` bytes in two arrays."""
    values = np.random.default_rng(seed).normal(size=size).astype(np.float32)
    return {"image_embeddings": values[: size // 2].reshape(1, 2, -1), "high_res_0": values[size // 2 :]}


class Maker:
    """Makes embeddings, and counts them."""

    def __init__(self) -> None:
        self.made: list[int] = []

    def __call__(self, seed: int) -> dict[str, NDArray[np.float32]]:
        self.made.append(seed)
        return embedding(seed)


def key(number: int) -> str:
    return f"{number:064x}"


def ask(cache: EmbeddingCache, make: Maker, number: int) -> dict[str, NDArray[np.float32]]:
    return cache.get(key(number), lambda: make(number))


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name != "lock")


def test_what_is_kept_comes_back_exactly_and_is_made_once(tmp_path: Path) -> None:
    make, cache = Maker(), EmbeddingCache(tmp_path, most_bytes=64 * KIB)
    for _ in range(3):
        found = ask(cache, make, 7)
        for name, expected in embedding(7).items():
            assert found[name].dtype == np.float32
            np.testing.assert_array_equal(found[name], expected)
    ask(EmbeddingCache(tmp_path, most_bytes=64 * KIB), make, 7)
    assert make.made == [7]
    assert (cache.counts.found, cache.counts.made) == (2, 1)


def test_the_bound_holds_and_what_was_not_used_goes_first(tmp_path: Path) -> None:
    make, cache = Maker(), EmbeddingCache(tmp_path, most_bytes=4 * KIB)  # three of them
    for number in (1, 2, 3, 1, 4):
        ask(cache, make, number)
        age(tmp_path)
        assert sum(path.stat().st_size for path in files(tmp_path)) <= 4 * KIB
    assert [path.stem for path in files(tmp_path)] == [key(1), key(3), key(4)]
    assert make.made == [1, 2, 3, 4]


def age(folder: Path) -> None:
    """Let all files be a second older than they are."""
    for path in files(folder):
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - 10**9))


@pytest.mark.parametrize("most_bytes", [0, KIB // 2])
def test_what_is_larger_than_the_bound_is_not_kept(most_bytes: int, tmp_path: Path) -> None:
    make, cache = Maker(), EmbeddingCache(tmp_path, most_bytes=most_bytes)
    for _ in range(2):
        np.testing.assert_array_equal(ask(cache, make, 1)["high_res_0"], embedding(1)["high_res_0"])
    assert make.made == [1, 1]
    assert files(tmp_path) == []
    assert cache.counts.not_kept == 2


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "other"])
def test_a_damaged_file_is_dropped_and_made_again(damage: str, tmp_path: Path) -> None:
    make, cache = Maker(), EmbeddingCache(tmp_path, most_bytes=64 * KIB)
    ask(cache, make, 1)
    (path,) = files(tmp_path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    damaged = {"cut": content[:-9], "empty": bytearray(), "flipped": content, "other": bytearray(999)}
    path.write_bytes(damaged[damage])
    np.testing.assert_array_equal(ask(cache, make, 1)["high_res_0"], embedding(1)["high_res_0"])
    ask(cache, make, 1)
    assert make.made == [1, 1]
    assert cache.counts.damaged == 1


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    make, cache = Maker(), EmbeddingCache(tmp_path, most_bytes=64 * KIB)
    (tmp_path / f"{key(9)}.single.part").write_bytes(b"half of it")
    ask(cache, make, 1)
    assert [path.name for path in files(tmp_path)] == [f"{key(1)}.single"]


def test_a_folder_that_can_not_be_written_costs_time_only(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    make, cache = Maker(), EmbeddingCache(folder, most_bytes=64 * KIB)
    folder.rmdir()
    folder.write_text("a file is where the folder was")
    np.testing.assert_array_equal(ask(cache, make, 1)["high_res_0"], embedding(1)["high_res_0"])
    assert cache.counts.not_kept == 1


def test_a_folder_that_can_not_be_made_costs_time_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    make, cache = Maker(), EmbeddingCache(tmp_path / "file" / "cache", most_bytes=64 * KIB)
    np.testing.assert_array_equal(ask(cache, make, 1)["high_res_0"], embedding(1)["high_res_0"])
    assert cache.counts.not_kept == 1


def test_half_precision_is_the_same_the_first_time_and_later(tmp_path: Path) -> None:
    make, cache = Maker(), EmbeddingCache(tmp_path, most_bytes=64 * KIB, half=True)
    first, second = ask(cache, make, 1), ask(cache, make, 1)
    for name, exact in embedding(1).items():
        np.testing.assert_array_equal(first[name], second[name])
        assert first[name].dtype == second[name].dtype == np.float32
        assert 0 < np.abs(first[name] - exact).max() < 1e-2
    ask(EmbeddingCache(tmp_path, most_bytes=64 * KIB), make, 1)
    assert make.made == [1, 1], "what was rounded must not be taken for exact"


def test_the_folder_is_private_and_names_say_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    ask(EmbeddingCache(folder, most_bytes=64 * KIB), Maker(), 1)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in files(folder)] == [f"{key(1)}.single"]


def test_a_key_is_of_pixels_shape_weights_and_contract() -> None:
    image, said = np.arange(12, dtype=np.uint8).reshape(3, 4), contract().image
    keys = {
        embedding_key(image, "a", said),
        embedding_key(image.reshape(4, 3), "a", said),
        embedding_key(image + np.uint8(1), "a", said),
        embedding_key(image, "b", said),
        embedding_key(image, "a", replace(said, intensity="byte")),
    }
    assert len(keys) == 5
    assert embedding_key(np.asfortranarray(image), "a", said) in keys
    assert all(len(one) == 64 for one in keys)


def _work(folder: Path, start: int) -> None:
    """Ask for few embeddings in a folder that holds half of them, and check every answer."""
    make, cache = Maker(), EmbeddingCache(folder, most_bytes=4 * KIB)
    generator = np.random.default_rng(start)
    for _ in range(60):
        number = int(generator.integers(0, 6))
        np.testing.assert_array_equal(ask(cache, make, number)["high_res_0"], embedding(number)["high_res_0"])
    if cache.counts.damaged or cache.counts.not_kept:
        raise RuntimeError(f"{cache.counts}")


def test_several_processes_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_work, args=(tmp_path, start)) for start in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert 0 < sum(path.stat().st_size for path in files(tmp_path)) <= 4 * KIB
