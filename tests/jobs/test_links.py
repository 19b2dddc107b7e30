from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from enlarger.jobs.links import sign, verify

KEY = "outputs/1/1/1.png"


def test_link_opens_its_file_until_it_expires() -> None:
    token = sign(b"secret", KEY, 1000)
    assert verify(b"secret", KEY, token, 999.9)
    assert not verify(b"secret", KEY, token, 1000)


def test_signature_is_hmac_sha256_of_expiry_and_key() -> None:
    digest = base64.urlsafe_b64decode(sign(b"secret", KEY, 1000).partition(".")[2] + "=")
    assert digest == hmac.digest(b"secret", b"1000\n" + KEY.encode(), hashlib.sha256)


@pytest.mark.parametrize("key", ["outputs/1/1/2.png", "outputs/1/1/1.png/", ""])
def test_link_opens_no_other_file(key: str) -> None:
    assert not verify(b"secret", key, sign(b"secret", KEY, 1000), 1)


def test_link_of_another_server_opens_nothing() -> None:
    assert not verify(b"secret", KEY, sign(b"other", KEY, 1000), 1)


def test_life_of_a_link_cannot_be_stretched() -> None:
    token = sign(b"secret", KEY, 1000)
    for stretched in (
        token.replace("1000", "9000"),
        f"0{token}",
        token.replace("1000", "1_000"),
        f"+{token}",
    ):
        assert not verify(b"secret", KEY, stretched, 1)


@given(st.text())
@example("1000.\ud800")
@example("\u0661.x")
def test_any_text_may_stand_where_a_token_belongs(token: str) -> None:
    assert not verify(b"secret", KEY, token, 1)
    assert not verify(b"secret", token, sign(b"secret", KEY, 1000), 1)
