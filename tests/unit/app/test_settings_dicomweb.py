"""A destination is reached in exactly one way, and what is missing or too much is told."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app.settings import DestinationSettings, load_settings

DIMSE = {"ae_title": "PACS", "host": "pacs.example", "port": 104}
URL = "https://pacs.example/dicom-web"


def destination(**keys: Any) -> DestinationSettings:
    return DestinationSettings(name="archive", **keys)


def test_the_address_tells_one_way_from_the_other() -> None:
    assert destination(**DIMSE).address == "PACS@pacs.example:104"
    assert destination(url=URL + "/").address == URL
    assert destination(url="http://127.0.0.1:8042/dicom-web", plain_http=True).url == "http://127.0.0.1:8042/dicom-web"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "ae_title and host and port are missing"),
        ({"ae_title": "PACS", "host": "h"}, "port is missing"),
        ({"url": URL, **DIMSE}, "leave ae_title, host, port out"),
        ({"url": URL, "calling_ae_title": "LIMNER"}, "leave calling_ae_title out"),
        ({**DIMSE, "token_file": "t"}, "token_file can only be given with url"),
        ({**DIMSE, "plain_http": True}, "plain_http can only be given with url"),
        ({"url": URL, "token_file": "t", "user": "u", "password_file": "p"}, "keep one of them"),
        ({"url": URL, "user": "u"}, "user and password_file belong together"),
        ({"url": URL, "password_file": "p"}, "user and password_file belong together"),
        ({"url": URL, "user": "a:b", "password_file": "p"}, "can hold neither a colon"),
        ({"url": URL, "private_key": "k"}, "private_key is that of certificate"),
        ({"url": "http://pacs.example"}, "plain_http = true if the network is trusted"),
        ({"url": "http://pacs.example", "plain_http": True, "authorities": "a"}, "are for https://"),
        ({"url": "https://u:p@pacs.example"}, "expected neither credentials"),
        ({"url": URL + "?a=b"}, "nor query"),
        ({"url": "ftp://pacs.example"}, "expected the root of a DICOMweb service"),
        ({"url": "https://"}, "expected the root of a DICOMweb service"),
        ({"url": "https://pacs.example:99999/"}, "expected the root of a DICOMweb service"),
        ({"url": "https://pacs.example/a\r\nX: y"}, "expected the root of a DICOMweb service"),
    ],
)
def test_what_does_not_go_together_is_told(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        destination(**keys)
    assert message in str(caught.value)


def test_no_secret_is_told_with_a_url_that_is_refused() -> None:
    """The file of the settings may be wrong; what is told of it goes to logs."""
    with pytest.raises(ValidationError) as caught:
        destination(url="https://user:sesame@pacs.example")
    assert "sesame" not in caught.value.errors()[0]["msg"]


def test_files_count_from_the_settings_folder(tmp_path: Path) -> None:
    path = tmp_path / "limner.toml"
    path.write_text(
        f'[[destination]]\nname = "web"\nurl = "{URL}"\nuser = "u"\npassword_file = "secret"\n'
        'authorities = "ca.pem"\ncertificate = "own.pem"\nprivate_key = "/etc/own.key"\n'
    )
    (web,) = load_settings(path).destination
    assert (web.password_file, web.authorities) == (tmp_path / "secret", tmp_path / "ca.pem")
    assert (web.certificate, web.private_key) == (tmp_path / "own.pem", Path("/etc/own.key"))
    assert web.token_file is None
