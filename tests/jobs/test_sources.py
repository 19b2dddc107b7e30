from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enlarger.errors import InvalidOption, PayloadTooLarge
from enlarger.jobs.sources import InlineSource, UrlSource, parse_image


@pytest.mark.parametrize("url", ["http://a.test/x.png", "https://a.test/?q=1,2", "HTTPS://A.TEST/"])
def test_http_url_is_a_url(url: str) -> None:
    assert parse_image(f" {url}\n", 10) == UrlSource(url)


@given(st.binary(min_size=1, max_size=200))
def test_bytes_survive_every_inline_form(data: bytes) -> None:
    text = base64.b64encode(data).decode()
    wrapped = base64.encodebytes(data).decode()
    for form in (
        *(text, text.rstrip("="), wrapped),
        *(f"data:image/png;base64,{text}", f"DATA:image/webp;name=a.webp;BASE64,{wrapped}"),
    ):
        assert parse_image(form, 200) == InlineSource(data)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "   ",
            "=",
            "data:image/png;base64,",
            "cat.png",
            "/home/me/cat.png",
            "ftp://a.test/x",
            "file:///etc/passwd",
        ),
        *(
            "data:image/png,abcd",
            "data:image/png",
            "data:image/png;base64;x,AAAA",
            "A",
            "AAAA*",
            "äöüß",
            "AA=A",
            "\ud800",
        ),
        "http://" + "a" * 9000,
    ],
)
def test_anything_else_is_refused_by_the_name_of_the_field(text: str) -> None:
    with pytest.raises(InvalidOption, match=r"^image ") as caught:
        parse_image(text, 10_000)
    assert caught.value.field == "image"
    assert len(caught.value.message) < 300


def test_inline_picture_of_the_limit_passes_and_one_byte_more_does_not() -> None:
    assert parse_image(base64.b64encode(bytes(100)).decode(), 100) == InlineSource(bytes(100))
    with pytest.raises(PayloadTooLarge, match=r"image holds 101 bytes.*max_inline_bytes \(100\)"):
        parse_image(base64.b64encode(bytes(101)).decode(), 100)
