"""DCMTK's programs as senders: what a modality or PACS does to the listener."""

import os
import subprocess
from collections import Counter
from pathlib import Path

import pydicom
import pytest

from app.audit.events import AuditEvent
from app.delivery.sending import send_folder
from app.listener.spool import read_instance_header
from tests import peers
from tests.listening import listening, make_ct, write_ct

HOST = "127.0.0.1"
IMPLICIT = "1.2.840.10008.1.2"


def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    peers.require(name)
    return subprocess.run(
        [peers.program(name), *map(str, arguments)],
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, "TCP_NODELAY": "1"},
        timeout=120,
        check=False,
    )


def test_echoscu(tmp_path: Path) -> None:
    with listening(tmp_path / "spool") as at:
        assert run("echoscu", "-aec", "LIMNER", HOST, at.port).returncode == 0
        wrong = run("echoscu", "-aec", "PACS", HOST, at.port)
    assert wrong.returncode != 0
    assert "Called AE Title Not Recognized" in wrong.stdout + wrong.stderr


def test_echoscu_from_a_peer_that_is_not_allowed(tmp_path: Path) -> None:
    sources = [{"ae_title": "CT1", "hosts": [HOST]}, {"ae_title": "MR1", "hosts": ["192.0.2.1"]}]
    with listening(tmp_path / "spool", source=sources) as at:
        assert run("echoscu", "-aet", "CT1", "-aec", "LIMNER", HOST, at.port).returncode == 0
        for title in ("MR1", "STRANGER"):
            refused = run("echoscu", "-aet", title, "-aec", "LIMNER", HOST, at.port)
            assert refused.returncode != 0
            assert "Calling AE Title Not Recognized" in refused.stdout + refused.stderr
    codes = [one["code"] for one in at.audit.of(AuditEvent.ASSOCIATION_REFUSED)]
    assert codes == ["host-not-allowed", "calling-ae-title-not-recognized"]


def test_dcmsend_of_the_real_series_in_its_own_syntax(tmp_path: Path, abdominal_ct: list[Path]) -> None:
    peers.require("dcmsend")
    with listening(tmp_path / "spool") as at:
        peers.dcmsend(abdominal_ct, HOST, at.port, called="LIMNER")
    assert len(at.instances) == len(abdominal_ct) == 20
    assert {str(one.transfer_syntax_uid) for one in at.instances} == {"1.2.840.10008.1.2.4.90"}
    sent = {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID): path for path in abdominal_ct}
    for one in at.instances:
        kept = pydicom.dcmread(at.spool.path_of(one.digest))
        assert kept.PixelData == pydicom.dcmread(sent[str(one.sop_instance_uid)]).PixelData
    [received] = at.audit.of(AuditEvent.INSTANCES_RECEIVED)
    assert received["instances"] == 20


def test_dcmsend_twice_is_kept_once(tmp_path: Path, abdominal_ct: list[Path]) -> None:
    peers.require("dcmsend")
    with listening(tmp_path / "spool") as at:
        for _ in range(2):
            peers.dcmsend(abdominal_ct[:3], HOST, at.port, called="LIMNER")
    assert len(at.instances) == 6
    assert len(list(at.spool.all_digests())) == 3


@pytest.mark.parametrize(
    ("program", "arguments", "syntax"),
    [
        ("dcmcrle", [], "1.2.840.10008.1.2.5"),
        ("dcmcjpeg", ["+e1"], "1.2.840.10008.1.2.4.70"),
        ("dcmcjpeg", ["+el"], "1.2.840.10008.1.2.4.57"),
        ("dcmcjpeg", ["+ee"], "1.2.840.10008.1.2.4.51"),
        ("dcmcjpls", ["+el"], "1.2.840.10008.1.2.4.80"),
        ("dcmcjpls", ["+en"], "1.2.840.10008.1.2.4.81"),
        ("gdcmconv", ["--j2k"], "1.2.840.10008.1.2.4.90"),
        ("dcmconv", ["+te", "+e"], "1.2.840.10008.1.2.1"),  # sequences of undefined length
    ],
)
def test_each_transfer_syntax_that_dcmtk_sends(tmp_path: Path, program: str, arguments: list[str], syntax: str) -> None:
    peers.require("dcmsend", program)
    source, converted = write_ct(tmp_path / "source.dcm", 1), tmp_path / "converted.dcm"
    made = run(program, *arguments, source, converted)
    assert made.returncode == 0, made.stderr
    with listening(tmp_path / "spool") as at:
        # without -dn it offers uncompressed syntaxes beside a lossless one, and then they are chosen
        sent = run("dcmsend", "-v", "-dn", "-aec", "LIMNER", HOST, at.port, converted)
        assert sent.returncode == 0, sent.stderr
    [instance] = at.instances
    assert instance.transfer_syntax_uid == syntax
    kept = at.spool.path_of(instance.digest)
    assert read_instance_header(kept).transfer_syntax_uid == syntax
    assert pydicom.dcmread(kept).PixelData == pydicom.dcmread(converted).PixelData
    assert run("dcmdump", kept).returncode == 0


@pytest.mark.parametrize(
    ("argument", "syntax"), [("+ti", IMPLICIT), ("+te", "1.2.840.10008.1.2.1"), ("+tb", "1.2.840.10008.1.2.2")]
)
def test_each_uncompressed_syntax_that_dcmtk_writes(tmp_path: Path, argument: str, syntax: str) -> None:
    """Proposed alone: DCMTK's senders always offer Explicit VR Little Endian beside the others, which is preferred."""
    converted = tmp_path / "converted.dcm"
    assert run("dcmconv", argument, write_ct(tmp_path / "source.dcm", 1), converted).returncode == 0
    with listening(tmp_path / "spool") as at:
        [sent] = send_folder(converted, HOST, at.port, "LIMNER", "MODALITY").files
    assert sent.accepted, sent.message
    [instance] = at.instances
    assert instance.transfer_syntax_uid == syntax
    assert read_instance_header(at.spool.path_of(instance.digest)).transfer_syntax_uid == syntax


def test_a_deflated_file_is_inflated_by_its_sender(tmp_path: Path) -> None:
    peers.require("dcmconv", "storescu")
    write_ct(tmp_path / "source.dcm", 1)
    assert run("dcmconv", "+td", tmp_path / "source.dcm", tmp_path / "deflated.dcm").returncode == 0
    with listening(tmp_path / "spool") as at:
        # -R proposes only what the file needs
        sent = run("storescu", "-R", "-xd", "-aec", "LIMNER", HOST, at.port, tmp_path / "deflated.dcm")
    # the deflated syntax is not accepted, so that the sender falls back on what it proposed beside it
    assert sent.returncode == 0, sent.stderr
    assert [one.transfer_syntax_uid for one in at.instances] == ["1.2.840.10008.1.2.1"]


def test_storescu_of_two_series_and_a_truncated_file(tmp_path: Path) -> None:
    peers.require("storescu")
    for series in ("1.2.3.1", "1.2.3.2"):
        for number in (1, 2):
            write_ct(tmp_path / f"{series}.{number}.dcm", number, series=series)
    with listening(tmp_path / "spool") as at:
        sent = run("storescu", "-v", "-aec", "LIMNER", HOST, at.port, *sorted(tmp_path.glob("*.dcm")))
        assert sent.returncode == 0, sent.stderr
        image = make_ct(9)
        image.PixelData = image.PixelData[:-100]  # whole by its lengths, too short for the image
        image.save_as(tmp_path / "short.dcm", enforce_file_format=True)
        short = run("storescu", "-v", "-aec", "LIMNER", HOST, at.port, tmp_path / "short.dcm")
        assert "CannotUnderstand" in short.stdout + short.stderr
        assert len(at.quarantined()) == 1
    assert Counter(one.series_instance_uid for one in at.instances) == {"1.2.3.1": 2, "1.2.3.2": 2}
    assert [one["code"] for one in at.audit.of(AuditEvent.INSTANCE_REFUSED)] == ["pixel-data-short"]


def test_a_sender_is_told_that_the_disk_is_full(tmp_path: Path) -> None:
    peers.require("storescu")
    write_ct(tmp_path / "ct.dcm", 1)
    with listening(tmp_path / "spool", low_water_bytes=1 << 62) as at:
        sent = run("storescu", "-v", "-aec", "LIMNER", HOST, at.port, tmp_path / "ct.dcm")
    assert "Rejected Transient" in sent.stdout + sent.stderr  # it comes again later
    assert "Temporary Congestion" in sent.stdout + sent.stderr
    assert at.instances == []
