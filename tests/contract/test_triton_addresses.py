"""Several Tritons by their addresses: runs go round those that answer."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app.serving.triton_addresses import TritonAddresses
from app.settings import TritonSettings, load_settings
from operators.triton import probe
from tests.triton_fixture import running_triton

_DEAD = "127.0.0.1:1"


def test_runs_go_round_those_that_answer(triton: Any) -> None:
    with running_triton() as other:
        addresses = TritonAddresses([triton.target, _DEAD, other.target])
        began = time.monotonic()
        taken = [addresses.next() for _ in range(6)]
        assert time.monotonic() - began < 10
        assert taken == [triton.target, other.target, other.target] * 2
        for target in set(taken):
            probe(target, deadline_seconds=10)
    assert {addresses.next() for _ in range(3)} == {triton.target}, "the other was stopped"


def test_where_none_answers_the_run_is_told_of_one(tmp_path: Path) -> None:
    addresses = TritonAddresses([_DEAD, f"unix:{tmp_path}/none"])
    assert [addresses.next() for _ in range(3)] == [_DEAD, f"unix:{tmp_path}/none", _DEAD]


def test_an_only_one_is_not_asked() -> None:
    asked: list[str] = []

    def answers(address: str) -> bool:
        asked.append(address)
        return False

    assert TritonAddresses(["here"], answers).next() == "here"
    assert asked == []


def test_settings_take_one_or_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "limner.toml"
    path.write_text('[triton]\naddress = "one:8001"\n')
    assert load_settings(path).triton.addresses == ("one:8001",)
    path.write_text('[triton]\naddress = ["one:8001", "two:8001"]\n')
    assert load_settings(path).triton.addresses == ("one:8001", "two:8001")
    monkeypatch.setenv("LIMNER__TRITON__ADDRESS", "three:8001")
    assert load_settings(path).triton.addresses == ("three:8001",)
    monkeypatch.setenv("LIMNER__TRITON__ADDRESS", '["three:8001", "four:8001"]')
    assert load_settings(path).triton.addresses == ("three:8001", "four:8001")
    assert TritonSettings().addresses == ()
    with pytest.raises(ValidationError, match="one or more"):
        TritonSettings(address=[])  # type: ignore[arg-type]
