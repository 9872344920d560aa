"""Holoscan finds its CUDA runtime in the environment, so that a machine without CUDA can run the graph."""

import sysconfig
from pathlib import Path

import pytest

from deploy.link_cuda_runtime import LIBRARY, link


def test_the_link_joins_the_two_wheels_and_may_be_made_again(tmp_path: Path) -> None:
    runtime = tmp_path / "nvidia/cu13/lib" / LIBRARY
    runtime.parent.mkdir(parents=True)
    runtime.write_bytes(b"library")
    (tmp_path / "holoscan/lib").mkdir(parents=True)
    link(tmp_path)
    link(tmp_path)
    made = tmp_path / "holoscan/lib" / LIBRARY
    assert made.read_bytes() == b"library"
    assert not made.readlink().is_absolute(), "an environment that is copied into an image must take the link with it"


def test_a_missing_wheel_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"libcudart\.so\.13 is missing: install requirements/server\.txt"):
        link(tmp_path)


def test_this_environment_brings_its_own() -> None:
    packages = Path(sysconfig.get_path("purelib"))
    assert (packages / "holoscan" / "lib" / LIBRARY).resolve().is_relative_to(packages.resolve())
