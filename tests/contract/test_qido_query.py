"""What DICOMweb services hold, asked by QIDO-RS: Orthanc, and services that page, warn, forget or flood."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import pytest
from pydicom.uid import UID

from app.delivery.qido import WebQuery
from app.delivery.query import DimseQuery
from app.delivery.web_service import WebService
from app.errors import DeliveryError, DeliveryRefused, SettingsError
from app.jobs.records import Records
from app.settings import ArchiveSettings, DestinationSettings, Settings
from app.settings_pipeline import RuleSettings
from app.sweeping import sweep
from tests import peers
from tests.listening import make_ct
from tests.web_peers import answer, scripted

PASSWORD = "correct horse"  # noqa: S105 - of a server that lives for seconds
DAY = "20260504"
STUDIES = ("2.25.11", "2.25.12", "2.25.13")
SERIES = ("2.25.21", "2.25.22")
"""Of each study: with the study's number behind."""


def service(url: str, **keys: Any) -> DestinationSettings:
    return DestinationSettings(name="web", url=url, plain_http=True, timeout_seconds=10, **keys)


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[peers.Orthanc]:
    """With three studies of two series each, CT and PT; the first study is of another day."""
    folder = tmp_path_factory.mktemp("orthanc")
    with (
        peers.peer_network() as network,
        peers.running_orthanc(network, folder / "orthanc", password=PASSWORD) as running,
    ):
        for number, study in enumerate(STUDIES):
            for series, modality in zip(SERIES, ("CT", "PT"), strict=True):
                image = make_ct(1)
                image.StudyInstanceUID, image.SeriesInstanceUID = study, f"{series}.{number}"
                image.SOPInstanceUID = UID(f"{series}.{number}.1")
                image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
                image.StudyDate, image.Modality = ("20260101" if number == 0 else DAY), modality
                image.StudyDescription, image.PatientID = f"Abdomen {number}", f"patient-{number}"
                path = folder / f"{series}.{number}.dcm"
                image.save_as(path, enforce_file_format=True)
                running.upload(path)
        yield running


@pytest.fixture
def settings(orthanc: peers.Orthanc, tmp_path: Path) -> DestinationSettings:
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    url = f"http://{orthanc.host}:{orthanc.HTTP_PORT}/dicom-web"
    return service(url, user=orthanc.USER, password_file=password)


@pytest.mark.parametrize("page", [1, 2, 100])
def test_orthanc_tells_the_same_as_by_c_find(orthanc: peers.Orthanc, settings: DestinationSettings, page: int) -> None:
    web = WebQuery(WebService(settings), page=page)
    archive = ArchiveSettings(name="pacs", ae_title="PACS", host=orthanc.host, port=orthanc.port)
    dimse = DimseQuery.of_archive(archive, "LIMNER")
    questions: list[tuple[Any, dict[str, str], list[str]]] = [
        ("STUDY", {"StudyDate": f"{DAY}-"}, ["StudyInstanceUID", "StudyDescription"]),
        ("STUDY", {"StudyDate": "-19000101"}, ["StudyInstanceUID"]),
        ("SERIES", {"StudyInstanceUID": STUDIES[1]}, ["SeriesInstanceUID", "Modality", "BodyPartExamined"]),
        ("SERIES", {"StudyInstanceUID": "2.25.404"}, ["SeriesInstanceUID"]),
        ("IMAGE", {"StudyInstanceUID": STUDIES[1], "SeriesInstanceUID": f"{SERIES[0]}.1"}, ["SOPInstanceUID"]),
    ]
    counts = []
    for level, keys, wanted in questions:
        told = [{name: one[name] for name in wanted} for one in web.find(level, keys, wanted)]
        expected = [{name: one[name] for name in wanted} for one in dimse.find(level, keys, wanted)]
        assert sorted(map(str, told)) == sorted(map(str, expected))
        counts.append(len(told))
    assert counts == [2, 0, 2, 0, 1]


class _Seen:
    def __init__(self, series: dict[str, set[str]]) -> None:
        self.series = series

    def delivered(self, since: datetime) -> list[Any]:
        return []

    def seen_series(self, study: str) -> set[str]:
        return self.series.get(study, set())


def test_the_sweep_names_what_never_came(settings: DestinationSettings, tmp_path: Path) -> None:
    rule = RuleSettings(name="ct", pipeline="p", destinations=(), match={"Modality": "CT"})
    loaded = Settings.model_construct(
        **{**dict(Settings(data_folder=tmp_path)), "destination": (settings,), "rule": (rule,)}
    )
    records = cast(Records, _Seen({STUDIES[2]: {f"{SERIES[1]}.2"}}))
    found = sweep(loaded, records, {}, "web", datetime(2026, 5, 1, tzinfo=UTC))
    assert found.unasked == {}
    assert {(one.code, one.study_instance_uid, one.series_instance_uid) for one in found.discrepancies} == {
        ("study-never-seen", STUDIES[1], ""),
        ("series-never-seen", STUDIES[2], f"{SERIES[0]}.2"),
    }


@pytest.mark.parametrize("keys", [{"ask": "never"}, None])
def test_who_is_not_to_be_asked_is_not(settings: DestinationSettings, tmp_path: Path, keys: dict[str, Any]) -> None:
    one = settings.model_copy(update=keys or {"url": None, "name": "other"})
    loaded = Settings.model_construct(**{**dict(Settings(data_folder=tmp_path)), "destination": (one,)})
    with pytest.raises(SettingsError, match="expected an \\[\\[archive\\]\\]") as caught:
        sweep(loaded, cast(Records, _Seen({})), {}, one.name, datetime(2026, 5, 1, tzinfo=UTC))
    assert caught.value.code == "archive-unknown"


# --- services that keep to no rule ----------------------------------------------------------------------------------


def studies(*uids: str) -> bytes:
    return json.dumps([{"0020000D": {"vr": "UI", "Value": [uid]}} for uid in uids]).encode()


def asked_of(act: Any, **limits: Any) -> tuple[Any, list[dict[str, list[str]]]]:
    """What a service is found to hold that acts so on each request's line, and the queries that it got."""
    queries: list[dict[str, list[str]]] = []

    def answer_one(connection: Any, request: bytes) -> None:
        queries.append(parse_qs(urlsplit(request.split(b" ")[1].decode()).query))
        connection.sendall(act(int(queries[-1]["offset"][0])))

    with scripted(answer_one) as running:
        found = WebQuery(WebService(service(running.url)), **limits).find("STUDY", {"StudyDate": "20260501-"})
    return found, queries


def test_one_that_gives_less_than_asked_and_says_so_is_asked_on() -> None:
    held = ["1.1", "1.2", "1.3"]

    def act(offset: int) -> bytes:
        rest = held[offset : offset + 2]
        return answer(200, studies(*rest), *(['Warning: 299 pacs: "more"'] if offset + 2 < len(held) else []))

    found, queries = asked_of(act)
    assert len(found) == 3
    assert [one["offset"] for one in queries] == [["0"], ["2"]]
    assert queries[0]["StudyDate"] == ["20260501-"]


def test_one_that_knows_no_pages_is_not_asked_for_ever() -> None:
    found, queries = asked_of(lambda _: answer(200, studies("1.1", "1.2")), page=2)
    assert (len(found), len(queries)) == (2, 2)


def test_one_that_tells_without_end_is_an_error() -> None:
    def act(offset: int) -> bytes:
        return answer(200, studies(*(f"1.{offset + one}" for one in range(5))))

    with pytest.raises(DeliveryError) as caught:
        asked_of(act, page=5, maximum_answers=9)
    assert caught.value.code == "too-many-answers"


@pytest.mark.parametrize(
    ("told", "kind", "code"),
    [
        (answer(403), DeliveryRefused, "http-403"),
        (answer(503), DeliveryError, "http-503"),
        (answer(200, b"[1]"), DeliveryError, "answer-unreadable"),
        (answer(200, b"<html>", media_type="text/html"), DeliveryError, "answer-unreadable"),
    ],
)
def test_what_is_no_answer_is_told(told: bytes, kind: type[DeliveryError], code: str) -> None:
    with pytest.raises(kind) as caught:
        asked_of(lambda _: told)
    assert caught.value.code == code


def test_a_question_that_is_none_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="NoSuchAttribute"):
        WebQuery(WebService(service("http://127.0.0.1:1"))).find("STUDY", {"NoSuchAttribute": ""})
