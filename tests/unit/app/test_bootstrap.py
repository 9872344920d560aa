"""The command line finds the server that runs, and is not misled by one that was killed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from app.bootstrap import running_server
from app.bootstrap.loading import load_generalists, load_packages, load_prompted
from app.errors import SettingsError
from app.settings import Settings
from app.settings_pipeline import GeneralistSettings, PipelineSettings, RuleSettings
from app.settings_prompt import PromptSettings
from operators.shared_memory import process_mark
from tests.sam_fixture import put_generalist
from tests.triton_fixture import MODEL_REPOSITORY
from tests.web_fixture import generalist_repository

SPECIALIST = "nnunet_liver_spleen_demo"


def _settings(folder: Path, mark: str) -> Settings:
    settings = Settings(data_folder=folder)
    settings.run_folder.mkdir()
    facts = {"process_mark": mark, "database_url": "postgresql://", "triton_target": "unix:/t", "listener_port": 104}
    (settings.run_folder / "server.json").write_text(json.dumps(facts))
    return settings


def test_a_living_server_is_found(tmp_path: Path) -> None:
    found = running_server(_settings(tmp_path, process_mark()))
    assert found is not None
    assert found.listener_port == 104


@pytest.mark.parametrize(
    "mark", [f"{os.getpid()}_1", "", "no mark"], ids=["same number, other process", "empty", "text"]
)
def test_what_a_killed_server_left_is_not_taken_for_a_server(tmp_path: Path, mark: str) -> None:
    assert running_server(_settings(tmp_path, mark)) is None


def test_without_a_server_there_is_none(tmp_path: Path) -> None:
    assert running_server(Settings(data_folder=tmp_path)) is None


def _with_channels(folder: Path, *channels: str) -> Settings:
    rule = RuleSettings(
        name="ct", pipeline="liver", destinations=(), after="study", channels={name: {} for name in channels}
    )
    pipeline = PipelineSettings(name="liver", model="nnunet_liver_spleen_demo")
    return Settings(data_folder=folder, pipeline=(pipeline,), rule=(rule,))


@pytest.mark.parametrize("channels", [(), ("CT",)])
def test_the_models_channels_may_be_bound(tmp_path: Path, channels: tuple[str, ...]) -> None:
    assert load_packages(_with_channels(tmp_path, *channels))["liver"].channel_names == ("CT",)


def test_other_channels_than_the_models_end_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="binds the channels CT, PET; the model nnunet_liver_spleen_demo has CT"):
        load_packages(_with_channels(tmp_path, "CT", "PET"))


def _with_generalist(folder: Path, repository: Path, **asked: Any) -> Settings:
    (repository / SPECIALIST).symlink_to(MODEL_REPOSITORY / SPECIALIST)
    pipeline = PipelineSettings(name="liver", model=SPECIALIST, generalist=GeneralistSettings(model="sam", **asked))
    return Settings(data_folder=folder, model_repository=repository, pipeline=(pipeline,))


def test_a_pipelines_generalist_is_read(tmp_path: Path) -> None:
    put_generalist(tmp_path, "sam")
    (package,) = load_generalists(_with_generalist(tmp_path, tmp_path)).values()
    assert (package.name, package.algorithm_name) == ("sam", "Planted generalist")


@pytest.mark.parametrize(
    ("asked", "kinds", "code"),
    [
        ({"window": "soft"}, ["box"], "window-unknown"),
        ({"windows": {"Liver": "40/0"}}, ["box"], "window-impossible"),
        ({"windows": {"Liver": "liver", "Lung": "lung"}}, ["box"], "segment-unknown"),
        ({}, ["points"], "box-unsupported"),
        ({"prompts": "points"}, ["box"], "prompt-kind-unsupported"),
        ({}, None, "file-missing"),
    ],
)
def test_a_generalist_that_can_not_be_used_ends_the_start(
    asked: dict[str, Any], kinds: list[str] | None, code: str, tmp_path: Path
) -> None:
    if kinds is not None:
        put_generalist(tmp_path, "sam", prompts={"kinds": kinds})
    with pytest.raises(SettingsError, match="the generalist of pipeline 'liver'") as raised:
        load_generalists(_with_generalist(tmp_path, tmp_path, **asked))
    assert raised.value.code == code


def _prompted(folder: Path, model: str) -> Settings:
    pipeline = PipelineSettings(name="drawn", model=model, prompt=PromptSettings())
    return Settings(data_folder=folder, model_repository=generalist_repository(folder), pipeline=(pipeline,))


def test_a_prompted_pipeline_has_a_generalist(tmp_path: Path) -> None:
    settings = _prompted(tmp_path, "limner_sam")
    assert load_packages(settings) == {}
    assert load_prompted(settings)["drawn"].algorithm_name == "Toy"


def test_a_prompted_pipeline_of_another_model_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="pipeline 'drawn'"):
        load_prompted(_prompted(tmp_path, "limner_probe"))
