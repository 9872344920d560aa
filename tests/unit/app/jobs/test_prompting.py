from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.identifiers import UID
from app.jobs import prompting
from app.jobs.entries import SeenSeries

_IMAGES = SeenSeries(
    study_instance_uid=UID("1.2"),
    series_instance_uid=UID("1.2.3"),
    state="routed",
    revision=1,
    calling_ae_title="MODALITY",
    last_received_at=datetime(2026, 1, 1, tzinfo=UTC),
    quiet_seconds=60.0,
    study_quiet_seconds=60.0,
    lowest_digest="0" * 64,
)


@pytest.fixture(autouse=True)
def _prompts_for_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompting, "_referenced", lambda path: "1.2.3")


def test_images_that_are_held_are_bound() -> None:
    assert prompting.bind_prompts([Path("prompt.dcm")], [_IMAGES]).images == _IMAGES


def test_images_that_retention_removed_are_not_held_so_that_they_are_fetched() -> None:
    binding = prompting.bind_prompts([Path("prompt.dcm")], [replace(_IMAGES, is_kept=False)])
    assert binding.images is None
    assert binding.problem is not None
    assert (binding.problem.code, binding.wanted) == ("images-not-held", "1.2.3")
