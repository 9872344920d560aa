import pytest
from pydicom.uid import UID, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSNearLossless

from operators.gate.appearance import pixel_remarks, remarks
from operators.pixels import Decoded
from tests.gate_fixture import headers_of
from tests.phantom import Edit, Phantom, at, setting


def _found(edit: Edit | None = None, phantom: Phantom = Phantom()) -> dict[str, str]:  # noqa: B008
    return dict(remarks(headers_of(phantom, edit)))


def test_a_plain_series_gives_no_remark() -> None:
    assert _found() == {}
    assert _found(setting(LossyImageCompression="00")) == {}


def test_lossy_compression_is_told_with_its_ratio() -> None:
    one = at(2, LossyImageCompression="01", LossyImageCompressionRatio=["7.5", "12.25"])
    assert _found(one) == {"lossy-compression": "1 of 6 images were compressed with loss, at most 12.25 to 1"}
    told = _found(setting(LossyImageCompression="01"))["lossy-compression"]
    assert told == "6 of 6 images were compressed with loss, the ratio is not stated"


@pytest.mark.parametrize(
    ("syntax", "is_lossy"), [(JPEGBaseline8Bit, True), (JPEGLSNearLossless, True), (JPEG2000Lossless, False)]
)
def test_a_transfer_syntax_that_cant_be_without_loss_is_enough(syntax: UID, is_lossy: bool) -> None:
    headers = headers_of(Phantom())
    headers[1].file_meta.TransferSyntaxUID = syntax
    assert [code for code, _ in remarks(headers)] == (["lossy-compression"] if is_lossy else [])


def test_inverted_grey_and_slopes_below_zero() -> None:
    assert list(_found(setting(PhotometricInterpretation="MONOCHROME1"))) == ["monochrome1"]
    assert list(_found(phantom=Phantom(slopes=(-1.0,)))) == ["rescale-negative"]
    assert _found(setting(RescaleSlope=None, Modality="MR")) == {}


def test_what_came_to_light_as_slices_were_decoded() -> None:
    plain = Decoded()
    assert list(pixel_remarks([plain, plain])) == []
    found = dict(pixel_remarks([Decoded(has_padding=True), plain, Decoded(True, True)]))
    assert list(found) == ["pixel-padding", "bits-beyond-stored"]
    assert found["pixel-padding"].startswith("in 2 of 3 slices")
    assert found["bits-beyond-stored"].startswith("in 1 of 3 slices")


@pytest.mark.parametrize(("modality", "is_told"), [("CT", True), ("MR", True), ("PT", False)])
def test_slopes_that_differ_are_told_where_they_are_not_the_rule(modality: str, is_told: bool) -> None:
    found = _found(setting(Modality=modality), Phantom(slopes=(1.0, 2.0)))
    assert list(found) == (["rescale-differs"] if is_told else [])
