"""Which roles a process may have, and what must be shared for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.bootstrap.roles import Role, Share
from app.errors import SettingsError
from app.settings import DatabaseSettings, Settings, TritonSettings
from app.settings_web import WebSettings

_DATABASE = DatabaseSettings(url="postgresql://limner@database/limner")
_TRITON = TritonSettings(address="triton:8001")


def _settings(folder: Path, **parts: object) -> Settings:
    return Settings(data_folder=folder, **parts)  # type: ignore[arg-type]


def test_without_roles_one_process_does_all_and_needs_nothing(tmp_path: Path) -> None:
    settings = _settings(tmp_path)
    share = Share.of((), None, settings)
    assert share.roles == set(Role)
    assert share.audit_folder(settings) == settings.audit_folder
    assert share.run_folder(settings) == settings.run_folder


@pytest.mark.parametrize(
    ("roles", "name"),
    [([Role.WORKER], None), ([Role.LISTENER, Role.WEB], None), ([], "limner-2")],
    ids=["a role", "two roles", "a name"],
)
def test_several_processes_need_a_database_that_they_share(roles: list[Role], name: str | None, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"set database\.url") as raised:
        Share.of(roles, name, _settings(tmp_path, web=WebSettings(enabled=True), triton=_TRITON))
    assert raised.value.code == "role-needs-database"


def test_the_web_alone_needs_the_workers_triton(tmp_path: Path) -> None:
    web = WebSettings(enabled=True)
    with pytest.raises(SettingsError, match=r"set triton\.address") as raised:
        Share.of([Role.WEB], None, _settings(tmp_path, web=web, database=_DATABASE))
    assert raised.value.code == "role-needs-triton"
    assert Share.of([Role.WEB], None, _settings(tmp_path, web=web, database=_DATABASE, triton=_TRITON))


def test_a_web_that_is_not_enabled_is_no_role(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"web\.enabled") as raised:
        Share.of([Role.WEB], None, _settings(tmp_path, database=_DATABASE, triton=_TRITON))
    assert raised.value.code == "role-needs-web"


def test_each_process_has_its_own_folders(tmp_path: Path) -> None:
    settings = _settings(tmp_path, database=_DATABASE)
    share = Share.of([Role.WORKER], "gpu-1", settings)
    assert share.audit_folder(settings) == settings.audit_folder / "gpu-1"
    assert share.run_folder(settings) == settings.run_folder / "gpu-1"
    unnamed = Share.of([Role.WORKER], None, settings)
    assert unnamed.name.endswith("-worker")


@pytest.mark.parametrize("name", ["..", "a/b", "", "-a", "x" * 65])
def test_a_name_is_a_folders(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="the process' name") as raised:
        Share.of([Role.WORKER], name, _settings(tmp_path, database=_DATABASE))
    assert raised.value.code == "process-name"
