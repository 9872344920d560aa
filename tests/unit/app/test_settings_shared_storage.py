"""Where hosts share their files is a bucket that can be reached, and its secret is never shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app.bootstrap.parts import make_result_files, make_spool, make_store
from app.errors import StorageError
from app.jobs.result_files import ResultFiles, SharedResultFiles
from app.listener.shared_spool import SharedSpool
from app.listener.spool import Spool
from app.settings import Settings, load_settings
from app.settings_shared_storage import SharedStorageSettings


@pytest.mark.parametrize(
    ("url", "bucket", "prefix"),
    [
        ("s3://limner", "limner", ""),
        ("s3://limner/", "limner", ""),
        ("s3://limner.site/a/b_1/", "limner.site", "a/b_1/"),
    ],
)
def test_the_url_names_bucket_and_prefix(url: str, bucket: str, prefix: str) -> None:
    settings = SharedStorageSettings(url=url)
    assert (settings.bucket, settings.prefix) == (bucket, prefix)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"url": "https://limner/a"}, "such as s3://bucket/prefix"),
        ({"url": "s3://"}, "such as s3://bucket/prefix"),
        ({"url": "s3://Limner"}, "such as s3://bucket/prefix"),
        ({"url": "s3://limner/a/../b"}, "such as s3://bucket/prefix"),
        ({"url": "s3://limner/a b"}, "expected a prefix of letters"),
        ({"url": "s3://limner/a//b"}, "expected a prefix of letters"),
        ({"url": "s3://limner", "endpoint": "s3.example"}, "the root of an S3-compatible storage"),
        ({"url": "s3://limner", "endpoint": "https://key:secret@s3.example"}, "neither credentials nor query"),
        ({"url": "s3://limner", "endpoint": "http://s3.example"}, "plain_http = true if the network is trusted"),
        ({"url": "s3://limner", "access_key": "k"}, "access_key and secret_key_file belong together"),
        ({"url": "s3://limner", "secret_key_file": "k"}, "access_key and secret_key_file belong together"),
        ({"endpoint": "https://s3.example"}, "url is missing, and endpoint"),
        ({"url": "s3://limner", "secret_key": "k"}, "Extra inputs are not permitted"),
    ],
)
def test_what_can_not_be_used_is_told(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SharedStorageSettings.model_validate(keys)


def test_files_count_from_the_settings_own_folder(tmp_path: Path) -> None:
    path = tmp_path / "limner.toml"
    path.write_text('[shared_storage]\nurl = "s3://limner"\naccess_key = "k"\nsecret_key_file = "secret"\n')
    assert load_settings(path).shared_storage.secret_key_file == tmp_path / "secret"


def test_without_it_all_stays_in_the_folder(tmp_path: Path) -> None:
    settings = Settings(data_folder=tmp_path)
    assert make_store(settings.shared_storage) is None
    assert type(make_spool(settings)) is Spool
    assert type(make_result_files(settings)) is ResultFiles


def test_with_it_spool_and_results_share_one_store(tmp_path: Path) -> None:
    settings = Settings(data_folder=tmp_path, shared_storage=SharedStorageSettings(url="s3://limner"))
    assert isinstance(make_spool(settings), SharedSpool)
    assert isinstance(make_result_files(settings), SharedResultFiles)
    assert make_store(settings.shared_storage) is make_store(settings.shared_storage)


def test_a_secret_that_can_not_be_read_is_told_with_its_file(tmp_path: Path) -> None:
    keys = {"url": "s3://limner", "access_key": "k", "secret_key_file": tmp_path / "secret"}
    store = make_store(SharedStorageSettings.model_validate(keys))
    assert store is not None
    with pytest.raises(StorageError, match="secret_key_file .*secret can't be read") as told:
        store.size("name")
    assert told.value.code == "shared-storage-refused"
