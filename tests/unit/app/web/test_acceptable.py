"""Which form of an answer a client's Accept header asks for (RFC 9110 section 12.5.1)."""

import pytest

from app.web.acceptable import wants_png


@pytest.mark.parametrize(
    "accept",
    [
        "image/png",
        "IMAGE/PNG",
        "image/png, */*;q=0.8",
        "image/png,application/json;q=0.9",
        "application/json;q=0.5, image/png;q=0.5",
        "application/json;q=0, image/png;q=0.001",
        "application/*;q=0.1, image/png ; q=0.2, */*",
        "image/avif,image/webp,image/*;q=0.9,*/*;q=0.8",
        "image/png;foo=bar;q=1.0",
        "image/png, application/json;q=nonsense",
        "text/html, image/png;q=0.3",
    ],
)
def test_a_png_where_it_is_named_and_json_is_not_liked_better(accept: str) -> None:
    assert wants_png([accept])


@pytest.mark.parametrize(
    "accept",
    [
        "",
        ",",
        "*/*",
        "application/json",
        "application/json, */*;q=0.1",
        "application/json, image/png;q=0.9",
        "image/png;q=0",
        "image/png;q=0, */*",
        "image/png;q=0.5, */*",
        "image/png;q=0, image/*",
        "image/jpeg",
        "image/png;q=nonsense",
        "image/png;q=nan",
        "image/pngs",
    ],
)
def test_json_otherwise(accept: str) -> None:
    assert not wants_png([accept])


def test_a_header_sent_in_parts_is_one() -> None:
    assert wants_png(["text/html", "image/png"])
    assert not wants_png(["image/png;q=0.5", "application/json"])
    assert not wants_png([])
