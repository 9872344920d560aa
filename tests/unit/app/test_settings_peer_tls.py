"""TLS to destinations and archives: what belongs together, and where its files lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app.settings import DestinationSettings, load_settings
from app.settings_peer_tls import PeerTlsSettings

DIMSE = {"name": "pacs", "ae_title": "PACS", "host": "pacs.example", "port": 2762}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "authorities"),
        ({"authorities": "a", "private_key": "k"}, "private_key is that of certificate, which is missing"),
        ({"authorities": "a", "host_name": "pacs", "check_host_name": False}, "leave one of them out"),
    ],
)
def test_what_does_not_belong_together_is_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PeerTlsSettings.model_validate(keys)


def test_a_destination_on_the_web_has_keys_of_its_own() -> None:
    with pytest.raises(ValidationError, match="leave tls out"):
        DestinationSettings.model_validate(
            {"name": "cloud", "url": "https://pacs.example/dicom-web", "tls": {"authorities": "a"}}
        )


def test_files_count_from_the_settings(tmp_path: Path) -> None:
    path = tmp_path / "limner.toml"
    table = 'authorities = "tls/ca.pem"\ncertificate = "tls/own.pem"\n'
    address = "\n".join(f"{key} = {value!r}" for key, value in DIMSE.items())
    path.write_text(
        f"[[destination]]\n{address}\n[destination.tls]\n{table}[[archive]]\n{address}\n[archive.tls]\n{table}"
    )
    settings = load_settings(path)
    for one in (*settings.destination, *settings.archive):
        assert one.tls is not None
        assert one.tls.authorities == tmp_path / "tls/ca.pem"
        assert one.tls.certificate == tmp_path / "tls/own.pem"
        assert one.tls.private_key is None
