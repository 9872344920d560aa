"""What archives hold, asked by C-FIND: Orthanc, DCMTK's dcmqrscp, and archives that answer badly or not at all."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind, Verification

from app.delivery.dimse import Peer
from app.delivery.query import DimseQuery
from app.errors import DeliveryError, DeliveryRefused
from app.settings import ArchiveSettings
from tests import peers
from tests.listening import make_ct

HOST = "127.0.0.1"
ABSENT = "1.2.3.404"


def query(host: str, port: int, *, title: str = "PACS", seconds: float = 20.0, **limits: Any) -> DimseQuery:
    return DimseQuery(Peer(host, port, title, "LIMNER", seconds), **limits)


@contextmanager
def archive(find: Callable[[evt.Event], Any]) -> Iterator[int]:
    """An archive that answers C-FIND as `find` does; yields its port."""
    entity = AE("PACS")
    entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    server = entity.start_server((HOST, 0), block=False, evt_handlers=[(evt.EVT_C_FIND, find)])
    try:
        yield server.server_address[1]
    finally:
        for association in server.active_associations:
            association.abort()
        server.shutdown()


def uids(path: Path) -> tuple[str, str, str]:
    image = pydicom.dcmread(path, stop_before_pixels=True)
    return str(image.StudyInstanceUID), str(image.SeriesInstanceUID), str(image.SOPInstanceUID)


def check_holdings(asked: DimseQuery, images: list[Path]) -> None:
    """What holds of an archive with one study of one series of `images`."""
    study, series, first = uids(images[0])
    assert asked.count_instances(study, series) == len(images)
    assert asked.count_series_instances(study) == {series: len(images)}
    assert set(asked.find_instances(study, series)) == {uids(path)[2] for path in images}
    assert asked.holds_instance(study, series, first)
    assert not asked.holds_instance(study, series, ABSENT)
    assert asked.count_instances(study, ABSENT) is None
    assert asked.count_series_instances(ABSENT) == {}
    assert asked.find_instances(ABSENT, ABSENT) == ()
    [found] = asked.find("STUDY", {"StudyInstanceUID": study}, ["StudyDate", "ModalitiesInStudy"])
    assert set(found) == {"StudyInstanceUID", "StudyDate", "ModalitiesInStudy"}
    assert found["StudyInstanceUID"] == study
    date = str(pydicom.dcmread(images[0], stop_before_pixels=True).StudyDate)
    in_range = {"StudyDate": f"{date}-{date}", "StudyInstanceUID": ""}
    assert [one["StudyInstanceUID"] for one in asked.find("STUDY", in_range)] == [study]
    assert asked.find("STUDY", {"StudyDate": "-19000101"}) == ()


def test_orthanc_tells_what_it_holds(network: peers.PeerNetwork, abdominal_ct: list[Path], tmp_path: Path) -> None:
    study, series, _ = uids(abdominal_ct[0])
    with peers.running_orthanc(network, tmp_path) as orthanc:
        settings = ArchiveSettings(name="pacs", ae_title="PACS", host=orthanc.host, port=orthanc.port)
        asked = DimseQuery.of_archive(settings, "LIMNER")
        for path in abdominal_ct[:17]:
            orthanc.upload(path)
        assert asked.count_instances(study, series) == 17
        for path in abdominal_ct[17:]:
            orthanc.upload(path)
        check_holdings(asked, abdominal_ct)
        [told] = asked.find(
            "STUDY", {"StudyInstanceUID": study}, ["ModalitiesInStudy", "NumberOfStudyRelatedInstances"]
        )
        assert (told["ModalitiesInStudy"], told["NumberOfStudyRelatedInstances"]) == ("CT", "20")
        several = {"StudyInstanceUID": study, "SeriesInstanceUID": [series, ABSENT]}
        assert [one["SeriesInstanceUID"] for one in asked.find("SERIES", several)] == [series]


def test_dcmqrscp_tells_what_it_holds_though_it_counts_nothing(network: peers.PeerNetwork, tmp_path: Path) -> None:
    images = [tmp_path / f"{number}.dcm" for number in range(1, 6)]
    for number, path in enumerate(images, start=1):
        image = make_ct(number)
        image.StudyDate, image.StudyTime, image.StudyID, image.AccessionNumber = "20260924", "101112", "7", "A7"
        image.SeriesNumber = 3
        image.save_as(path, enforce_file_format=True)
    study, series, _ = uids(images[0])
    with peers.running_dcmqrscp(network, tmp_path, images) as (host, port):
        asked = query(host, port, title="QUERY")
        [answer] = asked.find(
            "SERIES",
            {"StudyInstanceUID": study, "SeriesInstanceUID": series},
            ["NumberOfSeriesRelatedInstances"],
        )
        assert answer["NumberOfSeriesRelatedInstances"] == ""
        check_holdings(asked, images)
        with pytest.raises(DeliveryError) as caught:
            query(host, port, title="NOBODY").count_instances(study, series)
    assert caught.value.code == "association-rejected"


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (0xA700, DeliveryError, "status-a700"),
        (0xA900, DeliveryRefused, "status-a900"),
        (0x0122, DeliveryRefused, "status-0122"),
        (0xC001, DeliveryError, "status-c001"),
        (0xFE00, DeliveryError, "status-fe00"),
    ],
)
def test_a_failure_status_is_told(status: int, kind: type[DeliveryError], code: str) -> None:
    def find(_: evt.Event) -> Iterator[tuple[int, None]]:
        yield status, None

    with archive(find) as port, pytest.raises(DeliveryError) as caught:
        query(HOST, port).count_instances("1.2.3", "1.2.3.4")
    assert type(caught.value) is kind
    assert caught.value.code == code


def matches(count: int, *, pause: float = 0.0, **attributes: str) -> Callable[[evt.Event], Iterator[tuple[int, Any]]]:
    def find(_: evt.Event) -> Iterator[tuple[int, Any]]:
        for number in range(count):
            time.sleep(pause)
            match = Dataset()
            match.SeriesInstanceUID = f"1.2.3.{number}"
            for keyword, value in attributes.items():
                setattr(match, keyword, value)
            yield 0xFF00, match

    return find


def test_an_archive_that_ignores_keys_is_not_believed() -> None:
    with archive(matches(5, NumberOfSeriesRelatedInstances="7")) as port:
        assert query(HOST, port).count_instances("1.2.3", ABSENT) is None
        assert query(HOST, port).count_instances("1.2.3", "1.2.3.2") == 7
        with pytest.raises(DeliveryError, match="more than the 4 answers") as caught:
            query(HOST, port, maximum_answers=4).count_instances("1.2.3", "1.2.3.2")
    assert caught.value.code == "too-many-answers"


def test_an_archive_that_dawdles_is_not_waited_for() -> None:
    began = time.monotonic()
    with archive(matches(1000, pause=0.1)) as port, pytest.raises(DeliveryError) as caught:
        query(HOST, port, query_seconds=0.5).count_instances("1.2.3", "1.2.3.2")
    assert caught.value.code == "query-too-slow"
    assert time.monotonic() - began < 10


def test_an_archive_that_does_not_answer_is_told_of() -> None:
    with archive(matches(1, pause=3.0)) as port, pytest.raises(DeliveryError) as silent:
        query(HOST, port, seconds=0.5).count_instances("1.2.3", "1.2.3.2")
    assert silent.value.code == "no-answer"
    with archive(lambda event: event.assoc.abort()) as port, pytest.raises(DeliveryError) as broken:
        query(HOST, port).count_instances("1.2.3", "1.2.3.2")
    assert broken.value.code == "no-answer"


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # the toolkit drops what did not connect
def test_an_archive_that_is_not_there_is_unreachable() -> None:
    with pytest.raises(DeliveryError) as caught:
        query(HOST, 1, seconds=1.0).count_instances("1.2.3", "1.2.3.2")
    assert caught.value.code == "unreachable"


def test_a_peer_that_takes_no_questions_refuses_for_good() -> None:
    entity = AE("PACS")
    entity.add_supported_context(Verification)
    server = entity.start_server((HOST, 0), block=False)
    try:
        with pytest.raises(DeliveryRefused) as caught:
            query(HOST, server.server_address[1]).count_instances("1.2.3", "1.2.3.2")
    finally:
        server.shutdown()
    assert caught.value.code == "context-refused"


def test_a_question_that_is_none_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="not keywords of DICOM attributes: StudyUID"):
        query(HOST, 1).find("STUDY", {"StudyUID": "1.2.3"})
