"""Whatever comes in, the parsers of requests either understand it or refuse it as the client's fault."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, TypeVar

from hypothesis import example, given
from hypothesis import strategies as st

from enlarger.api.bodies import json_object
from enlarger.api.multipart import file_part
from enlarger.api.problems import RequestError, status_of
from enlarger.api.submission import Submission, submission_of
from enlarger.api.wavespeed import MAX_WAIT_SECONDS, is_known, wait_of
from enlarger.errors import EnlargerError, InvalidOption
from enlarger.jobs.sources import InlineSource, parse_image
from enlarger.jobs.webhooks import checked_webhook_url
from enlarger.settings import Settings

MAX_INLINE_BYTES = 1000
Understood = TypeVar("Understood")

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
fields = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(
            ["image", "scale", "guidance_scale", "face_enhance", "model", "width", "megapixels"], values
        ),
        **dict.fromkeys(["fit", "quality", "output_format", "bit_depth", "background", "frame"], values),
        **dict.fromkeys(["webhook_url", "enable_sync_mode", "enable_base64_output"], values),
    },
)


def outcome(read: Callable[..., Understood], *arguments: Any) -> Understood | EnlargerError | RequestError:
    """What was understood, or the refusal, which is short and blames the client."""
    try:
        return read(*arguments)
    except (EnlargerError, RequestError) as error:
        refusal = error
    status = refusal.status if isinstance(refusal, RequestError) else status_of(refusal)
    assert 400 <= status < 500
    assert 0 < len(str(refusal)) < 400
    return refusal


@given(st.binary(max_size=200))
@example(b"\xef\xbb\xbf{}")
@example('{"a": "\ud800"}'.encode("utf-8", "surrogatepass"))
@example('{"a": "\ud800"}'.encode("utf-16", "surrogatepass"))
@example(b'{"a": "\\ud800"}')
@example(b"{" * 100_000)
@example(b'{"a": 1e999999999}')
@example(b'{"a": ' + b"9" * 5000 + b"}")
def test_body_is_a_json_object_that_can_be_stored_or_refused(data: bytes) -> None:
    body = outcome(json_object, data)
    if isinstance(body, dict):
        json.dumps(body, ensure_ascii=False).encode()


@given(st.dictionaries(st.text(max_size=8), values, max_size=5))
def test_json_object_is_understood_as_it_was_meant(body: dict[str, Any]) -> None:
    text = json.dumps(body, allow_nan=True)
    # Not JSON after all: NaN, infinity, or half of a surrogate pair.
    doubtful = "NaN" in text or "Infinity" in text or "\\ud" in text
    assert outcome(json_object, text.encode()) == body or doubtful


@given(fields, st.text(max_size=20))
def test_submit_is_valid_or_refused_by_name(body: dict[str, Any], webhook: str) -> None:
    submission = outcome(submission_of, body, webhook)
    if isinstance(submission, Submission):
        assert 0 < submission.options.scale <= 10
        assert isinstance(submission.image, str)
    elif isinstance(submission, InvalidOption):
        assert submission.field.removeprefix("guidance_") in submission.message


@given(
    st.text(max_size=60)
    | st.binary(max_size=60).map(lambda data: "data:image/png;base64," + base64.b64encode(data).decode())
    | st.text(max_size=30).map("data:".__add__)
    | st.text(max_size=30).map("data:image/png;base64,".__add__)
    | st.text(max_size=30).map("http://".__add__)
)
@example("data:,x")
@example("data:;base64,")
@example("=" * 5000)
@example("A" * 5000)
def test_image_is_a_source_or_refused(text: str) -> None:
    source = outcome(parse_image, text, MAX_INLINE_BYTES)
    assert not isinstance(source, InlineSource) or 0 < len(source.data) <= MAX_INLINE_BYTES


@given(st.binary(min_size=1, max_size=200), st.booleans())
def test_data_uri_gives_back_its_bytes(data: bytes, bare: bool) -> None:
    text = base64.b64encode(data).decode()
    source = parse_image(text if bare else f"data:image/png;base64,{text}", MAX_INLINE_BYTES)
    assert isinstance(source, InlineSource)
    assert source.data == data


@given(st.text(max_size=60) | st.text(max_size=40).map("https://".__add__))
def test_webhook_is_usable_or_refused(text: str) -> None:
    checked = outcome(checked_webhook_url, text, Settings())
    assert not isinstance(checked, str) or checked.startswith(("http://", "https://"))


@given(st.text(max_size=40))
def test_tags_of_any_header_are_compared_without_an_error(header: str) -> None:
    assert is_known(header, 'W/"a"') in (True, False)


async def in_chunks(data: bytes, size: int) -> AsyncGenerator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def read_form(content_type: str, body: bytes, size: int) -> tuple[str, bytes]:
    async def read() -> tuple[str, bytes]:
        part = await file_part(content_type, in_chunks(body, size))
        async with aclosing(part.chunks):
            return part.filename, b"".join([chunk async for chunk in part.chunks])

    return asyncio.run(read())


@given(
    # Headers reach the application as latin-1.
    st.text(st.characters(max_codepoint=255), max_size=60) | st.just("multipart/form-data; boundary=b"),
    st.binary(max_size=200),
    st.integers(1, 50),
)
def test_form_is_read_or_refused(content_type: str, body: bytes, size: int) -> None:
    outcome(read_form, content_type, body, size)


@given(st.binary(max_size=300), st.integers(1, 400))
def test_file_comes_out_of_its_form_however_it_is_cut(data: bytes, size: int) -> None:
    if b"--boundary" in data:
        return
    head = b'--boundary\r\nContent-Disposition: form-data; name="text"\r\n\r\nwords\r\n'
    head += b'--boundary\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
    body = head + data + b"\r\n--boundary--\r\n"
    assert read_form("multipart/form-data; boundary=boundary", body, size) == ("a.png", data)


@given(st.text())
def test_prefer_header_never_breaks_and_never_asks_for_too_much(text: str) -> None:
    assert 0 <= wait_of(text) <= MAX_WAIT_SECONDS
